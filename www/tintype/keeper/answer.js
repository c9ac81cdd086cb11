// What the headers of a host's answer say of the file.

const SHA256 = /^[0-9a-f]{64}$/i;

/** An ETag without its quotes and without what a compressing server adds to it. */
function plainTag(value) {
  const tag = value?.trim().replace(/^W\//, "").replace(/^"(.*)"$/, "$1");
  return tag?.replace(/[-;](gzip|br|zstd|deflate)$/i, "") || undefined;
}

function count(value) {
  return /^\d+$/.test(value ?? "") ? Number(value) : undefined;
}

/** `bytes 5-9/20` or `bytes * /20` as `{ start, total }`; other origins see it only where the host exposes it. */
export function contentRange(response) {
  const match = /^bytes (?:(\d+)-\d+|\*)\/(\d+|\*)$/.exec(response.headers.get("content-range") ?? "");
  return { start: count(match?.[1]), total: count(match?.[2]) };
}

/** `Content-Length` counts compressed bytes, and whether they are compressed is hidden from other origins. */
function sureLength(response) {
  const plain = response.type === "basic" && response.headers.get("content-encoding") === null;
  return plain ? count(response.headers.get("content-length")) : undefined;
}

/**
 * The hub's large files have their sha256 as ETag. Its newer storage has a hash of another kind there, of as many
 * digits; the address tells.
 */
function hubHash(response, etag) {
  return SHA256.test(etag ?? "") && !response.url.includes("/xet-bridge") ? etag.toLowerCase() : undefined;
}

/** The file's own name, where the host gives one and other origins may see it. */
function nameOf(disposition) {
  const [, encoded] = /;\s*filename\*\s*=\s*utf-8'[^']*'([^;\s]+)/i.exec(disposition ?? "") ?? [];
  const [, quoted, plain] = /;\s*filename\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]+))/i.exec(disposition ?? "") ?? [];
  try {
    if (encoded) return decodeURIComponent(encoded);
  } catch {
    // No UTF-8: the other one may be there.
  }
  return quoted?.replace(/\\(.)/g, "$1") ?? plain;
}

/** Whether an answer says that it is a page. */
export const saysPage = (response) => /^text\/html\b/i.test(response.headers.get("content-type") ?? "");

/** Whether bytes are the beginning of a page, whatever the answer said. */
export const isPage = (bytes) => /^\s*<(!doctype|html|head|body|title|meta|script|!--)/i.test(new TextDecoder().decode(bytes.subarray(0, 256)));

/**
 * `{ etag, lastModified, size, length, hash, name }`, each undefined where the host doesn't say it or hides it. `size` is
 * sure; `length` is the whole answer's Content-Length, whatever that counts.
 */
export function facts(response) {
  const { headers, status } = response;
  const etag = plainTag(headers.get("etag"));
  const partly = status === 206 || status === 416;
  return {
    etag,
    lastModified: headers.get("last-modified") ?? undefined,
    size: partly ? contentRange(response).total : sureLength(response),
    length: partly ? undefined : count(headers.get("content-length")),
    hash: hubHash(response, etag),
    name: nameOf(headers.get("content-disposition")),
  };
}

const NAMES = { etag: "ETag", lastModified: "Last-Modified", size: "size", length: "Content-Length" };

/** What differs of `keys` where both sides say it, in words; undefined where nothing does. */
export function difference(before, now, keys = ["etag", "lastModified", "size"]) {
  for (const key of keys) {
    // The index gives null where an answer gave nothing.
    const [a, b] = [before[key] ?? undefined, now[key] ?? undefined];
    if (a !== undefined && b !== undefined && a !== b) return `expected ${NAMES[key]} ${a}, found ${b}`;
  }
  return undefined;
}
