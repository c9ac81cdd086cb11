/** Tintype: image-generation checkpoints in a web page. */

/** The stable codes of {@link TintypeError}. */
export type ErrorCode =
  | "invalid-argument"
  | "network"
  | "not-found"
  | "corrupt"
  | "unsupported"
  | "out-of-memory"
  | "quota"
  | "device-lost"
  | "cancelled"
  | "internal";

/**
 * What an operation rejects with. The message names the file, the tensor or the option, what was expected and what was
 * found.
 */
export class TintypeError extends Error {
  constructor(code: ErrorCode, message: string, options?: ErrorOptions);
  readonly name: "TintypeError";
  readonly code: ErrorCode;
}

export interface CreateOptions {
  /** `auto` takes WebGPU where the adapter is a real GPU, else the CPU. `webgpu` takes any adapter, or rejects. */
  backend?: "auto" | "webgpu" | "cpu" | null;
  /**
   * Bytes that checkpoints and pictures in the making may take together; half of what the device has, if nothing is said (of
   * 4 GiB where the browser does not tell; at most 3 GiB on the CPU). Checkpoints that were used longest ago give way to
   * others, and come back when they are drawn with.
   */
  memoryBudget?: number | null;
  /**
   * By how many threads the CPU backend may compute at most, from 1 to 64; if nothing is said, by as many as the device has fast cores,
   * as far as that is told, and at most 8. Pages that are not isolated from other origins (`crossOriginIsolated`) have one. Pictures are
   * the same, byte by byte.
   */
  threads?: number | null;
  /**
   * What is fetched is kept on this device. `keep`: as long as there is room. `evict`: what was used longest ago makes room.
   * `off`: nothing is kept.
   */
  store?: "keep" | "evict" | "off" | null;
  /** The Hugging Face hub, or a mirror of it. */
  hub?: Hub | null;
  /** Milliseconds without a byte after which a download is begun anew where it stopped; 20 000, if nothing is said. */
  stallTimeout?: number | null;
  /**
   * How products are run best on this adapter. `auto`: it is found out with the first pictures of a kind, some seconds in all, and kept
   * in the browser for this adapter, browser and version. `off`: it is not. What `tuning()` gave: that, and nothing is kept.
   */
  tuning?: "auto" | "off" | Tuning | null;
  /**
   * What a GPU computes in. `f32`, if nothing is said: pictures are those of diffusers. `f16`: where the adapter has `shader-f16`,
   * UNets, text encoders and tiny autoencoders keep what they compute in 16-bit floats, which takes half the memory and half the
   * traffic, and their products run in them, which is faster on most; pictures differ a little. Other autoencoders stay in `f32`,
   * but for those whose config says `"force_upcast": false`. Where the adapter lacks it, it is `f32`.
   */
  arithmetic?: "f32" | "f16" | null;
  /** Whether there is `debug`, for tests. */
  debug?: boolean | null;
}

export interface Backend {
  readonly kind: "webgpu" | "cpu";
  /** The adapter's name, or the CPU build's. */
  readonly name: string;
  /** Whether the adapter is a software one. */
  readonly software: boolean;
  /**
   * Of the CPU backend the instructions that it uses: `simd128`, and `relaxed-simd` where the browser has it. Of WebGPU which of
   * `shader-f16`, `subgroups` and `timestamp-query` the adapter offers; the backend needs none of them, and `profile` alone uses the last.
   */
  readonly features: readonly string[];
  /** How many compute; 1 on a GPU. */
  readonly threads: number;
  /** Why this one; and why it computes on one thread, where several could not be had. */
  readonly reason: string;
}

/** Where `hf:` sources are, and what is sent there. Nothing of it is kept on the device, and no message shows a token or a header. */
export interface Hub {
  /** Its address, relative to the page; `https://huggingface.co`, if nothing is said. What is below it is the hub's. */
  url?: string | URL | null;
  /** Sent with requests to the hub alone, as `Authorization: Bearer …`; a browser leaves it out where the hub redirects elsewhere. */
  token?: string | null;
  /** Further headers of requests to the hub. Where it redirects, a browser sends these on, and that host has to allow them too. */
  headers?: Readonly<Record<string, string>> | null;
}

/** A file and its place inside a checkpoint's folder, such as `unet/config.json`. */
export interface PathFile {
  path: string;
  file: Blob;
}

