// Locks that hold across tabs, and end with the worker that holds them.

/** Held while files are moved or removed and the index is told of it: no other tab ever sees one without the other. */
export const alone = (work) => navigator.locks.request("tintype-store", work);

/** How long to wait for a file's lock: a page that was just closed may hold it a moment longer. */
const PATIENCE = 500;

const fileLock = (url) => `tintype-file:${url}`;

/** A function that releases the file's lock, or null where another page is writing this file. */
export function lockFile(url, patience = PATIENCE) {
  return new Promise((resolve) => {
    const options = patience > 0 ? { signal: AbortSignal.timeout(patience) } : { ifAvailable: true };
    navigator.locks
      .request(fileLock(url), options, (lock) => lock && new Promise((release) => resolve(release)))
      .catch(() => {})
      .then(() => resolve(null));
  });
}

/** Held until this worker ends, however it ends. */
export function holdLock(name) {
  return new Promise((held) => {
    if (!navigator.locks || !name) return held();
    navigator.locks.request(name, () => (held(), new Promise(() => {}))).catch(held);
  });
}
