// A page and its workers as the browser's own tools see them: what their JavaScript holds, and collecting it.

/** Calls into the targets that belong to `page`: the page and its dedicated workers. */
export async function openTargets(page) {
  const session = await page.context().newCDPSession(page);
  const workers = new Map();
  const waiting = new Map();
  let next = 1;
  session.on("Target.attachedToTarget", ({ sessionId, targetInfo }) => workers.set(sessionId, targetInfo.url));
  session.on("Target.detachedFromTarget", ({ sessionId }) => {
    workers.delete(sessionId);
    for (const { of, answered } of waiting.values()) if (of === sessionId) answered({ error: { message: "the worker ended" } });
  });
  session.on("Target.receivedMessageFromTarget", ({ message }) => {
    const { id, result, error } = JSON.parse(message);
    waiting.get(id)?.answered({ result, error });
    waiting.delete(id);
  });
  await session.send("Target.setAutoAttach", { autoAttach: true, waitForDebuggerOnStart: false, flatten: false });

  const ask = async (sessionId, method, params = {}) => {
    const id = next++;
    const answer = new Promise((answered) => waiting.set(id, { of: sessionId, answered }));
    await session.send("Target.sendMessageToTarget", { sessionId, message: JSON.stringify({ id, method, params }) });
    const { result, error } = await answer;
    if (error) throw new Error(`${method}: ${error.message}`);
    return result;
  };
  const name = (url) => url.slice(url.lastIndexOf("/") + 1);
  /** `method` of the page and of each worker, by its script's name. */
  const each = async (method, params) => {
    const all = [["page", session.send(method, params)]];
    // A worker may end meanwhile.
    for (const [id, url] of workers) all.push([name(url), ask(id, method, params).catch(() => undefined)]);
    const answers = await Promise.all(all.map(async ([key, answer]) => [key, await answer]));
    return Object.fromEntries(answers.filter(([, answer]) => answer !== undefined));
  };
  return {
    each,
    close: () => session.detach(),
    /** Bytes of JavaScript's heap, and of what array buffers hold beside it. */
    async heaps() {
      const usages = await each("Runtime.getHeapUsage");
      return Object.fromEntries(Object.entries(usages).map(([key, u]) => [key, { used: u.usedSize, buffers: u.backingStorageSize ?? 0 }]));
    },
    async collect() {
      await each("HeapProfiler.enable");
      await each("HeapProfiler.collectGarbage");
    },
  };
}
