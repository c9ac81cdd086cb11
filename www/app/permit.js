// A file or folder that was opened in an earlier visit is read only if the browser lets it: it may ask, where a person has just
// pressed or chosen something.

export async function permit({ name, source }) {
  if (typeof source?.queryPermission !== "function") return;
  const asked = { mode: "read" };
  try {
    if ((await source.queryPermission(asked)) === "granted") return;
    if ((await source.requestPermission(asked)) === "granted") return;
  } catch {
    // Nothing was pressed: the same as a no.
  }
  const message = `${name}: the browser was not allowed to read it. Choose it once more, and allow it, or open it again.`;
  throw Object.assign(new Error(message), { code: "invalid-argument" });
}
