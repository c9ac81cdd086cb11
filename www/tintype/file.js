// Names and addresses of single files.

/** A name that the engine takes for a path of one part; `otherwise`, if nothing is left of it. */
export const plain = (name, otherwise) => String(name).replace(/[/\\:\0]/g, "_").replace(/^\.{1,2}$/, "_") || otherwise;

/** The name without what tells its format. */
export const stem = (name) => name.replace(/\.[^.]*$/, "") || name;

/** A file's address as `{ url, path }`: its folder's, and its name in it, which is empty if it is a folder itself. */
export function splitAddress(address) {
  const url = new URL(address);
  url.hash = "";
  const encoded = url.pathname.slice(url.pathname.lastIndexOf("/") + 1);
  url.pathname = url.pathname.slice(0, url.pathname.length - encoded.length);
  let path = encoded;
  try {
    path = decodeURIComponent(encoded);
  } catch {
    // No UTF-8: asked for as it is.
  }
  return { url: url.href, path };
}
