// Colours of the subject without the background that shines through: a port of
// kmatting/pictures/foreground.py, which explains each step. The numbers are the same.

import constants from "./constants.json" with { type: "json" };
import { BILINEAR, BOX, resize, tiles } from "./resize.js";

const { ESTIMATE_PIXELS, STEPS, LEAST_WEIGHT } = constants.foreground;
const TILE = 64;

/**
 * Replaces the colours of half-transparent pixels by those of the foreground, in place.
 *
 * @param photo image of 4 channels, bytes; the fourth is not used.
 * @param alpha image of one channel, floats from 0 to 1, of the same size.
 */
export function estimateForeground(photo, alpha) {
  const { width, height } = photo;
  let layers;
  for (const tile of tiles(width, height, TILE)) {
    if (!eachSoft(tile, alpha, () => true)) continue;
    layers ??= estimateLayers(photo, alpha);
    const enlarged = resize(layers, width, height, BILINEAR, tile).data;
    eachSoft(tile, alpha, (pixel, i) => {
      complete(enlarged, 6 * i, alpha.data[pixel], photo.data, 4 * pixel);
      for (let c = 0; c < 3; c++) photo.data[4 * pixel + c] = enlarged[6 * i + c];
    });
  }
}

/**
 * Calls a function with each half-transparent pixel of a tile: its place in the photo and in the
 * tile. Stops when the function returns true, and returns whether it did.
 */
function eachSoft(tile, alpha, visit) {
  for (let y = 0, i = 0; y < tile.height; y++) {
    const row = (tile.top + y) * alpha.width + tile.left;
    for (let x = 0; x < tile.width; x++, i++) {
      const level = alpha.data[row + x] * 255;
      if (level > 0.5 && level < 254.5 && visit(row + x, i)) return true;
    }
  }
  return false;
}

/** Estimates foreground and background of a reduced photo: 6 channels, bytes. */
function estimateLayers(photo, alpha) {
  const scale = Math.min(1, Math.sqrt(ESTIMATE_PIXELS / (photo.width * photo.height)));
  let width = Math.max(1, Math.round(photo.width * scale));
  let height = Math.max(1, Math.round(photo.height * scale));
  const pyramid = [];
  for (;;) {
    const [finer, matte] = pyramid.at(-1) ?? [photo, alpha];
    pyramid.push([resize(finer, width, height, BOX), resize(matte, width, height, BOX)]);
    if (Math.max(width, height) <= 2) break;
    [width, height] = [Math.ceil(width / 2), Math.ceil(height / 2)];
  }
  let layers;
  for (const [level, matte] of pyramid.reverse()) {
    layers = doubled(layers ?? twice(level), matte.width, matte.height);
    for (let step = 0; step < STEPS; step++) layers = stepped(layers, matte, level);
  }
  return { ...layers, data: Uint8ClampedArray.from(layers.data) };
}

/** The photo as foreground and as background. */
function twice({ width, height, data }) {
  const both = new Float32Array(6 * width * height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 6; c++) both[6 * i + c] = data[4 * i + (c % 3)];
  }
  return { width, height, channels: 6, data: both };
}

/** Doubles both sides by repeating pixels, and crops to a size. */
function doubled(layers, width, height) {
  if (layers.width === width && layers.height === height) return layers;
  const data = new Float32Array(6 * width * height);
  for (let i = 0; i < width * height; i++) {
    const from = Math.floor(i / width / 2) * layers.width + Math.floor((i % width) / 2);
    data.set(layers.data.subarray(6 * from, 6 * from + 6), 6 * i);
  }
  return { width, height, channels: 6, data };
}

/** One step: means of the four neighbours, weighted by each layer's share, then completed. */
function stepped({ width, height, data }, matte, photo) {
  const result = new Float32Array(data.length);
  for (let i = 0; i < width * height; i++) {
    const x = i % width;
    const neighbours = [
      i >= width ? i - width : i,
      i + width < width * height ? i + width : i,
      x > 0 ? i - 1 : i,
      x < width - 1 ? i + 1 : i,
    ];
    let [over, under] = [0, 0];
    for (const j of neighbours) {
      const a = matte.data[j] + LEAST_WEIGHT;
      const b = 1 - matte.data[j] + LEAST_WEIGHT;
      over += a;
      under += b;
      for (let c = 0; c < 3; c++) {
        result[6 * i + c] += a * data[6 * j + c];
        result[6 * i + 3 + c] += b * data[6 * j + 3 + c];
      }
    }
    for (let c = 0; c < 3; c++) {
      result[6 * i + c] /= over;
      result[6 * i + 3 + c] /= under;
    }
    complete(result, 6 * i, matte.data[i], photo.data, 4 * i);
  }
  return { width, height, channels: 6, data: result };
}

/** Adds to both layers of a pixel what their mixture lacks of the photo's colour. */
function complete(layers, at, alpha, photo, from) {
  const squares = alpha * alpha + (1 - alpha) * (1 - alpha);
  for (let c = 0; c < 3; c++) {
    const [over, under] = [layers[at + c], layers[at + 3 + c]];
    const rest = (photo[from + c] - alpha * over - (1 - alpha) * under) / squares;
    layers[at + c] = Math.min(Math.max(over + alpha * rest, 0), 255);
    layers[at + 3 + c] = Math.min(Math.max(under + (1 - alpha) * rest, 0), 255);
  }
}
