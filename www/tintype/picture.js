// What `image` and `mask` of `generate` may be → pixels: { width, height, rgba }. They are taken as they are: no colour profile is
// applied, and an alpha is neither multiplied in nor dropped; the engine refuses it.

import { addressText, fetched, get, parse } from "./address.js";
import { TintypeError } from "./error.js";
import { DRAWABLE, invalid, platformName, shown } from "./options.js";

/** The engine takes no larger ones. */
const MAX_SIDE = 8192;

function check(width, height, what, where) {
  const fits = (side) => side >= 1 && side <= MAX_SIDE;
  if (fits(width) && fits(height)) return;
  const gone = width || height ? "" : ", as if it were closed or handed over";
  throw invalid(`${where}: expected 1 to ${MAX_SIDE} pixels a side, found ${what} of ${width} x ${height}${gone}`);
}

/** A copy of what an ImageData holds: the page may go on with it. */
function copied({ width, height, data }, where) {
  check(width, height, "an ImageData", where);
  if (platformName(data) !== "Uint8ClampedArray") throw invalid(`${where}: expected an ImageData of bytes, found ${shown(data)}`);
  let rgba;
  try {
    // Of bytes that were handed over there are none, and no copy of them either.
    rgba = data.length > 0 ? new Uint8Array(data) : data;
  } catch (error) {
    throw new TintypeError("out-of-memory", `${where}: there is no room for a copy of its ${data.length} bytes`, { cause: error });
  }
  if (rgba.length !== width * height * 4) {
    throw invalid(`${where}: expected an ImageData of ${width} x ${height} pixels, found ${rgba.length} bytes in it: were they handed over?`);
  }
  return { width, height, rgba };
}

/** The pixels of what can be drawn. */
function drawn(picture, where) {
  const what = `an ${platformName(picture)}`;
  const { width, height } = picture;
  check(width, height, what, where);
  try {
    // In memory and not on a GPU, which need not give back the very bytes.
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0);
    return { width, height, rgba: new Uint8Array(context.getImageData(0, 0, width, height).data.buffer) };
  } catch (error) {
    const tainted = error?.name === "SecurityError";
    const why = tainted ? "it has pixels of another origin, which browsers let no page read" : error?.message;
    throw invalid(`${where}: ${what} could not be read: ${why}`);
  }
}

/** The pixels of a file. */
async function decoded(file, what, where) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch (error) {
    const bytes = `${file.size} bytes${file.type && ` of ${file.type}`}`;
    throw new TintypeError("corrupt", `${where}: ${what} (${bytes}) is no picture that this browser decodes`, { cause: error });
  }
  try {
    return drawn(bitmap, where);
  } finally {
    bitmap.close();
  }
}

async function downloaded(address, where, signal) {
  const { href } = parse(where, address, ["https:", "http:", "blob:", "data:"]);
  try {
    return await fetched(href, signal, async () => (await get(href, signal)).blob());
  } catch (error) {
    throw new TintypeError(error.code, `${where}: ${error.message}`, { cause: error });
  }
}

/** The pixels of a picture; of what is not a file or an address before this returns, so that the page may go on with it. */
async function pixels(value, where, signal) {
  if (platformName(value) === "ImageData") return copied(value, where);
  if (DRAWABLE.includes(platformName(value))) return drawn(value, where);
  if (platformName(value) !== "Blob" && platformName(value) !== "File") {
    const address = addressText(where, value);
    return decoded(await downloaded(address, where, signal), shown(address), where);
  }
  return decoded(value, `the ${platformName(value)}`, where);
}

/** The pixels of those that are given, by their options. */
export async function pictures(given, call, signal) {
  const each = Object.entries(given).filter(([, value]) => value !== undefined);
  const all = each.map(async ([option, value]) => [option, await pixels(value, `${call}: ${option}`, signal)]);
  return Object.fromEntries(await Promise.all(all));
}