/** An entry of a `checkpoints.json`. */
export interface CatalogueEntry {
  id?: string;
  name?: string;
  /** The `id` of an earlier entry that this is another way of drawing with, such as one in fewer steps: a page may show them as one. */
  of?: string;
  /** What tells this way from the others, in a word or two ("4 steps"); the same words mean the same way of other entries. */
  way?: string;
  /** A folder's or a single file's address, relative to the `checkpoints.json`, or a repository's name, such as `hf:org/name`. */
  url: string;
  description?: string;
  style?: string;
  license?: string;
  credits?: string;
  /** A sample picture's address. */
  image?: string;
  /** Prompts to try. */
  prompts?: string[];
  /** `load` refuses those that no picture could be drawn with. */
  defaults?: Partial<Defaults>;
  /** LoRAs that lie over it unless `load` is told of others, `[]` for none; addresses are relative to the `checkpoints.json`, whatever `url` is. */
  loras?: Lora[];
  /** Each file's size in bytes and its hash, by path: what arrives is checked against it. */
  files?: Record<string, { size?: number; sha256?: string }>;
}

/**
 * Where a checkpoint is.
 *
 * An address (http or https, relative to the page) of a diffusers folder, which has a `model_index.json`, or of a single file. One
 * that ends neither in "/" nor in a known extension is asked which of both it is.
 *
 * `hf:org/name@revision/folder` on the Hugging Face hub, or the address of such a page of it: a folder with a `model_index.json`, or one
 * with only one `.safetensors` file; `hf:org/name@revision/file.safetensors` is a single file. The revision is a branch, a tag or a
 * commit; a slash in it is written `%2F`, but in `refs/pr/1`; left out, it is `main`.
 *
 * What a person picked or dropped: a folder or files, with or without a folder around them. What has a `model_index.json` in it is
 * taken; or else the only `.safetensors` file. A `DataTransfer` has to be given in the event of the drop.
 *
 * An entry of a `checkpoints.json`.
 */
export type Source = string | URL | Picked | CatalogueEntry;

/** Files and folders as browsers give them. */
export type Picked =
  | File
  | PathFile
  | FileList
  | FileSystemDirectoryHandle
  | FileSystemFileHandle
  | FileSystemEntry
  | DataTransfer
  | readonly (File | PathFile | FileSystemDirectoryHandle | FileSystemFileHandle | FileSystemEntry)[];

export interface Progress {
  /** What is being done: configurations and headers are opened, then the weights are read. */
  phase: "open" | "weights" | (string & {});
  /** The file that is read, by its path in the checkpoint. */
  file?: string;
  /** Bytes of the weights so far, and in all; 0 of 0 while they are not known. */
  loadedBytes: number;
  totalBytes: number;
  /** 0 to 1, over all of the load. */
  fraction: number;
}

/**
 * Where a LoRA is: the address of a file (http or https, relative to the page), a file on the hub (`hf:org/name/file.safetensors`, or a
 * repository or folder with only one), or what a person picked or dropped.
 */
export type LoraSource = string | URL | Picked;

/**
 * A LoRA, LoCon, DoRA, LoHa or LoKr in a `safetensors` file, with kohya's names or with those of diffusers and PEFT. One that is for
 * another family of checkpoints is refused; keys of it that match nothing are told in the warnings.
 */
export interface Lora {
  source: LoraSource;
  /** How much of it: 1, if nothing is said, is as it was trained; below 0 the opposite. */
  scale?: number | null;
}

/**
 * Where an autoencoder is: anything that `load` takes. A folder may be diffusers' of an `AutoencoderKL` or `AutoencoderTiny`, or a whole
 * checkpoint's, whose own is taken; a file a whole checkpoint, or an autoencoder alone in the names of diffusers or of the original
 * code; TAESD's decoder, alone or with its encoder as two picked files. One for latents of another kind is refused.
 */
export type VaeSource = Source;

export interface LoadOptions {
  signal?: AbortSignal | null;
  onProgress?: ((progress: Progress) => void) | null;
  /** The name to show, in place of the checkpoint's own. */
  name?: string | null;
  /**
   * The variant of the weights' files, such as `fp16`, where a folder has it; for that of `vae` too. Where there are only those of
   * half precision, they are taken, and a warning says so.
   */
  variant?: string | null;
  /** What the UNet predicts, where the scheduler's configuration is wrong or missing. */
  predictionType?: "epsilon" | "v_prediction" | "sample" | (string & {}) | null;
  /** LoRAs to lie over it, in place of those that an entry has. */
  loras?: readonly Lora[] | null;
  /** An autoencoder in place of the checkpoint's own, of which nothing is read then. */
  vae?: VaeSource | null;
  /** Not implemented: a list that isn't empty rejects with `unsupported`. */
  embeddings?: readonly Source[] | null;
}

