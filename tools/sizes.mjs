// What one visitor downloads of dist/tintype/: its JavaScript and its wasm.
import { readFileSync, readdirSync } from "node:fs";
import path from "node:path";
import { gzipSync } from "node:zlib";

/** The files that a visitor's browser fetches, with their sizes as they are and after `gzip -9`. */
export function measure(folder) {
  return readdirSync(folder, { recursive: true })
    .filter((name) => name.endsWith(".js") || name.endsWith(".wasm"))
    .sort()
    .map((name) => {
      const bytes = readFileSync(path.join(folder, name));
      return { name, raw: bytes.length, gzip: gzipSync(bytes, { level: 9 }).length };
    });
}

/** Of each of these a visitor fetches one, and that may be the largest: builds of the wasm, and what JavaScript has for them. */
const ALTERNATIVES = [/\.wasm$/, /^wasm.tintype\w*\.js$/];
/** What is the page's own to fetch, or not. */
const APART = ["isolation.js"];

/** What one visitor fetches. */
export function total(rows) {
  const others = ALTERNATIVES.flatMap((one) => {
    const [, ...others] = rows.filter(({ name }) => one.test(name)).sort((a, b) => b.gzip - a.gzip);
    return others;
  }).concat(rows.filter(({ name }) => APART.includes(name)));
  return rows.filter((row) => !others.includes(row)).reduce((sum, row) => ({ raw: sum.raw + row.raw, gzip: sum.gzip + row.gzip }), { raw: 0, gzip: 0 });
}

/** `measure` as a table to print. */
export function report(folder) {
  const rows = measure(folder);
  const width = Math.max(...rows.map((row) => row.name.length), 10);
  const line = (name, raw, gzip) => `${name.padEnd(width)}  ${raw.padStart(12)}  ${gzip.padStart(12)}`;
  const number = (value) => value.toLocaleString("en");
  return [
    line("dist/tintype", "bytes", "gzip -9"),
    ...rows.map((row) => line(row.name, number(row.raw), number(row.gzip))),
    line("one visitor", number(total(rows).raw), number(total(rows).gzip)),
  ].join("\n");
}
