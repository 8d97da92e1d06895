// Brings a matte from the network's size to the photo's own, with the edges of the photo: a port of
// kmatting/inference/refine.py, which explains each step. The numbers are the same.

import constants from "./constants.json" with { type: "json" };
import { BILINEAR, BOX, gaussian, mean, meanTwice, resize, tiles } from "./resize.js";

const {
  EPSILON, SOFTNESS, NEARLY_BEST, STEEP, SOFT, SHARPENED, LEAST_RANGE, UNEXPLAINED, GRAIN, FIT_TILE,
  JUDGED_TILES, FLAT,
} = constants.refine;
const TILE = 64; // pixels a side: flat tiles are quick
const BORDER = Math.ceil(3 * Math.max(...SOFTNESS)) + 2; // of the widest blur and two 3x3 means

/**
 * Brings a matte to the size of its photo.
 *
 * @param alpha image of one channel, floats from 0 to 1, of any size.
 * @param photo image of 3 or 4 channels, bytes; the fourth is not used.
 * @returns image of one channel, of the photo's size.
 */
export function refine(alpha, photo) {
  const { width, height } = photo;
  if (alpha.width >= width && alpha.height >= height) {
    return resize(alpha, width, height, BILINEAR);
  }
  // A photo may be larger than its matte along one axis alone.
  const [columns, rows] = [Math.min(alpha.width, width), Math.min(alpha.height, height)];
  if (columns < alpha.width || rows < alpha.height) alpha = resize(alpha, columns, rows, BILINEAR);
  const count = columns * rows;
  const lowest = local(alpha, 5, Math.min).data;
  const highest = local(alpha, 5, Math.max).data;
  const spread = highest.map((value, i) => value - lowest[i]);
  const guide = resize(photo, columns, rows, BOX);
  const { lines, error } = fit(alpha, guide, spread);
  const trust = trustOf(alpha, guide, lines, error);

  // Slopes for red, green and blue, offset, lowest and highest value.
  const small = { ...alpha, channels: 6, data: new Float32Array(6 * count) };
  for (let i = 0; i < count; i++) {
    const share = trust[i];
    for (let c = 0; c < 3; c++) small.data[6 * i + c] = (share * lines[4 * i + c]) / 255;
    small.data[6 * i + 3] = share * lines[4 * i + 3] + (1 - share) * alpha.data[i];
    small.data[6 * i + 4] = lowest[i];
    small.data[6 * i + 5] = highest[i];
    if (share === 0) spread[i] = 0;
  }
  const sigma = GRAIN * Math.max(height / rows, width / columns);
  const noGrain = meanTwice(Math.round(Math.sqrt(6 * sigma ** 2 + 1)));
  const refined = new Float32Array(width * height);
  for (const tile of tiles(width, height, TILE)) {
    const flat = isFlat(spread, alpha, tile, width, height);
    const values = resize(flat ? alpha : small, width, height, BILINEAR, tile).data;
    const colours = flat ? null : resize(photo, width, height, noGrain, tile, Float32Array).data;
    for (let y = 0, i = 0; y < tile.height; y++) {
      const row = (tile.top + y) * width + tile.left;
      for (let x = 0; x < tile.width; x++, i++) {
        refined[row + x] = flat ? values[i] : refinedPixel(values, 6 * i, colours, photo.channels * i);
      }
    }
  }
  return { width, height, channels: 1, data: refined };
}

/** Applies a pixel's function, at `at` in `values`, to its colours, within its limits. */
function refinedPixel(values, at, colours, from) {
  let value = values[at + 3];
  for (let c = 0; c < 3; c++) value += values[at + c] * colours[from + c];
  return clamp(value, values[at + 4], values[at + 5]);
}

/**
 * Fits the matte by a linear function of the colours around each pixel.
 *
 * @returns `lines`: three slopes and the offset of each pixel; `error`: squared error of the fit.
 */
