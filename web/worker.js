// Works beside the page, so that it does not freeze: receives {number, file, size}, answers with
// {number, matte, cutout, ...} or {number, error}.

import constants from "./constants.json" with { type: "json" };
import { estimateForeground } from "./foreground.js";
import { Matter } from "./matter.js";

const MOST_PIXELS = 50_000_000; // what is held of a photo is about 16 bytes a pixel
const { OPAQUE_SHARE } = constants.matte; // of the photo: a smaller subject counts as none

const matter = Matter.load("model.tflite");
matter.then(
  ({ sizes }) => postMessage({ ready: true, sizes }),
  (error) => postMessage({ ready: false, error: `The model cannot be loaded: ${reason(error)}` }),
);

let work = Promise.resolve(); // one photo at a time
self.onmessage = ({ data }) => (work = work.then(() => answer(data)));

async function answer({ number, file, size }) {
  try {
    postMessage({ number, ...(await cutOut(file, size)) });
  } catch (error) {
    postMessage({ number, error: `${file.name}: ${reason(error)}` });
  }
}

/** Makes the PNGs of one photo. */
async function cutOut(file, size) {
  const start = performance.now();
  const { canvas, photo } = await read(file);
  const { width, height, data } = photo;
  const opacity = transparency(data);
  const seen = opacity ? { ...photo, data: overWhite(data) } : photo;
  const alpha = await (await matter).predict(seen, size);

  // The photo's own colours and the prediction belong together; its opacity comes on top.
  estimateForeground(photo, alpha);
  const matte = new ImageData(width, height);
  const grey = matte.data;
  let opaque = 0;
  for (let i = 0; i < width * height; i++) {
    const level = Math.round(alpha.data[i] * (opacity ? opacity[i] : 255));
    if (level >= 127.5) opaque += 1;
    data[4 * i + 3] = level;
    grey[4 * i] = grey[4 * i + 1] = grey[4 * i + 2] = level;
    grey[4 * i + 3] = 255;
  }
  return {
    width,
    height,
    isEmpty: opaque < OPAQUE_SHARE * width * height,
    cutout: await toPng(canvas, new ImageData(data, width, height)),
    matte: await toPng(canvas, matte),
    seconds: (performance.now() - start) / 1000,
  };
}

/** Decodes a photo, upright and in sRGB; also returns the canvas that was needed. */
async function read(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw new Error(
      `this browser cannot read it (${file.type || "no image"}); expected a JPEG, PNG or WebP photo.`,
    );
  }
  const { width, height } = bitmap;
  if (width * height > MOST_PIXELS) {
    bitmap.close();
    throw new Error(
      `${width}x${height} are more than ${MOST_PIXELS / 1e6} million pixels. Reduce the photo, or ` +
        "use kmatting predict.",
    );
  }
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error(`${width}x${height} is too large for this browser.`);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  return { canvas, photo: { width, height, channels: 4, data } };
}

/** The opacity of each pixel, or null if all are opaque; makes invisible pixels white. */
function transparency(data) {
  const opacity = new Uint8Array(data.length / 4);
  for (let i = 0; i < opacity.length; i++) {
    opacity[i] = data[4 * i + 3];
    if (opacity[i] === 0) data.fill(255, 4 * i, 4 * i + 3); // their colours are arbitrary
  }
  return opacity.some((level) => level < 255) ? opacity : null;
}

/** Lays a photo over white, as the network sees it. */
function overWhite(data) {
  return data.map((level, i) => {
    const opacity = data[i | 3];
    return (level * opacity + 255 * (255 - opacity)) / 255;
  });
}

/** Encodes pixels. A canvas multiplies colours by their opacity, which rounds those of faint ones. */
function toPng(canvas, pixels) {
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}

function reason(error) {
  return String(error?.message ?? error).split("\n")[0];
}
