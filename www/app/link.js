// A picture's recipe in the address after "#", so that it can be kept and sent.

import { shownAddress } from "../tintype/address.js";
import { loraOf } from "./own.js";
import { addressOf, fromAddress } from "./things.js";

const FIELDS = [
  "checkpoint",
  "from",
  "variant",
  "predictionType",
  "vae",
  "prompt",
  "negativePrompt",
  "seed",
  "steps",
  "guidanceScale",
  "width",
  "height",
  "sampler",
];
/** Given for each LoRA: its scale, a comma, its address. */
const LORA = "lora";

/** The address of a thing as it may be sent, without what a host gives one person alone; nothing for what is on this device. */
function shared(thing) {
  const address = thing ? addressOf(thing) : undefined;
  return address !== undefined && /^https?:/.test(address) ? shownAddress(new URL(address)) : address;
}

/** The hash of a picture that was drawn by a recipe with an entry's checkpoint, a VAE and LoRAs. */
export function toHash(recipe, { entry, vae, loras }) {
  const { id, own, variant, predictionType } = entry;
  const by = own ? { from: shared(entry), variant, predictionType } : { checkpoint: id };
  const said = { ...by, vae: shared(vae), ...recipe };
  const query = new URLSearchParams();
  for (const field of FIELDS) {
    const value = said[field];
    if (value !== undefined && value !== "") query.set(field, value);
  }
  for (const lora of loras) {
    const address = shared(lora);
    if (lora.on && address !== undefined) query.append(LORA, `${lora.scale},${address}`);
  }
  return `#${query}`;
}

/** Whether a link to a picture leaves something out that is on this device. */
export const isShort = ({ entry, vae, loras }) =>
  [entry.own && entry, vae, ...loras.filter(({ on }) => on)].some((thing) => thing && addressOf(thing) === undefined);

function scaled(text) {
  const [, scale, address] = /^(-?[\d.]+),(.+)$/s.exec(text) ?? [];
  return address && Number.isFinite(Number(scale)) ? { scale: Number(scale), address } : null;
}

/** What a hash says of a picture, as strings, and its LoRAs as [{ scale, address }]; null where it says nothing. */
export function fromHash(hash) {
  const query = new URLSearchParams(hash.replace(/^#/, ""));
  const said = FIELDS.filter((field) => query.has(field)).map((field) => [field, query.get(field)]);
  const loras = query.getAll(LORA).map(scaled).filter(Boolean);
  return said.length ? { ...Object.fromEntries(said), loras } : null;
}

/** The one of `entries` that a recipe from an address is for, if it is there. */
export function entryFor({ checkpoint, from, variant, predictionType }, entries) {
  if (!from) return entries.find(({ id, own }) => !own && id === checkpoint);
  const same = (entry) => entry.variant === variant && entry.predictionType === predictionType;
  return entries.find((entry) => entry.own && shared(entry) === from && same(entry));
}

/**
 * What the address names for its checkpoint: the VAE, and LoRAs beside those that no address can name. `loras` and `vae` are what the
 * checkpoint has: what is meant by its address is there with what a link leaves out.
 */
export function layersFor(recipe, { loras, vae }) {
  const made = ({ scale, address }) => {
    const known = loras.find((lora) => shared(lora) === address);
    const thing = known ?? fromAddress(address);
    return thing && { ...(known ?? loraOf(thing)), scale, on: true };
  };
  const unnamed = loras.filter((lora) => addressOf(lora) === undefined);
  const other = recipe.vae ? (fromAddress(recipe.vae) ?? null) : null;
  const isSame = shared(vae) === recipe.vae || (vae && addressOf(vae) === undefined);
  return { loras: [...unnamed, ...recipe.loras.map(made).filter(Boolean)], vae: isSame ? vae : other };
}

/** The thing that the address names for a checkpoint, with what is meant to be chosen for it. */
export function thingFor(recipe) {
  const { from, variant, predictionType } = recipe;
  const thing = fromAddress(from);
  return thing && { ...thing, meant: { variant, predictionType, ...layersFor(recipe, { loras: [], vae: null }) } };
}
