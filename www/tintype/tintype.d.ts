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
  /** Bytes that checkpoints and pictures in the making may take together. */
  memoryBudget?: number | null;
  /** Threads of the CPU backend. More than one is not implemented. */
  threads?: number | null;
}

export interface Backend {
  readonly kind: "webgpu" | "cpu";
  /** The adapter's name, or the CPU build's. */
  readonly name: string;
  /** Whether the adapter is a software one. */
  readonly software: boolean;
  /**
   * Of the CPU backend the instructions that it uses, such as `simd128`. Of WebGPU which of `shader-f16`, `subgroups` and
   * `timestamp-query` the adapter offers; the backend needs none of them and uses none.
   */
  readonly features: readonly string[];
  readonly threads: number;
  /** Why this one. */
  readonly reason: string;
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
  /** A folder's address; relative to the `checkpoints.json`. */
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
  /** Each file's size in bytes and its hash, by path: what arrives is checked against it. */
  files?: Record<string, { size?: number; sha256?: string }>;
}

/**
 * Where a checkpoint is: the address of a diffusers folder (http or https, relative to the page; a single file and
 * `hf:org/name@revision` are not implemented), what a person picked or dropped, or an entry of a `checkpoints.json`.
 */
export type Source =
  | string
  | URL
  | File
  | FileList
  | readonly (File | PathFile)[]
  | FileSystemDirectoryHandle
  | FileSystemFileHandle
  | CatalogueEntry;

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

export interface Lora {
  source: Source;
  scale?: number;
}

export interface LoadOptions {
  signal?: AbortSignal | null;
  onProgress?: ((progress: Progress) => void) | null;
  /** The name to show, in place of the checkpoint's own. */
  name?: string | null;
  /** The variant of the weights' files, such as `fp16`. */
  variant?: string | null;
  /** What the UNet predicts, where the scheduler's configuration is wrong or missing. */
  predictionType?: "epsilon" | "v_prediction" | "sample" | (string & {}) | null;
  /** Not implemented: a list that isn't empty rejects with `unsupported`. */
  loras?: readonly Lora[] | null;
  /** Not implemented: rejects with `unsupported`. */
  vae?: Source | null;
  /** Not implemented: a list that isn't empty rejects with `unsupported`. */
  embeddings?: readonly Source[] | null;
}

/** What `generate` takes for everything left out. */
export interface Defaults {
  width: number;
  height: number;
  steps: number;
  guidanceScale: number;
  sampler: string;
}

/** A part of a checkpoint: the text encoder, the UNet or the VAE. */
export interface Component {
  /** Such as `unet`. */
  name: string;
  /** Such as `UNet2DConditionModel`. */
  class: string;
  /** The types of its tensors, such as `f16`. */
  dtypes: string[];
  bytes: number;
}

/** A checkpoint in memory, as `load` gives it. */
export class Checkpoint {
  private constructor();
  readonly id: string;
  readonly name: string;
  /** The architecture, such as `SD 1.x`. */
  readonly family: string;
  readonly components: readonly Component[];
  /** With the number that width and height must be multiples of. */
  readonly defaults: Readonly<Defaults & { factor: number }>;
  /** The weights' bytes in memory. */
  readonly bytes: number;
  /** What a person should know and that is no error. */
  readonly warnings: readonly string[];
  /** Puts these LoRAs over the checkpoint; an empty list takes them all off. Not implemented for others. */
  setLoras(loras: readonly Lora[]): Promise<void>;
  /** Lets go of its memory. The handle is of no use afterwards. */
  unload(): Promise<void>;
}

export interface Step {
  /** The step that is done, from 1. */
  step: number;
  steps: number;
  /** A small picture of how far it is, where `preview` was asked for; not with each step where making it takes long. */
  preview?: ImageData;
}

export interface GenerateOptions {
  checkpoint: Checkpoint;
  prompt?: string | null;
  negativePrompt?: string | null;
  /** Pixels; a multiple of the VAE's factor. */
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
  /** Not implemented: rejects with `unsupported`. */
  image?: ImageData | ImageBitmap | Blob | HTMLCanvasElement | OffscreenCanvas | string | null;
  /** Not implemented: rejects with `unsupported`. */
  strength?: number | null;
  /** Not implemented: rejects with `unsupported`. */
  mask?: ImageData | ImageBitmap | Blob | HTMLCanvasElement | OffscreenCanvas | string | null;
  signal?: AbortSignal | null;
  onStep?: ((step: Step) => void) | null;
  preview?: boolean | null;
}

/** What a picture was made with. */
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
  /** Milliseconds by what was done, over all pictures. */
  readonly timings: Readonly<{ prompt: number; steps: number; decode: number; total: number }>;
  /** What a person should know and that is no error, such as a prompt that was cut short. */
  readonly warnings: readonly string[];
}

export interface Notice {
  kind: string;
  message: string;
}

/** What is kept on this device. Keeping is not implemented: the list is empty, the rest rejects with `unsupported`. */
export interface Store {
  list(): Promise<unknown[]>;
  remove(id: string): Promise<void>;
  persist(): Promise<boolean>;
}

interface TintypeEventMap {
  /** What changed without an error: the backend that `auto` took is not a GPU, for one. */
  notice: CustomEvent<Notice>;
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
  /** What the work runs on, and why. */
  readonly backend: Backend;
  /** The checkpoints in memory. */
  readonly checkpoints: readonly Checkpoint[];
  /** The names that `sampler` takes, for a menu. */
  readonly samplers: readonly string[];
  readonly store: Store;
  load(source: Source, options?: LoadOptions): Promise<Checkpoint>;
  /** Draws pictures. Calls queue up; an aborted one rejects with `cancelled`. */
  generate(options: GenerateOptions): Promise<GenerateResult>;
  /** Not implemented: rejects with `unsupported`. */
  inspect(source: Source): Promise<unknown>;
  /** Not implemented: rejects with `unsupported`. */
  profile(options: { checkpoint: Checkpoint }): Promise<unknown>;
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
