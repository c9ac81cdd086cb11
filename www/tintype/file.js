// Names of single files.

/** A name that the engine takes for a path of one part; `otherwise`, if nothing is left of it. */
export const plain = (name, otherwise) => String(name).replace(/[/\\:\0]/g, "_").replace(/^\.{1,2}$/, "_") || otherwise;

/** The name without what tells its format. */
export const stem = (name) => name.replace(/\.[^.]*$/, "") || name;
