// The text chunks of a PNG file.
import { inflateSync } from "node:zlib";

const SIGNATURE = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);

/** Keyword to text, from tEXt, zTXt and iTXt chunks. */
export function textChunks(png) {
  if (!png.subarray(0, 8).equals(SIGNATURE)) throw new Error("not a PNG file");
  const found = {};
  for (let at = 8; at < png.length; ) {
    const length = png.readUInt32BE(at);
    const type = png.toString("latin1", at + 4, at + 8);
    const body = png.subarray(at + 8, at + 8 + length);
    at += length + 12;
    if (!["tEXt", "zTXt", "iTXt"].includes(type)) continue;
    const end = body.indexOf(0);
    const keyword = body.toString("latin1", 0, end);
    const rest = body.subarray(end + 1);
    if (type === "tEXt") found[keyword] = rest.toString("latin1");
    if (type === "zTXt") found[keyword] = inflateSync(rest.subarray(1)).toString("latin1");
    if (type !== "iTXt") continue;
    // Compression flag and method, then language and translated keyword, each ended by a zero byte.
    const text = rest.subarray(rest.indexOf(0, rest.indexOf(0, 2) + 1) + 1);
    found[keyword] = (rest[0] ? inflateSync(text) : text).toString("utf8");
  }
  return found;
}
