// The worker that fetches, hashes and keeps files, beside the one that computes. The page starts it and connects the
// two by a port; what goes over it is in keeper/serve.js.
//   in    start { module, options: { store, stallTimeout, hub, lock } }   connect { port }   disconnect
//         store { job, command, args }   cancel { job }
//   out   ready   fatal { message }   answer { job, value }   failure { job, error }   event { job, value }
//         notice { detail: { kind, message } }

import { COMMANDS, Commands } from "./keeper/commands.js";
import { failure, sendable } from "./keeper/failure.js";
import { startHashing } from "./keeper/hash.js";
import { Hub } from "./keeper/hub.js";
import { holdLock } from "./keeper/locks.js";
import { Pool } from "./keeper/pool.js";
import { Room } from "./keeper/room.js";
import { Connection } from "./keeper/serve.js";
import { Store } from "./keeper/store.js";

const STALL_TIMEOUT = 20_000;

const notice = (kind, message) => postMessage({ type: "notice", detail: { kind, message } });

let keeper;
let commands;
let connection;
const jobs = new Map();

async function start({ module, options: { store: policy = "keep", stallTimeout = STALL_TIMEOUT, hub, lock } = {} }) {
  await holdLock(lock);
  await startHashing(module);
  let store = null;
  let unkept;
  try {
    // Without keeping anything anew, a page may still remove what was kept.
    store = await Store.open();
    if (policy === "off") unkept = "files are not stored: the store is off";
  } catch (error) {
    unkept = `files are not stored: ${error.message}`;
  }
  const all = store;
  if (unkept) store = null;
  const gaveWay = (names) => notice("quota", `to make room, the store let go of ${names.join(", ")}`);
  const room = store && new Room(store, policy === "evict", gaveWay);
  keeper = { store, room, unkept, stallTimeout, pool: new Pool(), hub: new Hub(hub, stallTimeout), notice };
  commands = new Commands(all, keeper);
  postMessage({ type: "ready" });
  if (unkept) notice("store", unkept);
}

async function command({ job, command, args = [] }) {
  const controller = new AbortController();
  jobs.set(job, controller);
  try {
    if (!COMMANDS.includes(command)) {
      throw failure("invalid-argument", `store: expected one of ${COMMANDS.join(", ")}, found ${command}`);
    }
    const onProgress = (value) => postMessage({ type: "event", job, value });
    const value = await commands[command](args, { onProgress, signal: controller.signal });
    postMessage({ type: "answer", job, value });
  } catch (error) {
    // Whoever asked was told by the page's end what it was.
    const stopped = controller.signal.aborted && failure("cancelled", "it was cancelled");
    postMessage({ type: "failure", job, error: sendable(stopped || error) });
  } finally {
    jobs.delete(job);
  }
}

/** Ends a connection before the next one begins: what the former one wrote is locked until then. */
let changing = Promise.resolve();
function connect(port) {
  changing = changing.then(async () => {
    await connection?.end();
    // Its messages wait until someone listens.
    connection = port && new Connection(keeper, port);
  });
}

let started;
onmessage = async ({ data }) => {
  if (data.type === "start") {
    started = start(data).catch((error) => {
      postMessage({ type: "fatal", message: `the keeper could not start: ${error?.message ?? error}` });
      throw error;
    });
    return started.catch(() => {});
  }
  try {
    await started;
  } catch {
    // Said already.
    return;
  }
  if (data.type === "connect") connect(data.port);
  else if (data.type === "disconnect") connect(null);
  else if (data.type === "store") command(data);
  else if (data.type === "cancel") jobs.get(data.job)?.abort();
};

addEventListener("unhandledrejection", ({ reason }) => {
  postMessage({ type: "fatal", message: `the keeper failed: ${reason?.message ?? reason}` });
});
