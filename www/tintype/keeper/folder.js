// Files of the origin private file system, as the store uses them.

const ATTEMPTS = 20;
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export const isMissing = (error) => error?.name === "NotFoundError";
const isBusy = (error) => error?.name === "NoModificationAllowedError" || error?.name === "InvalidStateError";

/** One of the store's two folders. Asked for each time: a person may clear the site's data at any moment. */
export async function folder(name) {
  const root = await navigator.storage.getDirectory();
  const tintype = await root.getDirectoryHandle("tintype", { create: true });
  return tintype.getDirectoryHandle(name, { create: true });
}

export async function namesIn(name) {
  const names = [];
  for await (const entry of (await folder(name)).keys()) names.push(entry);
  return names;
}

/** Whether the file is gone now. One that is being read elsewhere stays: it is swept up another time. */
export async function removeFile(folderName, name) {
  try {
    await (await folder(folderName)).removeEntry(name);
    return true;
  } catch (error) {
    return isMissing(error);
  }
}

/** Bytes of the file, or undefined where it is missing. */
export async function sizeOf(folderName, name) {
  try {
    return (await (await (await folder(folderName)).getFileHandle(name)).getFile()).size;
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/** A file for writing. A page that was just closed may hold it a moment longer. */
export async function openForWriting(folderName, name) {
  const handle = await (await folder(folderName)).getFileHandle(name, { create: true });
  for (let attempt = 1; ; attempt++) {
    try {
      return { handle, access: await handle.createSyncAccessHandle() };
    } catch (error) {
      if (!isBusy(error) || attempt === ATTEMPTS) throw error;
      await pause(50);
    }
  }
}

/**
 * A file for reading: `{ size, read(buffer, at), close() }`, `read` giving the count of bytes. Rejects with a
 * NotFoundError where it is missing.
 */
export async function openForReading(folderName, name) {
  const handle = await (await folder(folderName)).getFileHandle(name);
  try {
    const access = await handle.createSyncAccessHandle({ mode: "read-only" });
    return {
      size: access.getSize(),
      read: (buffer, at) => access.read(buffer, { at }),
      close: () => access.close(),
    };
  } catch (error) {
    if (!isBusy(error)) throw error;
  }
  // Browsers without that mode let one reader in at a time; the others take this slower way.
  const file = await handle.getFile();
  return {
    size: file.size,
    async read(buffer, at) {
      const bytes = new Uint8Array(await file.slice(at, at + buffer.length).arrayBuffer());
      buffer.set(bytes);
      return bytes.length;
    },
    close() {},
  };
}
