// Compiled, never run: each call of the JavaScript API as a site writes it, and misuses that the types must refuse.

import { Checkpoint, Tintype, TintypeError } from "../../../www/tintype/tintype.js";
import type {
  Backend,
  CatalogueEntry,
  ErrorCode,
  GenerateResult,
  Memory,
  Notice,
  Progress,
  Step,
} from "../../../www/tintype/tintype.js";

export async function site(directory: FileSystemDirectoryHandle, list: FileList, file: File): Promise<void> {
  const tintype: Tintype = await Tintype.create({ backend: "auto", memoryBudget: 2 ** 30, threads: 4 });
  await Tintype.create();
  await Tintype.create({ hub: { url: "https://hub.example", token: "hf_…", headers: { "X-Site": "mine" } } });
  const backend: Backend = tintype.backend;
  const words: string[] = [backend.kind, backend.name, backend.reason, ...backend.features];
  console.log(words, backend.software, backend.threads);

  const controller = new AbortController();
  const checkpoint: Checkpoint = await tintype.load("./checkpoints/soft/", {
    signal: controller.signal,
    onProgress: ({ phase, file, loadedBytes, totalBytes, fraction }: Progress) =>
      console.log(phase.length, file?.length, loadedBytes / totalBytes, fraction),
    name: "Soft",
    variant: "fp16",
    predictionType: "v_prediction",
    loras: [{ source: "lora.safetensors", scale: 0.5 }],
    vae: "vae.safetensors",
    embeddings: ["cat.safetensors"],
  });
  await tintype.load(new URL("https://example.com/soft/"));
  await tintype.load(file);
  await tintype.load([file, file]);
  await tintype.load([{ path: "unet/config.json", file }]);
  await tintype.load(list);
  await tintype.load(directory);
  await tintype.load([directory, file]);
  document.addEventListener("drop", ({ dataTransfer }) => dataTransfer && tintype.load(dataTransfer));
  await tintype.load("hf:org/name@v1.0/folder", { loras: [{ source: "hf:org/lora" }] });
  const entries: CatalogueEntry[] = await Tintype.catalogue("checkpoints/checkpoints.json", {
    signal: controller.signal,
  });
  for (const entry of entries) await tintype.load(entry);
  await Tintype.catalogue(new URL("https://example.com/checkpoints.json"), null);

  const { id, name, family, components, defaults, bytes, warnings } = checkpoint;
  console.log(
    id.length,
    name.length,
    family.length,
    components,
    defaults.steps + defaults.width,
    bytes + 1,
    warnings.join(),
  );
  const set = await checkpoint.setLoras([{ source: "lora.safetensors", scale: 1 }, { source: file }], {
    onProgress: ({ fraction }) => console.log(fraction),
  });
  console.log(set.warnings.join());
  await checkpoint.setLoras([]);
  console.log(checkpoint instanceof Checkpoint);

  const result: GenerateResult = await tintype.generate({
    checkpoint,
    prompt: "fox",
    negativePrompt: "blurry",
    width: 128,
    height: 128,
    steps: 20,
    guidanceScale: 3,
    sampler: "DPM++ 2M",
    seed: 7n,
    count: 2,
    signal: controller.signal,
    onStep: ({ step, steps, preview }: Step) => console.log(step / steps, preview?.data.length),
    preview: true,
  });
  await tintype.generate({ checkpoint, seed: "18446744073709551615" });
  const canvas = new OffscreenCanvas(8, 8);
  const over = await tintype.generate({ checkpoint, image: file, mask: canvas, strength: 0.5 });
  await tintype.generate({ checkpoint, image: new URL("https://example.com/x.png"), mask: new ImageData(8, 8) });
  await tintype.generate({ checkpoint, image: "photo.jpg", mask: canvas.transferToImageBitmap() });
  console.log(over.timings.encode, over.images[0].parameters.strength, over.images[0].parameters.masked);
  const seed: string = result.seed;
  for (const { imageData, parameters, toBlob } of result.images) {
    const pixels: ImageData = imageData;
    const png: Blob = await toBlob();
    console.log(pixels.width, png.size, parameters.prompt, parameters.seed === seed, result.timings, result.warnings);
  }

  const loaded: readonly Checkpoint[] = tintype.checkpoints;
  const menu: readonly string[] = tintype.samplers;
  console.log(loaded.length, menu.length, (await tintype.store.list()).length, await tintype.store.persist());
  const [kept] = await tintype.store.list();
  const sizes = await tintype.store.sizes();
  const { quota = 0, persisted } = await tintype.store.quota();
  const { bad } = await tintype.store.verify({ signal: controller.signal });
  console.log(kept.complete && kept.lastUsed, sizes.bytes / quota, sizes.checkpoints[kept.id], persisted, bad[0]?.expected);
  await tintype.store.remove("soft");
  await tintype.store.clear();
  const { memory }: { memory: Memory | null } = tintype;
  tintype.addEventListener("change", () => console.log(memory && memory.weights + memory.working < memory.budget));
  await tintype.generate({ checkpoint, onProgress: ({ fraction }) => console.log(fraction) });
  const other = await Tintype.create({ store: "evict", stallTimeout: 5000, debug: true });
  await other.debug?.loseDevice("step");
  await other.debug?.killWorker();
  const { family: kind, memory: needed, unsupported } = await tintype.inspect("./model.safetensors", { signal: controller.signal });
  console.log(kind ?? unsupported.join(), needed?.peak, needed?.withImage);
  const { peak, timedBy, unet, vae } = await tintype.profile({ checkpoint, parts: ["unet", "vae"], tensors: true, runs: 3 });
  console.log(timedBy, peak.gemm / peak.copy, vae?.nodes.length, unet?.tensors?.output.length);
  for (const { label, op, ms, share } of unet?.nodes ?? []) console.log(label, op, ms, share);
  // @ts-expect-error: no such part
  await tintype.profile({ checkpoint, parts: ["text_encoder"] });
  tintype.addEventListener("notice", ({ detail }) => {
    const notice: Notice = detail;
    console.log(notice.kind, notice.message);
  });
  await checkpoint.unload();
  await tintype.close();

  try {
    await tintype.generate({ checkpoint });
  } catch (error) {
    if (error instanceof TintypeError) {
      const code: ErrorCode = error.code;
      console.log(code, error.message);
    }
  }

  // @ts-expect-error: made by create()
  new Tintype();
  // @ts-expect-error: made by load()
  new Checkpoint();
  // @ts-expect-error: no such backend
  await Tintype.create({ backend: "gpu" });
  // @ts-expect-error: no such policy
  await Tintype.create({ store: "always" });
  // @ts-expect-error: no such moment
  await other.debug?.killWorker("never");
  // @ts-expect-error: a checkpoint is needed
  await tintype.generate({ prompt: "fox" });
  // @ts-expect-error: no picture
  await tintype.generate({ checkpoint, image: new Uint8Array(4) });
  // @ts-expect-error: a misspelt option
  await tintype.generate({ checkpoint, promt: "fox" });
  // @ts-expect-error: an entry's defaults are numbers
  await tintype.load({ url: "soft/", defaults: { steps: "20" } });
  // @ts-expect-error: a number
  await tintype.generate({ checkpoint, steps: "20" });
}
