// How threads share a job, in a few numbers that all of them see: the job is in parts, and whoever is free takes the next one.

const [JOB, PARTS, NEXT, LEFT, GENERATION, ASLEEP, FAILED, LOCK, LENGTH] = [0, 1, 2, 3, 4, 5, 6, 7, 8];

/** `FAILED`, while it is written down why a thread did, and then. */
const [SAYING, SAID] = [1, 2];

/** Bytes of the numbers, and of the text behind them: why a thread failed. */
const [NUMBERS, TEXT] = [64, 1024];

/** `NEXT` says which part is next, and in its upper bits of which job: who comes late takes nothing of the job after his. */
const BITS = 12;

/** In place of a part: there is none yet. Jobs have fewer. */
const CLOSED = (1 << BITS) - 1;

/** Milliseconds for which the next job is looked out for without falling asleep, which takes long to wake from. */
const ALERT = 0.2;

/**
 * How often in a row, and for how many milliseconds each time, a part is waited for until the thread that owes it is taken for dead. A
 * device that slept meanwhile makes one wait longer, and no more of them.
 */
const [PATIENCE, TICK] = [30, 1000];

export const newControl = () => new Int32Array(new SharedArrayBuffer(NUMBERS + TEXT));

const pause = Atomics.pause ?? (() => {});

/** Looks out until `done()`, for a moment; gives whether it was. */
function lookOut(done) {
  const until = performance.now() + ALERT;
  do {
    for (let i = 0; i < 50; i++) {
      if (done()) return true;
      pause();
    }
  } while (performance.now() < until);
  return false;
}

/** Takes parts of the job that there is, until none is left; gives which job that was. */
function work(control, part) {
  const generation = Atomics.load(control, GENERATION);
  const [job, parts] = [Atomics.load(control, JOB), Atomics.load(control, PARTS)];
  for (;;) {
    const next = Atomics.load(control, NEXT);
    const i = next & CLOSED;
    if (next >>> BITS !== (generation << BITS) >>> BITS || i >= parts) return generation;
    // Nobody else has it, so the job has not ended. What was read of it was, for `NEXT` is of the next one before that is told.
    if (Atomics.compareExchange(control, NEXT, next, next + 1) !== next) continue;
    part(job, i);
    if (Atomics.sub(control, LEFT, 1) === 1) Atomics.notify(control, LEFT);
  }
}

/** Has all parts of a job done, and returns when they are. */
export function run(control, part, job, parts) {
  const generation = (Atomics.load(control, GENERATION) + 1) | 0;
  // Who comes late to the job before it must find none of its parts while this one is told.
  Atomics.store(control, NEXT, (generation << BITS) | CLOSED);
  Atomics.store(control, JOB, job);
  Atomics.store(control, PARTS, parts);
  Atomics.store(control, LEFT, parts);
  Atomics.store(control, NEXT, generation << BITS);
  Atomics.store(control, GENERATION, generation);
  if (Atomics.load(control, ASLEEP) > 0) Atomics.notify(control, GENERATION);
  work(control, part);
  const left = () => Atomics.load(control, LEFT);
  if (!lookOut(() => left() <= 0)) {
    let [before, ticks] = [0, 0];
    for (let now; (now = left()) > 0; before = now) {
      if (now !== before) ticks = 0;
      if (Atomics.wait(control, LEFT, now, TICK) === "timed-out" && ++ticks >= PATIENCE) {
        fail(control, `it did not answer for ${(PATIENCE * TICK) / 1000} s`);
      }
    }
  }
  check(control);
}

/** Does its part of every job, for ever. */
export function serve(control, part) {
  for (let seen = 0; ; ) {
    if (!lookOut(() => Atomics.load(control, GENERATION) !== seen)) {
      Atomics.add(control, ASLEEP, 1);
      Atomics.wait(control, GENERATION, seen);
      Atomics.sub(control, ASLEEP, 1);
    }
    try {
      // Not the job that there is by now: that may be the next one, of which nothing was done.
      seen = work(control, part);
    } catch (error) {
      fail(control, error?.message ?? String(error));
      throw error;
    }
  }
}

/** Of several the first one says why. */
function fail(control, why) {
  if (Atomics.compareExchange(control, FAILED, 0, SAYING) === 0) {
    const text = new TextEncoder().encode(why).subarray(0, TEXT);
    new Uint8Array(control.buffer, NUMBERS).set(text);
    Atomics.store(control, LENGTH, text.length);
    Atomics.store(control, FAILED, SAID);
  }
  Atomics.store(control, LEFT, 0);
  Atomics.notify(control, LEFT);
}

/** After that nothing in the memory can be trusted: it is a trap for all. */
function check(control) {
  if (Atomics.load(control, FAILED) === 0) return;
  while (Atomics.load(control, FAILED) !== SAID) pause();
  // What is shared can't be decoded as it is.
  const why = new Uint8Array(control.buffer, NUMBERS, Atomics.load(control, LENGTH)).slice();
  throw new WebAssembly.RuntimeError(`one of its threads failed: ${new TextDecoder().decode(why)}`);
}

/** Waits for the lock. It is held for moments. */
export function take(control) {
  while (Atomics.compareExchange(control, LOCK, 0, 1) !== 0) {
    check(control);
    pause();
  }
}

export function give(control) {
  Atomics.store(control, LOCK, 0);
}
