// Several pictures of one prompt and seed as one PNG, with their checkpoints' names under them.

import { toCanvas } from "./paint.js";

const GAP = 16;
const HEAD = 56;
const NAME = 34;
const SMALLEST = 256;
const FONT = '"Iowan Old Style", "Palatino Linotype", Palatino, Georgia, serif';

/** As square as it can be without a gap in the last row, if there is such a way. */
function columnsFor(count) {
  const side = Math.ceil(Math.sqrt(count));
  const whole = [side, side + 1].find((columns) => count % columns === 0);
  return count <= 3 ? count : (whole ?? side);
}

function words(context, text, x, y, width, font) {
  context.font = font;
  let shown = text;
  while (shown && context.measureText(shown === text ? text : `${shown}…`).width > width) shown = [...shown].slice(0, -1).join("");
  context.fillText(shown === text ? text : `${shown}…`, x, y);
}

/** The PNG of these items: { imageData, name, parameters }; each at its [row, column], if there are `places`. */
export async function sheet(items, places) {
  const side = columnsFor(items.length);
  const at = places ?? items.map((_, index) => [Math.floor(index / side), index % side]);
  const [rows, columns] = [0, 1].map((axis) => 1 + Math.max(...at.map((place) => place[axis])));
  const [wide, high] = ["width", "height"].map((side) => Math.max(...items.map(({ imageData }) => imageData[side])));
  const scale = Math.max(1, Math.ceil(SMALLEST / Math.max(wide, high)));
  const [width, height] = [wide * scale, high * scale];
  const canvas = document.createElement("canvas");
  canvas.width = GAP + columns * (width + GAP);
  canvas.height = HEAD + rows * (height + NAME) + GAP;
  const context = canvas.getContext("2d");
  context.fillStyle = "#f5eee1";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = "#2a211b";
  context.textBaseline = "middle";
  context.imageSmoothingQuality = "high";
  const { prompt, seed } = items[0].parameters;
  words(context, `${prompt || "untitled"} · seed ${seed}`, GAP, HEAD / 2, canvas.width - 2 * GAP, `italic 22px ${FONT}`);
  items.forEach(({ imageData, name }, index) => {
    const [row, column] = at[index];
    const x = GAP + column * (width + GAP);
    const y = HEAD + row * (height + NAME);
    const fit = Math.min(width / imageData.width, height / imageData.height);
    const [w, h] = [imageData.width * fit, imageData.height * fit];
    context.drawImage(toCanvas(imageData), x + (width - w) / 2, y + (height - h) / 2, w, h);
    words(context, name, x, y + height + NAME / 2, width, `600 18px ${FONT}`);
  });
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the browser could not make the PNG"))), "image/png");
  });
}
