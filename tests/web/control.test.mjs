// How threads share jobs: every part of every job is done once, and before the job is over.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { newControl, run } from "../../www/tintype/control.js";

const JOBS = 40_000;
/** Parts of one job after the other: of other sizes, so that a part of one may be none of the next. */
const PARTS = [16, 32, 2, 3, 128, 1];
const MOST = 128;

/** Starts a thread that does each part by what `body` says. */
async function threadThat(control, body, more = {}) {
  const url = new URL("../../www/tintype/control.js", import.meta.url).href;
  const script = `
    const { workerData: { control, url, more }, parentPort } = require("node:worker_threads");
    import(url).then(({ serve }) => {
      parentPort.postMessage("ready");
      serve(control, (job, part) => { ${body} });
    });
  `;
  const thread = new Worker(script, { eval: true, workerData: { control, url, more } });
  thread.on("error", () => {});
  await new Promise((resolve) => thread.once("message", resolve));
  return thread;
}

const flag = () => new Int32Array(new SharedArrayBuffer(4));

test("a thread that fails over its part ends the job, and says why", { timeout: 60_000 }, async () => {
  const [control, begun] = [newControl(), flag()];
  const thread = await threadThat(control, `Atomics.store(more, 0, 1); Atomics.notify(more, 0); throw new Error("ünlucky " + "x".repeat(5000));`, begun);
  try {
    // This one's part lasts until the other has one.
    const part = () => void Atomics.wait(begun, 0, 0);
    const why = (error) => error instanceof WebAssembly.RuntimeError && /^one of its threads failed: ünlucky x{900,1024}$/.test(error.message);
    assert.throws(() => run(control, part, 0, 2), why);
    assert.throws(() => run(control, part, 0, 1), why, "and it stays so");
  } finally {
    await thread.terminate();
  }
});

test("a device that slept makes no thread a dead one; one that never answers is", { timeout: 60_000 }, async () => {
  const [control, more] = [newControl(), [flag(), flag()]];
  const [begun, free] = more;
  const held = `Atomics.store(more[0], 0, 1); Atomics.notify(more[0], 0); Atomics.wait(more[1], 0, 0);`;
  const thread = await threadThat(control, held, more);
  const { wait } = Atomics;
  let waits = 0;
  const waiting = (each) => {
    [waits, begun[0]] = [0, 0];
    Atomics.wait = (array, ...rest) => (array === control ? each(array, ...rest) : wait(array, ...rest));
    return run(control, () => void wait(begun, 0, 0), 0, 2);
  };
  try {
    waiting((...asked) => {
      waits += 1;
      // An hour went by meanwhile, for the thread too.
      if (waits === 1) return "timed-out";
      Atomics.store(free, 0, 1);
      Atomics.notify(free, 0);
      return wait(...asked);
    });
    assert.ok(waits > 1);
    Atomics.store(free, 0, 0);
    assert.throws(() => waiting(() => ((waits += 1), "timed-out")), /one of its threads failed: it did not answer for 30 s/);
    assert.equal(waits, 30);
  } finally {
    Atomics.wait = wait;
    await thread.terminate();
  }
});

const THREAD = `
  const { workerData: { control, done, url, most }, parentPort } = require("node:worker_threads");
  import(url).then(({ serve }) => {
    parentPort.postMessage("ready");
    serve(control, (job, part) => Atomics.add(done, job * most + part, 1));
  });
`;

test("each part is done once, by whoever is free, and a job ends when all of its parts are done", { timeout: 120_000 }, async () => {
  const control = newControl();
  const done = new Int32Array(new SharedArrayBuffer(4 * JOBS * MOST));
  const url = new URL("../../www/tintype/control.js", import.meta.url).href;
  // Many more than there are cores: some come late.
  const threads = Array.from({ length: 12 }, () => new Worker(THREAD, { eval: true, workerData: { control, done, url, most: MOST } }));
  try {
    await Promise.all(threads.map((thread) => new Promise((resolve) => thread.once("message", resolve))));
    let own = 0;
    const part = (job, i) => {
      own += 1;
      Atomics.add(done, job * MOST + i, 1);
    };
    let all = 0;
    for (let job = 0; job < JOBS; job++) {
      const parts = PARTS[job % PARTS.length];
      run(control, part, job, parts);
      all += parts;
      for (let i = 0; i < MOST; i++) {
        const times = Atomics.load(done, job * MOST + i);
        assert.equal(times, i < parts ? 1 : 0, `part ${i} of job ${job}, of ${parts} parts, was done ${times} times`);
      }
    }
    assert.ok(own < all, "the others did something too");
    // Nor does anybody come back to one that is over.
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(done.reduce((sum, times) => sum + times, 0), all);
  } finally {
    await Promise.all(threads.map((thread) => thread.terminate()));
  }
});

test("no job is missed by a thread, however soon it comes after another", { timeout: 120_000 }, async () => {
  const [control, begun] = [newControl(), flag()];
  const thread = await threadThat(control, `Atomics.store(more, 0, job); Atomics.notify(more, 0); for (let k = 0; k < 20_000; k++) Math.sqrt(k);`, begun);
  try {
    for (let job = 1; job <= 20_000; job++) {
      let mine = 0;
      // The first part of this one's lasts until the other has begun the second.
      const part = () => {
        if (mine++ > 0) return;
        for (let seen; (seen = Atomics.load(begun, 0)) !== job; ) assert.notEqual(Atomics.wait(begun, 0, seen, 10_000), "timed-out", `job ${job}`);
      };
      run(control, part, job, 2);
    }
  } finally {
    await thread.terminate();
  }
});
