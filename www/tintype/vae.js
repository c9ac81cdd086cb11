// What `vae` takes → what the engine reads: an autoencoder from elsewhere.

/** `{ source, name? }` in the engine's words; undefined where none is asked for. `call` names who asked. */
export async function resolveVae(sources, vae, call, signal) {
  if (vae === undefined) return undefined;
  const find = (index) => sources.find(vae, { where: `${call}: vae`, index, signal });
  const given = ({ source, hints }) => ({ source, name: hints.name });
  // A whole checkpoint's folder, whose own is taken; else the folder of one alone; else a file.
  const whole = await find().catch((error) => ({ error }));
  if (!whole.error && whole.source.path === undefined) return given(whole);
  try {
    return given(await find("config.json"));
  } catch (error) {
    if (whole.error) throw error;
    return given(whole);
  }
}