export interface InspectOptions {
  signal?: AbortSignal | null;
  /** As `load` takes it. */
  variant?: string | null;
  /** As `load` takes it. */
  predictionType?: LoadOptions["predictionType"];
  /** As `load` takes it. */
  vae?: VaeSource | null;
}

/** What a checkpoint is and would need, as `inspect` says it; or what a person brought in its place. */
export interface Inspection {
  /** A LoRA goes over a checkpoint, a VAE into one. Null, if it is none of these. */
  kind: "checkpoint" | "lora" | "vae" | null;
  layout: "diffusers" | "single-file";
  /** Empty, if it could not be opened. */
  name: string;
  /** Such as `SD 1.x`; null, if it is none that is known. Of a LoRA, what it is for, as far as its shapes tell. */
  family: string | null;
  components: { name: string; class: string; dtypes: string[]; bytes: number }[];
  /** Of its weights' files. */
  bytes: number;
  /** Such as `epsilon`, as far as the checkpoint says. */
  predictionType: string | null;
  defaults: (Defaults & { factor: number }) | null;
  /**
   * Bytes on this device: of its weights, of a picture with the defaults besides, and of both; of both where the picture is drawn
   * over an image, or null if its autoencoder can't encode; and what all checkpoints may take together.
   */
  memory: { weights: number; working: number; peak: number; withImage: number | null; budget: number | null } | null;
  /** Why it can't be used here as what it is, by name: what is not implemented, and what is too large. Empty, if it can. */
  unsupported: string[];
  /** What a person should know and that is no error. */
  warnings: string[];
}

/** What `generate` takes for everything left out. */
export interface Defaults {
  width: number;
  height: number;
  steps: number;
  guidanceScale: number;
  sampler: string;
}

/** A part of a checkpoint: a text encoder, the UNet or the VAE. */
export interface Component {
  /** Such as `unet`. */
  name: string;
  /** Such as `UNet2DConditionModel`. */
  class: string;
  /** The types of its tensors, such as `f16`. */
  dtypes: string[];
  /** Of its files. */
  bytes: number;
  /** A hash over its tensors, whatever files they are in: components of one id are held once, whatever checkpoints they are of. */
  id: string;
}

/**
 * A checkpoint, as `load` gives it. It leaves memory when it is unloaded, or used longest ago and others need the room; drawn
 * with, it comes back by itself, from the store or else from where it was loaded.
 */
export class Checkpoint {
  private constructor();
  readonly id: string;
  readonly name: string;
  /** What it is by its configurations, such as `SD 1.x`, `SDXL` or `LCM`. */
  readonly family: string;
  readonly components: readonly Component[];
  /**
   * With the number that width and height must be multiples of. While a LoRA lies over it that was distilled to few steps (LCM, Lightning,
   * Hyper-SD, TCD, DMD2, Turbo, known by its name), steps, guidance scale and sampler are those that such a LoRA draws with, but for what a catalogue's entry says.
   */
  readonly defaults: Readonly<Defaults & { factor: number }>;
  /** The weights' bytes in memory, those that it shares with others included; LoRAs come on top, and with the first image an encoder. */
  readonly bytes: number;
  /** What a person should know and that is no error. */
  readonly warnings: readonly string[];
  /**
   * Puts these LoRAs over the checkpoint, in place of those that lie over it; an empty list takes them all off, and then it draws to
   * the bit what it drew before. Pictures asked for before are drawn before. The checkpoint is not read again, LoRAs are. If it
   * rejects, the former ones stay. Resolves with what is to be known of them, and with the `defaults` from now on.
   */
  setLoras(
    loras: readonly Lora[],
    options?: { onProgress?: ((progress: Progress) => void) | null } | null,
  ): Promise<{ readonly warnings: readonly string[]; readonly defaults: Checkpoint["defaults"] }>;
  /**
   * Frees its memory for the next one: GPU buffers are destroyed; WebAssembly's memory never shrinks, but what was freed is used
   * again.
   */
  unload(): Promise<void>;
}

export interface Step {
  /** The step that is done, from 1. */
  step: number;
  steps: number;
  /** A small picture of how far it is, where `preview` was asked for; not with each step where making it takes long. */
  preview?: ImageData;
}

