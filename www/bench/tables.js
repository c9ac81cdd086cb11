// A report as tables and bars, without a document: the page shows them, and so does whoever runs the page from a terminal.

const rounded = (value, digits) => value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: 0 });

/** In place of a speed, of what the clock does not see. */
const TOO_SHORT = "–";

/** A time; of more than some seconds as such. */
export const milliseconds = (ms) => (ms < 10_000 ? `${rounded(ms, ms < 10 ? 2 : ms < 100 ? 1 : 0)} ms` : `${rounded(ms / 1000, 1)} s`);
const percent = (share) => {
  if (!Number.isFinite(share)) return TOO_SHORT;
  return share > 0 && share < 0.0005 ? "< 0.1 %" : `${rounded(share * 100, share < 0.1 ? 1 : 0)} %`;
};
const size = (bytes) => (bytes >= 2 ** 30 ? `${rounded(bytes / 2 ** 30, 1)} GiB` : bytes >= 2 ** 20 ? `${rounded(bytes / 2 ** 20, 0)} MiB` : `${rounded(bytes / 1024, 0)} KiB`);
/** Operations or bytes a second. */
const rate = (value, unit) => {
  if (!Number.isFinite(value)) return TOO_SHORT;
  const [prefix, scale] = value >= 1e12 ? ["T", 1e12] : value >= 1e9 ? ["G", 1e9] : ["M", 1e6];
  return `${rounded(value / scale, value / scale < 10 ? 1 : 0)} ${prefix}${unit}`;
};
const spread = (runs) => (runs.length > 1 ? `${milliseconds(Math.min(...runs))} to ${milliseconds(Math.max(...runs))}, ${runs.length} times` : "once");

function device({ adapter, backend, peak, timedBy, tuning }) {
  const rows = [["Runs on", `${backend.kind === "webgpu" ? "WebGPU" : "CPU"}: ${backend.name}`, backend.reason]];
  if (backend.threads > 1) rows.push(["Threads", String(backend.threads), ""]);
  if (adapter) {
    const { limits, subgroupMinSize, subgroupMaxSize } = adapter;
    const name = [adapter.vendor, adapter.architecture, adapter.device, adapter.description].filter(Boolean).join(" ");
    const useful = ["shader-f16", "subgroups", "timestamp-query"].filter((name) => adapter.features.includes(name));
    const subgroups = subgroupMaxSize ? `subgroups of ${subgroupMinSize === subgroupMaxSize ? "" : `${subgroupMinSize} to `}${subgroupMaxSize}` : "";
    rows.push(["Adapter", name || "not told", [useful.join(", ") || "none of shader-f16, subgroups, timestamp-query", subgroups].filter(Boolean).join("; ")]);
    rows.push(["Limits", `buffers of ${size(limits.maxBufferSize)}`, `${size(limits.maxStorageBufferBindingSize)} a binding; workgroups of ${limits.maxComputeInvocationsPerWorkgroup}, ${size(limits.maxComputeWorkgroupStorageSize)} of memory each`]);
  }
  rows.push(["Matrix product, at most", rate(peak.gemm, "FLOP/s"), "by Tintype's own kernels"]);
  if (peak.gemmHalf) rows.push(["The same in 16-bit floats", rate(peak.gemmHalf, "FLOP/s"), "of what the UNet does"]);
  rows.push(["Copying, at most", rate(peak.copy, "B/s"), "read and written"]);
  const alone = backend.kind === "webgpu" ? "the adapter has no timestamps: each operation alone, and repeated" : "";
  rows.push(["Timed by", timedBy === "timestamps" ? "timestamps of the GPU" : "the clock", timedBy === "timestamps" ? "" : alone]);
  const raced = Object.keys(tuning?.choices ?? {}).length;
  if (raced > 0) rows.push(["Chosen by measurement", `${raced} products`, `${Object.keys(tuning.leftOut).length} ways left out`]);
  return { title: "This device", head: ["", "", ""], rows };
}

function work({ model, memory, unet, vae, picture }) {
  const { width, height, factor } = model;
  const plan = (name, { ms, runs, dispatches, submits, flop, share }) => [
    name,
    milliseconds(ms),
    percent(share),
    rate((flop / ms) * 1e3, "FLOP/s"),
    [spread(runs), dispatches > 0 && `${dispatches} dispatches in ${rounded(submits, 0)} submits`].filter(Boolean).join("; "),
  ];
  const held = [size(memory.weights + memory.working), memory.gpu > 0 && `${memory.pipelines} pipelines`].filter(Boolean).join("; ");
  return {
    title: `${model.name}, ${width} × ${height}`,
    head: ["", "Time", "Of peak", "Compute", ""],
    rows: [
      plan(`A step of the UNet, latents ${width / factor} × ${height / factor}`, unet),
      plan("Decoding", vae),
      [`A picture, ${picture.steps} ${picture.steps === 1 ? "step" : "steps"}`, milliseconds(picture.ms), "", "", spread(picture.runs)],
      ["Loading, from memory", milliseconds(model.load), "", "", `weights and working memory ${held}`],
    ],
  };
}

/** Of all operations that a picture's first step takes, those that the others don't repeat. */
function onceOnly(nodes) {
  const flop = (nodes) => nodes.reduce((sum, node) => sum + node.flop, 0);
  return flop(nodes.filter(({ rate }) => rate !== "step")) / flop(nodes);
}

