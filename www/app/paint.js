// Enlarges with a smooth kernel: the browser's own scaling of an <img> shows the grid of so small a picture.

/** Fills a canvas, as large as it is shown, with `pixels` (a canvas); with nothing, clears it. */
export function paint(canvas, pixels) {
  const box = canvas.getBoundingClientRect();
  const scale = Math.min(globalThis.devicePixelRatio || 1, 2);
  const width = Math.max(1, Math.round(box.width * scale));
  const height = Math.max(1, Math.round(box.height * scale));
  // Setting a canvas's size, even to what it is, allocates it anew.
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  if (!pixels) return;
  context.imageSmoothingQuality = "high";
  // The whole picture, in the middle.
  const fit = Math.min(width / pixels.width, height / pixels.height);
  const [w, h] = [pixels.width * fit, pixels.height * fit];
  context.drawImage(pixels, (width - w) / 2, (height - h) / 2, w, h);
}

/** ImageData as a canvas, which can be enlarged; `into` is used again. */
export function toCanvas(imageData, into = document.createElement("canvas")) {
  Object.assign(into, { width: imageData.width, height: imageData.height });
  into.getContext("2d").putImageData(imageData, 0, 0);
  return into;
}
