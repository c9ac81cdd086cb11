// The threads that help the engine compute, in the worker that has the engine: they are workers of their own, of which nobody else
// knows. What wasm imports is called by it as it is.

import * as shared from "./control.js";
import { startWorker } from "./link.js";

const SCRIPT = new URL("./thread.js", import.meta.url);

// Written out in one expression: bundlers look for exactly this.
const start = () =>
  startWorker(SCRIPT, "tintype thread", () => new Worker(new URL("./thread.js", import.meta.url), { type: "module", name: "tintype thread" }));

/** Bytes that each thread's calls may take: as many as the engine's own. */
const STACK = 1 << 20;

/** Milliseconds in which a thread must have started. */
const PATIENCE = 10_000;

let control = null;
let part = null;

export const run = (job, parts) => shared.run(control, part, job >>> 0, parts);
export const take = () => shared.take(control);
export const give = () => shared.give(control);

/** Resolves when the worker waits for jobs. */
function ready(worker, message) {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`a thread did not start in ${PATIENCE / 1000} s`)), PATIENCE);
    const end = (settle, value) => (clearTimeout(late), settle(value));
    worker.onmessage = ({ data }) => (data?.error ? end(reject, new Error(data.error)) : end(resolve));
    worker.onerror = (event) => {
      event.preventDefault();
      end(reject, new Error(event.message || "the script of a thread could not be loaded"));
    };
    worker.postMessage(message);
  });
}

/**
 * Starts as many threads as are missing for there to be `count`, with instances of `module` beside the one whose `exports` these
 * are.
 */
export async function startThreads(module, exports, count) {
  const { memory } = exports;
  const common = shared.newControl();
  const workers = [];
  try {
    const stacks = Array.from({ length: count - 1 }, () => exports.tintype_stack(STACK) >>> 0);
    if (stacks.includes(0)) throw new Error("there is no memory for their stacks");
    const starting = stacks.map((stack) => {
      const worker = start();
      workers.push(worker);
      return ready(worker, { module, memory, control: common, stack: stack + STACK });
    });
    await Promise.all(starting);
  } catch (error) {
    for (const worker of workers) worker.terminate();
    throw error;
  }
  [control, part] = [common, exports.tintype_part];
}
