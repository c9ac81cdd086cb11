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

/** Whether a file is of the build for browsers with relaxed SIMD, which is fetched in place of the other one. */
const isRelaxed = ({ name }) => name.split(path.sep).includes("relaxed");

/** What one visitor fetches: of the two builds the larger. */
export function total(rows) {
  const sums = [(row) => !isRelaxed(row), isRelaxed].map((build) => sum(rows.filter((row) => row.name.startsWith("wasm") && build(row))));
  const [larger] = sums.sort((a, b) => b.gzip - a.gzip);
  return sum([larger, ...rows.filter((row) => !row.name.startsWith("wasm"))]);
}

function sum(rows) {
  return rows.reduce((sum, row) => ({ raw: sum.raw + row.raw, gzip: sum.gzip + row.gzip }), { raw: 0, gzip: 0 });
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
