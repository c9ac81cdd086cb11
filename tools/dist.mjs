// Puts dist/ together: the crate's wasm through wasm-bindgen and wasm-opt, then the files of www/ beside it.
//   WASM_BINDGEN=… node tools/dist.mjs COMPILED.wasm WITH_RELAXED_SIMD.wasm WITH_THREADS.wasm WORK_FOLDER
// What did not change is not done again, so it costs a moment to repeat.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { report } from "./sizes.mjs";

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");
const BINDGEN_FLAGS = ["--target", "web", "--remove-name-section", "--remove-producers-section"];
// LLVM has been there before: higher levels take several times as long, for no speed and more bytes after gzip.
const OPT_FLAGS = [
  "-O1",
  "--enable-simd",
  "--enable-bulk-memory",
  "--enable-nontrapping-float-to-int",
  "--enable-sign-ext",
  "--enable-mutable-globals",
  "--enable-reference-types",
  "--enable-multivalue",
  "--enable-relaxed-simd",
  "--enable-threads",
];

/** Every file under `folder`, as paths relative to it. */
function filesUnder(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(folder, path.join(entry.parentPath ?? entry.path, entry.name)));
}

/** Runs the compiled wasm through wasm-bindgen and wasm-opt into `work`, as `name`, unless this very input went through before. */
function bind(compiled, name, work) {
  const bindgen = process.env.WASM_BINDGEN ?? "wasm-bindgen";
  const opt = path.join(ROOT, "tools/node_modules/.bin/wasm-opt");
  const stamp = createHash("sha256")
    .update(readFileSync(compiled))
    .update(JSON.stringify([name, BINDGEN_FLAGS, OPT_FLAGS]))
    .update(readFileSync(path.join(ROOT, "tools/package-lock.json")))
    .digest("hex");
  const stampFile = path.join(work, "stamp");
  if (existsSync(stampFile) && readFileSync(stampFile, "utf8") === stamp) return path.join(work, "wasm");

  rmSync(work, { recursive: true, force: true });
  const out = path.join(work, "wasm");
  mkdirSync(out, { recursive: true });
  execFileSync(bindgen, [compiled, ...BINDGEN_FLAGS, "--out-name", name, "--out-dir", out], { stdio: "inherit" });
  const wasm = path.join(out, `${name}_bg.wasm`);
  const before = statSync(wasm).size;
  const started = Date.now();
  execFileSync(process.execPath, [opt, wasm, "-o", wasm, ...OPT_FLAGS], { stdio: "inherit" });
  const seconds = ((Date.now() - started) / 1000).toFixed(0);
  console.log(`wasm-opt: ${before.toLocaleString("en")} -> ${statSync(wasm).size.toLocaleString("en")} bytes in ${seconds} s`);
  writeFileSync(stampFile, stamp);
  return out;
}

/**
 * Compiled wasm for several threads, as wasm-bindgen wants it: of data that each thread has for itself, where there is none, the linker
 * says that it is aligned to 0, and the start allocates as much.
 */
function aligned(compiled) {
  const bytes = readFileSync(compiled);
  let at = 8;
  const number = () => {
    let value = 0;
    for (let shift = 0, byte = 128; byte & 128; shift += 7) value += ((byte = bytes[at++]) & 127) * 2 ** shift;
    return value;
  };
  const sections = new Map();
  while (at < bytes.length) {
    const id = bytes[at++];
    const end = number() + at;
    sections.set(id, at);
    at = end;
  }
  const [GLOBALS, EXPORTS] = [6, 7];
  at = sections.get(EXPORTS);
  let index;
  for (let left = number(); left > 0; left--) {
    const length = number();
    const name = bytes.toString("utf8", at, (at += length));
    at += 1;
    const exported = number();
    if (name === "__tls_align") index = exported;
  }
  at = sections.get(GLOBALS);
  for (let left = number(); left > 0; left--, index--) {
    // Type, whether it changes, and a constant of 32 bits.
    const constant = at + 3;
    at = constant;
    number();
    at += 1;
    if (index !== 0) continue;
    if (bytes[constant - 1] !== 0x41 || at !== constant + 2) break;
    bytes[constant] ||= 1;
    const to = `${compiled}.aligned`;
    writeFileSync(to, bytes);
    return to;
  }
  throw new Error(`${compiled}: __tls_align is not where it was looked for`);
}

/** Makes `target` hold exactly `wanted` (a map of relative path to source file); copies what differs, removes the rest. */
function mirror(wanted, target) {
  mkdirSync(target, { recursive: true });
  for (const name of filesUnder(target)) {
    if (!wanted.has(name)) rmSync(path.join(target, name));
  }
  for (const [name, source] of wanted) {
    const to = path.join(target, name);
    const from = statSync(source);
    const now = statSync(to, { throwIfNoEntry: false });
    if (now && now.size === from.size && Math.abs(now.mtimeMs - from.mtimeMs) < 1) continue;
    mkdirSync(path.dirname(to), { recursive: true });
    copyFileSync(source, to);
    utimesSync(to, from.atime, from.mtime);
  }
}

const [compiled, relaxed, threads, work] = process.argv.slice(2);
if (!work) {
  console.error("usage: WASM_BINDGEN=… node tools/dist.mjs COMPILED.wasm WITH_RELAXED_SIMD.wasm WITH_THREADS.wasm WORK_FOLDER");
  process.exit(2);
}
const www = path.join(ROOT, "www");
const wanted = new Map(filesUnder(www).map((name) => [name, path.join(www, name)]));
const bound = bind(compiled, "tintype", path.join(work, "plain"));
const faster = bind(relaxed, "tintype", path.join(work, "relaxed"));
const several = bind(aligned(threads), "tintype_threads", path.join(work, "threads"));
for (const name of filesUnder(several)) wanted.set(path.join("tintype/wasm", name), path.join(several, name));
// The glue is one for the other two: its code is the same, and what is said in it of places in a table of functions is not looked at.
const code = (folder, name) => readFileSync(path.join(folder, name), "utf8").replaceAll(/^ *\/\/.*$/gm, "");
for (const name of filesUnder(bound)) {
  wanted.set(path.join("tintype/wasm", name), path.join(bound, name));
  if (name.endsWith(".wasm")) wanted.set("tintype/wasm/tintype_relaxed_bg.wasm", path.join(faster, name));
  else if (code(bound, name) !== code(faster, name)) throw new Error(`the two builds of the wasm need another ${name} each`);
}
// What bench.html races with, where it is asked for; never a part of what a site copies.
const ORT = ["ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm", "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"]
  .map((name) => `dist/${name}`)
  .concat("package.json");
for (const name of ORT) {
  wanted.set(path.join("bench/ort", path.basename(name)), path.join(ROOT, "tools/node_modules/onnxruntime-web", name));
}
for (const name of ["LICENSE-MIT", "LICENSE-APACHE"]) wanted.set(path.join("tintype", name), path.join(ROOT, name));
mirror(wanted, path.join(ROOT, "dist"));
console.log(report(path.join(ROOT, "dist/tintype")));
