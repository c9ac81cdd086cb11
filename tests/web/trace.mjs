// How long the tasks of a page's main thread took, in thread time, from the browser's own trace.

const CATEGORIES = ["toplevel", "devtools.timeline", "disabled-by-default-devtools.timeline", "v8", "__metadata"];

/**
 * Runs `work` and gives the tasks of the renderer threads that ran scripts of `origin`:
 * [{ milliseconds, scripts }], the longest first. `scripts` are the calls that the trace names in it.
 */
export async function tasksDuring(browser, page, origin, work) {
  await browser.startTracing(page, { categories: CATEGORIES });
  let trace;
  try {
    await work();
  } finally {
    trace = JSON.parse(await browser.stopTracing());
  }
  const { traceEvents } = trace;
  const threadOf = ({ pid, tid }) => `${pid}/${tid}`;
  const mains = new Set(
    traceEvents.filter(({ name, args }) => name === "thread_name" && args.name === "CrRendererMain").map(threadOf),
  );
  const ours = traceEvents.filter((event) => {
    const url = event.args?.data?.url ?? event.args?.beginData?.url ?? "";
    return mains.has(threadOf(event)) && typeof url === "string" && url.startsWith(origin);
  });
  const threads = new Set(ours.map(threadOf));
  return traceEvents
    .filter((event) => event.ph === "X" && /RunTask$/.test(event.name) && event.tdur !== undefined && threads.has(threadOf(event)))
    .map((task) => ({
      milliseconds: task.tdur / 1000,
      scripts: ours
        .filter((event) => threadOf(event) === threadOf(task) && event.ts >= task.ts && event.ts <= task.ts + task.dur)
        .map(({ name, args }) => `${name} ${args.data?.functionName ?? ""} ${args.data?.url ?? ""}:${args.data?.lineNumber ?? ""}`),
    }))
    .sort((a, b) => b.milliseconds - a.milliseconds);
}
