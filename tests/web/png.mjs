// PNG files: written with the very bytes that are asked for, and the text chunks of others.
import { crc32, deflateSync, inflateSync } from "node:zlib";

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

/** A chunk as it is in the file. */
function chunk(type, body) {
  const named = Buffer.concat([Buffer.from(type, "latin1"), body]);
  const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(body.length);
  sum.writeUInt32BE(crc32(named));
  return Buffer.concat([length, named, sum]);
}

/** A PNG of 8 bits a channel: `bytes` are grey (1 channel), RGB (3) or RGBA (4). `chunks` go before the pixels: { type: body }. */
export function encodePng(width, height, bytes, chunks = {}) {
  const channels = bytes.length / (width * height);
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head.set([8, { 1: 0, 3: 2, 4: 6 }[channels]], 8);
  const row = width * channels;
  const rows = Array.from({ length: height }, (_, y) => Buffer.concat([Buffer.alloc(1), bytes.subarray(y * row, (y + 1) * row)]));
  const between = Object.entries(chunks).map(([type, body]) => chunk(type, body));
  const data = deflateSync(Buffer.concat(rows));
  return Buffer.concat([SIGNATURE, chunk("IHDR", head), ...between, chunk("IDAT", data), chunk("IEND", Buffer.alloc(0))]);
}