function fit(alpha, guide, spread) {
  const count = alpha.width * alpha.height;
  const lines = new Float32Array(4 * count);
  const error = new Float32Array(count);
  alpha.data.forEach((value, i) => (lines[4 * i + 3] = value)); // right wherever it is flat
  const pixels = ({ left, top, width, height }) =>
    Array.from({ length: width * height }, (_, i) => {
      return (top + Math.floor(i / width)) * alpha.width + left + (i % width);
    });
  const edges = [...tiles(alpha.width, alpha.height, FIT_TILE)]
    .map(pixels)
    .filter((tile) => tile.some((i) => spread[i] >= FLAT));
  if (!edges.length) return { lines, error };

  const step = Math.ceil(edges.length / JUDGED_TILES);
  const judged = edges.filter((_, i) => i % step === 0).flat();
  const matte = padded(alpha, 1, 1);
  const colours = padded(guide, 3, 255);
  const fits = SOFTNESS.map((sigma) => fitAll(matte, colours, sigma));
  const inner = (i) =>
    (Math.floor(i / alpha.width) + BORDER) * matte.width + (i % alpha.width) + BORDER;
  const errors = fits.map((one) => judged.reduce((sum, i) => sum + one.error[inner(i)], 0));
  const limit = NEARLY_BEST * Math.min(...errors);
  const best = fits[errors.findIndex((total) => total <= limit)];
  for (const i of edges.flat()) {
    for (let c = 0; c < 4; c++) lines[4 * i + c] = best.lines[4 * inner(i) + c];
    error[i] = best.error[inner(i)];
  }
  return { lines, error };
}

/** Repeats the border of an image, and divides its numbers. */
function padded(image, channels, divisor) {
  const width = image.width + 2 * BORDER;
  const height = image.height + 2 * BORDER;
  const data = new Float32Array(width * height * channels);
  for (let i = 0; i < width * height; i++) {
    const y = clamp(Math.floor(i / width) - BORDER, 0, image.height - 1);
    const x = clamp((i % width) - BORDER, 0, image.width - 1);
    const from = (y * image.width + x) * image.channels;
    for (let c = 0; c < channels; c++) data[i * channels + c] = image.data[from + c] / divisor;
  }
  return { width, height, channels, data };
}

/** Solves the guided filter's regression in each 3x3 window, on colours blurred by `sigma`. */
function fitAll(alpha, guide, sigma) {
  const { width, height } = alpha;
  const same = (image, filter) => resize(image, width, height, filter);
  const colours = (sigma ? same(guide, gaussian(sigma)) : guide).data;
  const count = width * height;
  const products = new Float32Array(13 * count);
  for (let i = 0; i < count; i++) {
    const a = alpha.data[i];
    const [r, g, b] = colours.subarray(3 * i, 3 * i + 3);
    const all = [a, r, g, b, a * r, a * g, a * b, r * r, r * g, r * b, g * g, g * b, b * b];
    products.set(all, 13 * i);
  }
  const means = same({ width, height, channels: 13, data: products }, mean(3)).data;
  const windows = new Float32Array(4 * count);
  for (let i = 0; i < count; i++) {
    const [a, r, g, b, ar, ag, ab, rr, rg, rb, gg, gb, bb] = means.subarray(13 * i, 13 * i + 13);
    windows.set(regression(a, [r, g, b], [ar, ag, ab], [rr, rg, rb, gg, gb, bb]), 4 * i);
  }
  const lines = same({ width, height, channels: 4, data: windows }, mean(3)).data;
  const error = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    let value = lines[4 * i + 3];
    for (let c = 0; c < 3; c++) value += lines[4 * i + c] * colours[3 * i + c];
    error[i] = (value - alpha.data[i]) ** 2;
  }
  return { lines, error };
}

