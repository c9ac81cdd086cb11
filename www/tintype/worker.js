// The worker: owns the wasm engine and does all its work, so that the page's thread only ever sees results.

let engine;

/** What the platform says of its GPU. Wasm sees less of it than JavaScript does: this asks, the engine decides. */
async function adapterInfo() {
  if (!navigator.gpu) {
    return {
      available: false,
      reason: isSecureContext ? "no WebGPU in this browser" : "WebGPU needs https or localhost",
    };
  }
  try {
    const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
    if (!adapter) return { available: false, reason: "WebGPU has no adapter here" };
    const { vendor, architecture, device, description, isFallbackAdapter } = adapter.info ?? {};
    return {
      available: true,
      vendor,
      architecture,
      device,
      description,
      software: Boolean(isFallbackAdapter ?? adapter.isFallbackAdapter),
      features: [...adapter.features],
    };
  } catch (error) {
    return { available: false, reason: `WebGPU failed: ${error.message}` };
  }
}

function failure(code, message, cause) {
  return Object.assign(new Error(message, { cause }), { code });
}

/** Fetched here and not by the glue, to tell apart a missing file, a page of HTML and a policy that forbids wasm. */
async function fetchWasm(url) {
  let response;
  try {
    response = await fetch(url);
  } catch (error) {
    throw failure("network", `${url}: ${error.message}`, error);
  }
  if (!response.ok)
    throw failure(response.status === 404 ? "not-found" : "network", `${url}: the host answered ${response.status}`);
  const type = response.headers.get("content-type") ?? "";
  if (type.startsWith("text/html")) throw failure("corrupt", `${url}: expected WebAssembly, found HTML`);
  // A host that does not know the type would make the glue compile twice.
  return type.startsWith("application/wasm") ? response : response.arrayBuffer();
}

async function start(options) {
  const glue = new URL("./wasm/tintype.js", import.meta.url).href;
  const wasm = new URL("./wasm/tintype_bg.wasm", import.meta.url).href;
  const [module, bytes, info] = await Promise.all([
    import("./wasm/tintype.js").catch((error) => {
      throw failure("not-found", `${glue}: ${error.message}`, error);
    }),
    fetchWasm(wasm),
    options.backend === "cpu" ? undefined : adapterInfo(),
  ]);
  try {
    await module.default({ module_or_path: bytes });
  } catch (error) {
    throw failure("unsupported", `${wasm}: this browser or the page's policy refuses it (${error.message})`, error);
  }
  engine = await module.Engine.create({ backend: "auto", ...options, adapterInfo: info });
}

/** Held until this worker ends, however it ends. */
function holdLock(name) {
  return new Promise((held) => {
    if (!navigator.locks) return held();
    navigator.locks.request(name, () => (held(), new Promise(() => {}))).catch(held);
  });
}

const clamped = (bytes) => new Uint8ClampedArray(bytes.buffer, bytes.byteOffset, bytes.byteLength);

const report = (job) => (value) => {
  const transfer = [];
  if (value.preview) {
    const { width, height, rgba } = value.preview;
    value = { ...value, preview: { width, height, rgba: clamped(rgba) } };
    transfer.push(rgba.buffer);
  }
  postMessage({ type: "event", job, value }, transfer);
};

const commands = {
  async create({ lock, options }) {
    await holdLock(lock);
    await start(options);
    return { backend: engine.backend(), samplers: engine.samplers() };
  },
  load: ({ job, source, options }) => engine.load(job, source, options, report(job)),
  async generate({ job, request }) {
    const { images, ...rest } = await engine.generate(job, request, report(job));
    return {
      ...rest,
      images: images.map(({ width, height, rgba, parameters, text }) => {
        const png = new Blob([engine.png(width, height, rgba, text)], { type: "image/png" });
        return { width, height, rgba: clamped(rgba), parameters, png };
      }),
    };
  },
  unload: ({ id }) => engine.unload(id),
};

onmessage = async ({ data }) => {
  if (data.type === "cancel") return engine?.cancel(data.job);
  const { job } = data;
  try {
    const value = await commands[data.type](data);
    postMessage(
      { type: "answer", job, value },
      (value?.images ?? []).map(({ rgba }) => rgba.buffer),
    );
  } catch (error) {
    // After a trap nothing in the module's memory can be trusted.
    if (error instanceof WebAssembly.RuntimeError)
      return postMessage({ type: "fatal", message: `the engine failed: ${error.message}` });
    postMessage({
      type: "failure",
      job,
      error: { code: error?.code ?? "internal", message: error?.message ?? String(error) },
    });
  }
};

// A trap inside a task of wasm's own rejects a promise that nobody holds.
addEventListener("unhandledrejection", ({ reason }) => {
  postMessage({ type: "fatal", message: `the engine failed: ${reason?.message ?? reason}` });
});