/**
 * A picture: its pixels, a file, or an address (http, https, blob: or data:, relative to the page). Colour profiles are not applied.
 * Every pixel has to be opaque; a side is 8192 pixels at most.
 */
export type Picture = ImageData | ImageBitmap | Blob | HTMLCanvasElement | OffscreenCanvas | string | URL;

export interface GenerateOptions {
  checkpoint: Checkpoint;
  prompt?: string | null;
  negativePrompt?: string | null;
  /**
   * Pixels; a multiple of the VAE's factor. Left out, that of `image`, rounded down, or in proportion to `height`; without an image
   * the checkpoint's own.
   */
  width?: number | null;
  height?: number | null;
  steps?: number | null;
  guidanceScale?: number | null;
  /** A class name of diffusers or a menu name of AUTOMATIC1111. */
  sampler?: string | null;
  /** 64 bits. The noise is that of `torch.Generator("cpu").manual_seed(seed)`. Left out: a random one. */
  seed?: number | bigint | string | null;
  /** How many pictures; picture *i* is drawn with seed + *i*. */
  count?: number | null;
  /** What is drawn over. One of another size than the picture is stretched to it. */
  image?: Picture | null;
  /**
   * From 0 to 1: how much of the image is drawn anew. So much of the steps runs, the last ones. 0.8, if nothing is said; 1 with a
   * mask, and there nothing of the image is left where it is repainted.
   */
  strength?: number | null;
  /** White where the image is repainted, black where it stays. Checkpoints that were made for inpainting need one. */
  mask?: Picture | null;
  signal?: AbortSignal | null;
  /** Where the checkpoint has to be read again, or its encoder for an image: how far that is. */
  onProgress?: ((progress: Progress) => void) | null;
  onStep?: ((step: Step) => void) | null;
  preview?: boolean | null;
}

/** What a picture was made with, but for the LoRAs that lay over its checkpoint: those its PNG names beside all of this (`Loras`). */
export interface Parameters {
  prompt: string;
  negativePrompt: string;
  steps: number;
  sampler: string;
  guidanceScale: number;
  /** Decimal digits: 64 bits do not fit a number. */
  seed: string;
  width: number;
  height: number;
  /** The checkpoint's name. */
  checkpoint: string;
  /** Where it was drawn over an image. */
  strength?: number;
  /** Where there was a mask: the part of the image that it left to be drawn over, from 0 to 1. */
  masked?: number;
  /** The autoencoder's file or name, if it is from elsewhere. */
  vae?: string;
  [more: string]: unknown;
}

export interface GeneratedImage {
  readonly imageData: ImageData;
  readonly parameters: Parameters;
  /** A PNG whose text chunk holds the parameters in AUTOMATIC1111's form. */
  toBlob(): Promise<Blob>;
}

export interface GenerateResult {
  readonly images: readonly GeneratedImage[];
  /** The first picture's seed, in decimal digits. */
  readonly seed: string;
  /**
   * Milliseconds by what was done, over all pictures; `encode` is of an image; `total` is that of all but `start`. `start` is from when the worker took up
   * the call until the device began: for its turn, a checkpoint that comes back, races, room for a new size.
   */
  readonly timings: Readonly<{ start: number; encode: number; prompt: number; steps: number; decode: number; total: number }>;
  /** What a person should know and that is no error, such as a prompt that was cut short. */
  readonly warnings: readonly string[];
}

export interface ProfileOptions {
  checkpoint: Checkpoint;
  prompt?: string | null;
  /** Pixels, as `generate` takes them. */
  width?: number | null;
  height?: number | null;
  /** Above 1 a step is two branches, where `generate` would draw two. */
  guidanceScale?: number | null;
  /** What is timed; `unet` and `vae`, if nothing is said. `text` is the first text encoder. */
  parts?: readonly ("unet" | "vae" | "text")[] | null;
  /** Whether nodes are timed each for itself; they are, if nothing is said. */
  nodes?: boolean | null;
  /** Whether each part's `tensors` are given, to compare with another engine. */
  tensors?: boolean | null;
  /** Whether a step of the UNet ends when its output was read back, as another engine's does, and not when it is computed. */
  readOutput?: boolean | null;
  /** How often each part is played for its `ms`, after once that does not count; as often as a second allows, if nothing is said. */
  runs?: number | null;
  signal?: AbortSignal | null;
  /** Where the checkpoint has to be read again: how far that is. */
  onProgress?: ((progress: Progress) => void) | null;
}