/** Three slopes and the offset of one window, from means of alpha, colours and products. */
function regression(a, [mr, mg, mb], [ar, ag, ab], [srr, srg, srb, sgg, sgb, sbb]) {
  const [r, g, b] = [ar - mr * a, ag - mg * a, ab - mb * a];
  const [rr, gg, bb] = [srr - mr * mr + EPSILON, sgg - mg * mg + EPSILON, sbb - mb * mb + EPSILON];
  const [rg, rb, gb] = [srg - mr * mg, srb - mr * mb, sgb - mg * mb];
  // Elimination in the symmetric matrix.
  const [gByR, bByR] = [rg / rr, rb / rr];
  const restGg = gg - gByR * rg;
  const restGb = gb - gByR * rb;
  const bByG = restGb / restGg;
  const restG = g - gByR * r;
  const blue = (b - bByR * r - bByG * restG) / (bb - bByR * rb - bByG * restGb);
  const green = restG / restGg - bByG * blue;
  const red = r / rr - gByR * green - bByR * blue;
  return [red, green, blue, a - red * mr - green * mg - blue * mb];
}

/** How far the fit may replace the bilinear enlargement, from 0 to 1. */
function trustOf(alpha, guide, lines, error) {
  const { width, height, data } = alpha;
  const plane = (values) => ({ width, height, channels: 1, data: values });
  const add = (a, b) => a + b;
  const detail = (values) => {
    const around = local(plane(values), 3, add).data;
    return values.map((value, i) => value - around[i] / 9);
  };
  const steps = data.map((value, i) => {
    const right = i % width < width - 1 ? data[i + 1] - value : 0;
    const below = i + width < data.length ? data[i + width] - value : 0;
    return Math.hypot(right, below);
  });
  const steepest = local(plane(steps), 5, Math.max).data;
  const least = local(alpha, 9, Math.min).data;
  const greatest = local(alpha, 9, Math.max).data;
  const own = detail(data);
  const taken = new Float32Array(data.length);
  for (let c = 0; c < 3; c++) {
    const colours = detail(data.map((_, i) => guide.data[guide.channels * i + c] / 255));
    for (let i = 0; i < taken.length; i++) taken[i] += lines[4 * i + c] * colours[i];
  }
  const together = local(plane(own.map((value, i) => value * taken[i])), 5, add).data;
  const energy = local(plane(own.map((value) => value * value)), 5, add).data;
  const unexplained = local(plane(error), 5, add).data;
  return data.map((_, i) => {
    const steepness = steepest[i] / Math.max(greatest[i] - least[i], LEAST_RANGE);
    const most = Math.max(energy[i], 1e-6);
    const sharpened = share((steepness * together[i]) / most, SHARPENED);
    const focus = Math.max(share(steepness, STEEP), share(steepness, SOFT) * sharpened);
    return focus * (1 - share(unexplained[i] / most, UNEXPLAINED));
  });
}

/** Combines each window of side x side pixels; the border is repeated. */
function local({ width, height, data }, side, combine) {
  const reach = (side - 1) / 2;
  const over = (values, position, length, stride) =>
    values.map((_, i) => {
      const here = position(i);
      let result;
      for (let shift = -reach; shift <= reach; shift++) {
        const value = values[i + (clamp(here + shift, 0, length - 1) - here) * stride];
        result = result === undefined ? value : combine(result, value);
      }
      return result;
    });
  const rows = over(data, (i) => Math.floor(i / width), height, width);
  return { width, height, channels: 1, data: over(rows, (i) => i % width, width, 1) };
}

/** Whether the small matte is the same all over a tile of the photo and its neighbours. */
function isFlat(spread, alpha, tile, width, height) {
  const [xScale, yScale] = [alpha.width / width, alpha.height / height];
  const left = Math.max(Math.floor(tile.left * xScale) - 1, 0);
  const upper = Math.max(Math.floor(tile.top * yScale) - 1, 0);
  const right = Math.min(Math.ceil((tile.left + tile.width) * xScale) + 1, alpha.width);
  const lower = Math.min(Math.ceil((tile.top + tile.height) * yScale) + 1, alpha.height);
  for (let y = upper; y < lower; y++) {
    for (let x = left; x < right; x++) if (spread[y * alpha.width + x] >= FLAT) return false;
  }
  return true;
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const share = (value, [low, high]) => clamp((value - low) / (high - low), 0, 1);
