// A bar that shows parts of a whole.

/** `text` is what it says in words. Without a `total` there is nothing to be part of. */
export function meter(root, { text, total, parts }) {
  root.hidden = !total;
  if (!total) return;
  root.setAttribute("aria-valuemin", 0);
  root.setAttribute("aria-valuemax", total);
  root.setAttribute("aria-valuenow", Math.min(total, parts.reduce((sum, part) => sum + part, 0)));
  root.setAttribute("aria-valuetext", text);
  while (root.children.length < parts.length) root.append(document.createElement("i"));
  parts.forEach((part, index) => root.children[index].style.setProperty("--part", part / total));
}
