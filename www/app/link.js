// A picture's recipe in the address after "#", so that it can be kept and sent.

const FIELDS = [
  "checkpoint",
  "prompt",
  "negativePrompt",
  "seed",
  "steps",
  "guidanceScale",
  "width",
  "height",
  "sampler",
];

export function toHash(recipe) {
  const query = new URLSearchParams();
  for (const field of FIELDS) {
    const value = recipe[field];
    if (value !== undefined && value !== "") query.set(field, value);
  }
  return `#${query}`;
}

/** What a hash says of a picture, as strings; null where it says nothing. */
export function fromHash(hash) {
  const query = new URLSearchParams(hash.replace(/^#/, ""));
  const said = FIELDS.filter((field) => query.has(field)).map((field) => [field, query.get(field)]);
  return said.length ? Object.fromEntries(said) : null;
}
