// What LoRAs' `source`s may be → what the engine reads: [{ source, path, scale }], where `path` is the file in the source.

import { LORA } from "./source.js";

/** LoRAs in the engine's words, and what a person should know of where they come from. `call` names who asked for them. */
export async function resolveLoras(sources, loras, call, signal) {
  const found = await Promise.all(
    loras.map(({ source }, index) => sources.find(source, { where: `${call}: loras[${index}].source`, kind: LORA, signal })),
  );
  return {
    loras: found.map(({ source }, index) => ({ source, path: source.path, scale: loras[index].scale })),
    warnings: found.flatMap(({ warnings }) => warnings),
  };
}
