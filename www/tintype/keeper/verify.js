// Reads files of the store again, to find what the disk has changed.

import { isMissing, openForReading } from "./folder.js";
import { Hasher } from "./hash.js";

const CHUNK = 1 << 20;

/** The file's hash, or in words what it has instead of `size` bytes. */
async function found({ sha256, size }, onBytes) {
  let file;
  try {
    file = await openForReading("blobs", sha256);
  } catch (error) {
    if (isMissing(error)) return "no file";
    throw error;
  }
  const hasher = new Hasher();
  try {
    if (file.size !== size) return `${file.size} bytes in place of ${size}`;
    const buffer = new Uint8Array(CHUNK);
    for (let at = 0; at < size; ) {
      const count = await file.read(buffer.subarray(0, Math.min(CHUNK, size - at)), at);
      if (count === 0) return `${at} bytes in place of ${size}`;
      hasher.update(buffer.subarray(0, count));
      at += count;
      await onBytes(count);
    }
    return hasher.finish();
  } finally {
    file.close();
  }
}

const macrotask = () => new Promise((resolve) => setTimeout(resolve));

/**
 * Hashes every whole file, or those of the hashes `only`, and removes the bad ones: `{ files, bytes, bad: [{ url,
 * expected, found }] }`. `onProgress({ url, loadedBytes, totalBytes })`.
 */
export async function verify(store, { only, onProgress = () => {}, signal } = {}) {
  const { blobs, urls, checkpoints } = await store.contents();
  const addresses = new Map();
  for (const { sha256, url } of [...checkpoints.flatMap(({ files }) => files), ...urls]) addresses.set(sha256, url);
  const chosen = blobs.filter(({ sha256 }) => !only || only.includes(sha256));
  const totalBytes = chosen.reduce((sum, { size }) => sum + size, 0);
  const bad = [];
  let loadedBytes = 0;
  let reported = 0;
  for (const blob of chosen) {
    const url = addresses.get(blob.sha256);
    const actual = await found(blob, async (count) => {
      signal?.throwIfAborted();
      loadedBytes += count;
      if (loadedBytes - reported < 8 * CHUNK && loadedBytes < totalBytes) return;
      reported = loadedBytes;
      onProgress({ url, loadedBytes, totalBytes });
      // Between two pieces, loads go on.
      await macrotask();
    });
    if (actual !== blob.sha256) bad.push({ url, expected: blob.sha256, found: actual });
  }
  await store.drop(bad.map(({ expected }) => expected));
  return { files: chosen.length, bytes: totalBytes, bad };
}