function raced({ race, backend, peak, unet }, title = "Beside onnxruntime-web", what = "A step") {
  if (!race) return null;
  if (race.error) return { title, head: ["", ""], rows: [["The race was not held", race.error]] };
  const { ort, tintype, ratio, difference, agrees } = race;
  const asked = ({ dispatches, submits, pipelines, peakBuffers }) =>
    backend.kind === "webgpu" ? `${dispatches} dispatches in ${submits} submits; ${pipelines} pipelines; buffers of ${size(peakBuffers)} at most` : "";
  // What the two don't do alike.
  const ours = [`weights as the checkpoint has them, arithmetic in ${peak.gemmHalf ? 16 : 32} bits`];
  const once = what === "A step" ? onceOnly(unet.nodes) : 0;
  if (once > 0) ours.push(`${percent(once)} of the operations, done once a prompt or schedule, are not in a step`);
  const theirs = ["weights and arithmetic in 32 bits", once > 0 && "all operations each step", asked(ort)];
  return {
    title,
    head: ["", what, "", ""],
    rows: [
      ["Tintype", milliseconds(tintype.ms), spread(tintype.runs), ours.join("; ")],
      [`onnxruntime-web ${ort.version}`, milliseconds(ort.ms), spread(ort.runs), theirs.filter(Boolean).join("; ")],
      ["Tintype is", ratio >= 1 ? `${rounded(ratio, 2)} times as fast` : `${rounded(1 / ratio, 2)} times slower`, "medians, in turns", ""],
      [
        "Both compute",
        agrees ? "the same" : "something different",
        `${difference.toExponential(1)} of the largest value apart`,
        agrees ? "" : "at least one of them is wrong: the times say nothing",
      ],
    ],
  };
}

/** The first word of an operation: what kind it is. */
const kindOf = ({ op }) => op.split(/[ ({]/)[0].toLowerCase();

/** Of the nodes that run each step, by kind, those that take most time first: `{ kind, count, ms, flop, bytes, least, part }`. */
export function byKind(nodes) {
  const kinds = new Map();
  const step = nodes.filter(({ rate, ms }) => rate === "step" && ms > 0);
  const all = step.reduce((sum, { ms }) => sum + ms, 0);
  for (const node of step) {
    const kind = kindOf(node);
    const sum = kinds.get(kind) ?? { kind, count: 0, ms: 0, flop: 0, bytes: 0, least: 0, part: 0 };
    sum.count += 1;
    for (const key of ["ms", "flop", "bytes"]) sum[key] += node[key];
    sum.least += node.share * node.ms;
    sum.part = sum.ms / all;
    kinds.set(kind, sum);
  }
  return [...kinds.values()].sort((a, b) => b.ms - a.ms);
}

const kinds = (title, nodes) => ({
  title,
  head: ["", "Time", "Part", "Of peak", "Compute", "Memory"],
  rows: byKind(nodes).map(({ kind, count, ms, flop, bytes, least, part }) => [
    `${count} × ${kind}`,
    milliseconds(ms),
    percent(part),
    percent(least / ms),
    rate((flop / ms) * 1e3, "FLOP/s"),
    rate((bytes / ms) * 1e3, "B/s"),
  ]),
});

/** Every node of a plan. */
export const nodeTable = (title, { nodes }) => ({
  title,
  head: ["#", "Where", "What", "Shape", "Rate", "Time", "MFLOP", "MB", "Of peak"],
  rows: nodes.map(({ index, label, op, shape, rate, ms, flop, bytes, share }) => [
    String(index),
    label,
    op,
    shape.join(" × "),
    rate,
    milliseconds(ms),
    rounded(flop / 1e6, 1),
    rounded(bytes / 1e6, 2),
    percent(share),
  ]),
});

const PARTS = { vae: "the decoder", text: "the text encoder" };

/** A report's tables: `{ title, head, rows }`, of text. */
export function tables(report) {
  const others = Object.entries(report.others ?? {}).map(([part, race]) => raced({ ...report, race }, `Beside onnxruntime-web: ${PARTS[part]}`, "Once"));
  const all = [device(report), raced(report), ...others, work(report), kinds("Where a step's time goes", report.unet.nodes), kinds("Where decoding's time goes", report.vae.nodes)];
  if (report.notices.length > 0) all.push({ title: "Notices", head: ["", ""], rows: report.notices.map(({ kind, message }) => [kind, message]) });
  return all.filter(Boolean);
}

/** What the chart shows: `{ label, ms, ours }`. */
export function bars({ race, unet, vae, picture }) {
  if (race?.ort) {
    return [
      { label: "Tintype", ms: race.tintype.ms, ours: true },
      { label: "onnxruntime-web", ms: race.ort.ms, ours: false },
    ];
  }
  return [
    { label: "A step", ms: unet.ms, ours: true },
    { label: "Decoding", ms: vae.ms, ours: true },
    { label: picture.steps === 1 ? "A picture" : `A picture, ${picture.steps} steps`, ms: picture.ms, ours: true },
  ];
}

/** A table as lines for a terminal. */
export function lines({ title, head, rows }) {
  const all = head.some(Boolean) ? [head, ...rows] : rows;
  const widths = head.map((_, column) => Math.max(...all.map((row) => (row[column] ?? "").length)));
  return [title, ...all.map((row) => `  ${row.map((cell, column) => (cell ?? "").padEnd(widths[column])).join("  ").trimEnd()}`)];
}
