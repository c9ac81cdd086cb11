// The digits choose a card: as they are, or with Alt where digits are text.

const TEXT = "textarea, select, [contenteditable], input:not([type=radio], [type=checkbox], [type=range], [type=button])";

/** 1 to 9, or nothing: the key's place for layouts where a digit needs Shift, its text for the number pad. */
function digitOf({ code, key }) {
  return Number(/^Digit([1-9])$/.exec(code)?.[1] ?? /^[1-9]$/.exec(key)?.[0]) || undefined;
}

/** Calls `choose(n)` for a digit that is meant so; where it gives true, the key is used up. */
export function listen(choose) {
  addEventListener("keydown", (event) => {
    const digit = digitOf(event);
    if (!digit || event.isComposing || event.repeat || event.ctrlKey || event.metaKey || event.shiftKey) return;
    // Windows types characters by Alt and the number pad.
    if (event.altKey ? event.code.startsWith("Numpad") : event.target.closest?.(TEXT)) return;
    if (choose(digit)) event.preventDefault();
  });
}
