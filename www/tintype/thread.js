// One of the threads that help the engine compute: an instance of its module over its memory, that does parts of its jobs. It calls
// nothing of the page's and has no data of its own but its stack.

import { give, serve, take } from "./control.js";

onmessage = async ({ data: { module, memory, control, stack } }) => {
  let part;
  try {
    const imports = {};
    const panicked = (at, length) => {
      throw new WebAssembly.RuntimeError(new TextDecoder().decode(new Uint8Array(memory.buffer, at >>> 0, length >>> 0).slice()));
    };
    const own = { logs: () => 0, panicked };
    for (const { module: from, name, kind } of WebAssembly.Module.imports(module)) {
      const unexpected = () => {
        throw new Error(`a thread called ${name}`);
      };
      // wasm-bindgen puts its own in between where a text is passed.
      const given = own[name.replace(/^__wbg_(.*)_[0-9a-f]+$/, "$1")];
      (imports[from] ??= {})[name] = kind === "memory" ? memory : (given ?? unexpected);
    }
    Object.assign(imports["../threads.js"], { take: () => take(control), give: () => give(control) });
    const { exports } = await WebAssembly.instantiate(module, imports);
    // Its start is not called: the memory holds the engine's data already.
    exports.__stack_pointer.value = stack;
    part = exports.tintype_part;
  } catch (error) {
    return postMessage({ error: error.message });
  }
  postMessage({});
  serve(control, part);
};
