// Writes ONNX: a graph of nodes and weights, and the protobuf of it. Weights are named by what they are in diffusers; their values
// come when it is encoded, so that a graph also says which weights there are.

/** ONNX's element types. */
const TYPES = { f32: 1, i64: 7 };

/** Attributes are whole numbers, lists of them, or, given as `{ float }`, floats; strings are strings. */
export class OnnxGraph {
  nodes = [];
  constants = [];
  /** Name → `{ shape, transposed }`: of two dimensions, and written columns first. */
  weights = new Map();
  inputs = [];
  outputs = [];
  #next = 0;
  #known = new Map();

  input(name, shape, type = "f32") {
    this.inputs.push({ name, shape, type });
    return name;
  }

  output(name, shape, value) {
    this.nodes.push({ type: "Identity", inputs: [value], outputs: [name], attributes: {} });
    this.outputs.push({ name, shape });
  }

  /** Adds a node; gives the name of its output, or of each where it has `count`. */
  op(type, inputs, attributes = {}, count = 1) {
    const outputs = Array.from({ length: count }, () => `${type}_${this.#next++}`);
    this.nodes.push({ type, inputs, outputs, attributes });
    return count === 1 ? outputs[0] : outputs;
  }

  /** The same values are held once. */
  constant(values, shape, type = "f32") {
    const key = `${type} ${shape} ${values}`;
    if (!this.#known.has(key)) {
      const name = `constant_${this.#known.size}`;
      const data = type === "i64" ? BigInt64Array.from(values, BigInt) : Float32Array.from(values);
      this.constants.push({ name, shape, type, data });
      this.#known.set(key, name);
    }
    return this.#known.get(key);
  }

  integers = (...values) => this.constant(values, [values.length], "i64");

  scalar = (value) => this.constant([value], []);

  weight(name, shape, { transposed = false, as = shape } = {}) {
    this.weights.set(name, { shape, transposed, as });
    return name;
  }
}

const utf8 = new TextEncoder();

/** A message of protobuf, as the parts of its bytes: large ones are never copied before the end. */
class Message {
  parts = [];
  length = 0;

  #push(bytes) {
    this.parts.push(bytes);
    this.length += bytes.length;
    return this;
  }

  #varint(value) {
    const bytes = [];
    for (let rest = BigInt.asUintN(64, BigInt(value)); ; ) {
      const low = Number(rest & 127n);
      rest >>= 7n;
      bytes.push(rest > 0n ? low | 128 : low);
      if (rest === 0n) return this.#push(Uint8Array.from(bytes));
    }
  }

  int = (field, value) => (this.#varint(field << 3), this.#varint(value));

  float = (field, value) => (this.#varint((field << 3) | 5), this.#push(new Uint8Array(Float32Array.of(value).buffer)));

  bytes = (field, bytes) => (this.#varint((field << 3) | 2), this.#varint(bytes.length), this.#push(bytes));

  text = (field, text) => this.bytes(field, utf8.encode(text));

  message(field, fill) {
    const inner = new Message();
    fill(inner);
    this.#varint((field << 3) | 2);
    this.#varint(inner.length);
    this.parts = this.parts.concat(inner.parts);
    this.length += inner.length;
    return this;
  }

  joined() {
    const all = new Uint8Array(this.length);
    let at = 0;
    for (const part of this.parts) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  }
}

function attribute(message, name, value) {
  message.text(1, name);
  if (typeof value === "string") return message.text(4, value).int(20, 3);
  if (Array.isArray(value)) return value.forEach((each) => message.int(8, each)), message.int(20, 7);
  return typeof value === "number" ? message.int(3, value).int(20, 2) : message.float(2, value.float).int(20, 1);
}

/** With its values, or with where they are. */
function tensor(message, name, shape, type, data, place) {
  for (const size of shape) message.int(1, size);
  message.int(2, TYPES[type]).text(8, name);
  if (!place) return message.bytes(9, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  const entries = { location: place, offset: "0", length: String(data.byteLength) };
  for (const [key, value] of Object.entries(entries)) message.message(13, (entry) => entry.text(1, key).text(2, value));
  return message.int(14, 1);
}

/** Bytes of a weight from which it stays outside of the model: a protobuf ends at 2 GiB, and is copied as a whole. */
const OUTSIDE = 1 << 20;

function valueInfo(message, { name, shape, type = "f32" }) {
  const dimensions = (message) => shape.forEach((size) => message.message(1, (dimension) => dimension.int(1, size)));
  const tensorType = (message) => message.int(1, TYPES[type]).message(2, dimensions);
  message.text(1, name).message(2, (of) => of.message(1, tensorType));
}

function transpose(values, [rows, columns]) {
  const out = new Float32Array(values.length);
  for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++) out[column * rows + row] = values[row * columns + column];
  return out;
}

/**
 * A model as `{ model, external }`: its bytes, and the weights that lie beside it, as onnxruntime takes them. `values(name)` are a
 * weight's, as diffusers has them.
 */
export function encodeOnnx(graph, values) {
  const model = new Message();
  const external = [];
  model.int(1, 8).text(2, "tintype bench");
  model.message(7, (message) => {
    for (const { type, inputs, outputs, attributes } of graph.nodes) {
      message.message(1, (node) => {
        inputs.forEach((name) => node.text(1, name));
        outputs.forEach((name) => node.text(2, name));
        node.text(3, `/${outputs[0]}`).text(4, type);
        for (const [name, value] of Object.entries(attributes)) node.message(5, (message) => attribute(message, name, value));
      });
    }
    message.text(2, "graph");
    for (const { name, shape, type, data } of graph.constants) message.message(5, (to) => tensor(to, name, shape, type, data));
    for (const [name, { shape, transposed, as }] of graph.weights) {
      const data = transposed ? transpose(values(name), shape) : values(name);
      const place = data.byteLength >= OUTSIDE ? name : null;
      if (place) external.push({ path: place, data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) });
      message.message(5, (to) => tensor(to, name, transposed ? [...shape].reverse() : as, "f32", data, place));
    }
    graph.inputs.forEach((input) => message.message(11, (to) => valueInfo(to, input)));
    graph.outputs.forEach((output) => message.message(12, (to) => valueInfo(to, output)));
  });
  model.message(8, (opset) => opset.text(1, "").int(2, 17));
  return { model: model.joined(), external };
}