/** A node of a plan: an operation with what was joined to it. */
export interface ProfiledNode {
  index: number;
  /** The module of diffusers that it comes from. */
  label: string;
  op: string;
  /** Once a prompt, once a schedule, or each step. */
  rate: "prompt" | "schedule" | "step";
  /** Of what it makes; images are `[batch, height, width, channels]`. */
  shape: number[];
  /** Milliseconds on average; 0 for an input. */
  ms: number;
  /** Multiplications and additions. */
  flop: number;
  /** The least that it has to move: operands, weights as they are kept, and result, each once. */
  bytes: number;
  /** The time that it would take at the peak that bounds it, over the time that it took: 1 is as fast as can be. */
  share: number;
}

/** What runs each step of a plan, or its decoding. */
export interface ProfiledPlan {
  /** Milliseconds from the first submit until all is done (with `readOutput`, and read back): the median of `runs`. */
  ms: number;
  runs: number[];
  /** On WebGPU: in one run; 0 on the CPU. */
  dispatches: number;
  submits: number;
  flop: number;
  bytes: number;
  /** The time that its nodes would take at the device's peaks, over `ms`. */
  share: number;
  /** Every node of the plan, those that run once a prompt too. */
  nodes: ProfiledNode[];
  /**
   * What it read and wrote, in torch's order: latents and pictures `[channels, height, width]`, texts `[tokens, channels]`. Of a UNet
   * of the branch with the prompt: `timestep`, `sample`, `encoderHiddenStates`; of a decoder `latents`; of a text encoder `inputIds`.
   */
  tensors?: {
    timestep?: number;
    sample?: Float32Array;
    encoderHiddenStates?: Float32Array;
    latents?: Float32Array;
    inputIds?: Float32Array;
    output: Float32Array;
  };
}

/** Where the time goes. */
export interface Profile {
  backend: Backend;
  /** How nodes are timed: by the GPU's own `timestamps`, or each alone by the `clock`, where it has none or this is the CPU. */
  timedBy: "timestamps" | "clock";
  /**
   * What the device does at most: operations a second in a square product, `gemmHalf` the same where `arithmetic` is `f16` and the
   * adapter has it (else null), and bytes a second in a copy (read and written).
   */
  peak: { gemm: number; gemmHalf: number | null; copy: number };
  /** A step. Null, if it was not asked for. */
  unet: ProfiledPlan | null;
  /** The decoder. */
  vae: ProfiledPlan | null;
  /** The first text encoder, over one prompt. */
  text: ProfiledPlan | null;
}

export interface Notice {
  /** What it is about. */
  kind: "backend" | "device" | "worker" | "quota" | "store" | "tuning" | (string & {});
  message: string;
}

/** A checkpoint, a LoRA or an autoencoder that is kept on this device. */
export interface Kept {
  id: string;
  name: string;
  /** Its address without a query that may be secret, or the name of its repository, such as `hf:org/name`. */
  url: string;
  /** Of its weights in memory; of a LoRA, or an autoencoder that is kept by itself, of the weights in its files. */
  bytes: number;
  files: number;
  /** A date and time, as ISO 8601 has it. */
  lastUsed: string;
  /** Whether all of its files are here. */
  complete: boolean;
}

/** What is kept on this device: files by their content, so what checkpoints share is kept once. It is the whole site's. */
export interface Store {
  /** The one used last comes first. */
  list(): Promise<Kept[]>;
  /** Bytes: in all, of unfinished downloads, and of each checkpoint by its id; what two share counts for both. */
  sizes(): Promise<{ bytes: number; blobs: number; partialBytes: number; checkpoints: Record<string, number> }>;
  /** Removes a checkpoint by its id or address, but for what others need. */
  remove(idOrUrl: string): Promise<void>;
  clear(): Promise<void>;
  /** Bytes that the site uses and may use, by the browser's estimate; and whether the browser will not clear them by itself. */
  quota(): Promise<{ usage?: number; quota?: number; persisted: boolean }>;
  /** Asks the browser not to clear it by itself. */
  persist(): Promise<boolean>;
  /** Hashes every file, and removes those that are not what they were. */
  verify(options?: {
    signal?: AbortSignal | null;
    onProgress?: ((progress: unknown) => void) | null;
  }): Promise<{ files: number; bytes: number; bad: { url: string; expected: string; found: string }[] }>;
}

