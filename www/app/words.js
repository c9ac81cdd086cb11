// Numbers and names as a person reads them.

const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

/** "42 kB", "18.0 MB", "1.42 GB": of files. */
export function size(bytes) {
  if (bytes < 99_500) return `${Math.ceil(bytes / 1000)} kB`;
  return bytes < 999.5e6 ? `${megabytes(bytes)} MB` : `${(bytes / 1e9).toFixed(bytes < 99.5e9 ? 2 : 0)} GB`;
}

/** "312": memory comes in powers of two, files don't. */
export const mebibytes = (bytes) => Math.round(bytes / 2 ** 20).toString();

/** "5 minutes ago", of a date and time. */
export function ago(time) {
  const minutes = (Date.now() - new Date(time)) / 60_000;
  if (minutes < 1) return "just now";
  const format = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  if (minutes < 60) return format.format(-Math.floor(minutes), "minute");
  if (minutes < 24 * 60) return format.format(-Math.floor(minutes / 60), "hour");
  return format.format(-Math.floor(minutes / 60 / 24), "day");
}

/** "4.2 of 18.0 MB" */
export function downloaded({ loadedBytes, totalBytes }) {
  return `${megabytes(loadedBytes)} of ${megabytes(totalBytes)} MB`;
}

export function duration(ms) {
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 90_000) return `${Math.round(ms / 1000)} s`;
  return `${Math.round(ms / 60_000)} min`;
}

/** "paper 0.8": what lay over a checkpoint when it drew. */
const layers = (loras = []) => loras.filter(({ on, scale }) => on && scale !== 0).map(({ name, scale }) => `${name}\u00a0${scale}`);

/** "Ink · paper 0.8 · seed 42 · 20 steps · …": a picture's parameters in one line. */
export function summary({ name, parameters, ms, loras, vae }) {
  const { seed, steps, guidanceScale, sampler, width, height } = parameters;
  const parts = [
    name,
    ...layers(loras),
    vae && `VAE\u00a0${vae.name}`,
    `seed ${seed}`,
    `${steps} ${steps === 1 ? "step" : "steps"}`,
    `guidance ${guidanceScale}`,
    sampler,
    `${width}\u00a0×\u00a0${height}`,
  ];
  if (ms !== undefined) parts.push(duration(ms));
  return parts.filter(Boolean).join(" · ");
}

export function fileName({ prompt, seed }) {
  const slug = prompt
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, "-")
    .replace(/^-|-$/g, "");
  return `${[...slug].slice(0, 48).join("") || "picture"}-${seed}.png`;
}
