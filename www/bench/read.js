// A checkpoint of diffusers' folders as another engine is given it: the graphs of its models, and the weights that lie in its files.

import { decoderGraph, textGraph } from "./parts.js";
import { unetGraph } from "./unet.js";

/** The value of a half, by its bits. */
export function half(bits) {
  const [exponent, mantissa] = [(bits >> 10) & 31, bits & 1023];
  const size = exponent === 0 ? mantissa * 2 ** -24 : exponent === 31 ? (mantissa ? NaN : Infinity) : (1024 + mantissa) * 2 ** (exponent - 25);
  return bits >> 15 ? -size : size;
}

const AS_FLOATS = {
  F32: (bytes) => new Float32Array(bytes),
  F16: (bytes) => Float32Array.from(new Uint16Array(bytes), half),
};

/** The weights of a safetensors file, by name. */
class FileWeights {
  #header;
  #file;
  #start;

  constructor(file) {
    this.#file = file;
    const length = Number(new DataView(file).getBigUint64(0, true));
    this.#start = 8 + length;
    const { __metadata__, ...header } = JSON.parse(new TextDecoder().decode(new Uint8Array(file, 8, length)));
    this.#header = header;
  }

  floats = (name) => {
    // transformers 5 leaves the prefix out.
    const tensor = this.#header[name] ?? this.#header[name.replace(/^text_model\./, "")];
    if (!tensor) throw new Error(`the checkpoint has no tensor ${name}`);
    const floats = AS_FLOATS[tensor.dtype];
    if (!floats) throw new Error(`${name}: expected a tensor of ${Object.keys(AS_FLOATS).join(" or ")}, found ${tensor.dtype}`);
    return floats(this.#file.slice(...tensor.data_offsets.map((at) => this.#start + at)));
  };

  get count() {
    return Object.values(this.#header).reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  }
}

/** The models of the checkpoint at `url`, as `makeCheckpoint` gives them: `{ weights, graph, vae, text }`. */
export async function readCheckpoint({ url }) {
  const get = async (path) => {
    const response = await fetch(new URL(path, url));
    if (!response.ok) throw new Error(`${response.url}: the server answered ${response.status}`);
    return response;
  };
  const configs = ["unet", "vae", "text_encoder"].map(async (folder) => (await get(`${folder}/config.json`)).json());
  const [ofUnet, ofVae, ofText] = await Promise.all(configs);
  const [side, tokens] = [ofUnet.sample_size, ofText.max_position_embeddings];
  const size = { height: side, width: side };
  const part = async (graph, file) => ({ graph, weights: new FileWeights(await (await get(file)).arrayBuffer()) });
  const [unet, vae, text] = await Promise.all([
    part(unetGraph(ofUnet, { ...size, tokens }), "unet/diffusion_pytorch_model.safetensors"),
    part(decoderGraph(ofVae, size), "vae/diffusion_pytorch_model.safetensors"),
    part(textGraph(ofText), "text_encoder/model.safetensors"),
  ]);
  return { ...unet, vae, text };
}
