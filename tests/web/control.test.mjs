// How threads share jobs: every part of every job is done once, and before the job is over.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { newControl, run } from "../../www/tintype/control.js";

const JOBS = 40_000;
/** Parts of one job after the other: of other sizes, so that a part of one may be none of the next. */
const PARTS = [16, 32, 2, 3, 128, 1];
const MOST = 128;

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