/** What is held, in bytes. */
export interface Memory {
  /** What weights and working memory may be together. */
  readonly budget: number;
  /** Weights, what checkpoints share counted once, and what LoRAs lay over them. */
  readonly weights: number;
  /** What drawing takes besides. */
  readonly working: number;
  /** All buffers on the GPU. */
  readonly gpu: number;
  /** WebAssembly's memory, which never shrinks. */
  readonly wasm: number;
}

/** What was found out about an adapter; texts of this version of the engine. What another version does not know is of no effect. */
export interface Tuning {
  /** The fastest way to run each product that was raced. */
  choices: Record<string, string>;
  /** Ways that did not compile or computed something else, and why. They are not used. */
  leftOut?: Record<string, string>;
  /** The way over whose race the GPU was lost: nothing more is found out on this adapter, by this version and browser. */
  lost?: string;
}

/** When a test of recovery does its harm: at the next load, text, first step or decoding, or at once. */
export type Moment = "load" | "text" | "step" | "decode" | "idle";

/** For tests. */
export interface Debug {
  /** Destroys the GPU device. */
  loseDevice(moment?: Moment): Promise<void>;
  /** Ends the worker that computes. */
  killWorker(moment?: Moment): Promise<void>;
  /**
   * What the worker has made so far: slots for plans, compiled pipelines, bytes of weights read to the device. A change between
   * checkpoints in memory adds nothing. `unraced`: products whose fastest way is yet to be found out.
   */
  counts(): Promise<{ plans: number; pipelines: number; uploaded: number; unraced: number }>;
  /** Times each operation of a model that is not there, at the sizes that its config and latents of this size give it. */
  sweep(request: { part: "unet" | "vae" | "text"; config: string; height: number; width: number; tokens: number }): Promise<{
    peak: Profile["peak"];
    nodes: { op: string; inputs: number[][]; shape: number[]; count: number; ms: number; flop: number; bytes: number }[];
  }>;
}

interface TintypeEventMap {
  /** What happened without an error: `auto` found no GPU, the store is full, a lost device was set up anew. */
  notice: CustomEvent<Notice>;
  /** `checkpoints`, `memory` or the defaults of a checkpoint changed. */
  change: CustomEvent<null>;
}

export class Tintype extends EventTarget {
  private constructor();
  /** Starts a worker with an engine in it. */
  static create(options?: CreateOptions): Promise<Tintype>;
  /**
   * The entries of a `checkpoints.json`, ready for `load`: their addresses made absolute. Its own may be a blob: or data: one;
   * then its entries' are to be whole.
   */
  static catalogue(url: string | URL, options?: { signal?: AbortSignal | null } | null): Promise<CatalogueEntry[]>;
  /** What the work runs on, and why. Another one, when a device was lost twice in a row. */
  readonly backend: Backend;
  /** The checkpoints in memory. */
  readonly checkpoints: readonly Checkpoint[];
  /** The names that `sampler` takes, for a menu. */
  readonly samplers: readonly string[];
  readonly store: Store;
  /** What is held; null before anything was. */
  readonly memory: Memory | null;
  /** Where `create` was asked for it. */
  readonly debug?: Debug;
  load(source: Source, options?: LoadOptions): Promise<Checkpoint>;
  /**
   * Draws pictures. Calls queue up; an aborted one rejects with `cancelled`. One whose checkpoint has to be read again keeps its
   * place, and those after it wait for it too. Where a device or a worker is lost over it, it is
   * begun once more, and its steps are reported anew.
   */
  generate(options: GenerateOptions): Promise<GenerateResult>;
  /**
   * Says what a checkpoint is and would need on this device, from its configurations and headers alone. What can't be loaded
   * is in `unsupported`, not rejected with; files that are damaged or missing reject, and so does a `vae` that is none by its names.
   */
  inspect(source: Source, options?: InspectOptions): Promise<Inspection>;
  /**
   * Times a step of the UNet and the decoder as `generate` would play them, each of their nodes, and what the device can do at
   * most. It takes its turn like a picture, and some seconds.
   */
  profile(options: ProfileOptions): Promise<Profile>;
  /** What was found out about the adapter so far. Null on the CPU. */
  tuning(): Promise<Tuning | null>;
  /** Ends the worker. What is under way rejects with `cancelled`, what is asked later with `invalid-argument`. */
  close(): Promise<void>;
  addEventListener<K extends keyof TintypeEventMap>(
    type: K,
    listener: (this: Tintype, event: TintypeEventMap[K]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<K extends keyof TintypeEventMap>(
    type: K,
    listener: (this: Tintype, event: TintypeEventMap[K]) => void,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | EventListenerOptions,
  ): void;
}
