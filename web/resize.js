// Pillow's resampling: each filter is widened by the factor of a reduction, so nothing aliases.
//
// An image is {width, height, channels, data}: rows of pixels in a typed array, channels side by
// side.

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

export const BOX = { reach: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) };
export const BILINEAR = { reach: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) };
export const LANCZOS = { reach: 3, weight: (x) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0) };

// Filters that leave the size as it is: a mean, a mean taken twice, a Gaussian.
export const mean = (side) => ({ reach: side / 2, weight: () => 1 });
export const meanTwice = (side) => ({
  reach: side - 0.5,
  weight: (x) => side - Math.abs(x),
  repeat: true, // the border of the image, beyond it
});
export const gaussian = (sigma) => ({
  reach: Math.ceil(3 * sigma) + 0.5,
  weight: (x) => Math.exp(-0.5 * (x / sigma) ** 2),
});

/**
 * Resizes an image.
 *
 * @param part rectangle {left, top, width, height} of the result to compute; all of it by default.
 * @param Data type of the result's numbers; that of the image by default.
 */
export function resize(image, width, height, filter, part, Data = image.data.constructor) {
  part ??= { left: 0, top: 0, width, height };
  const { channels, data } = image;
  const rows = taps(image.height, height, filter, part.top, part.height);
  const { first, count, weights, most } = taps(image.width, width, filter, part.left, part.width);

  const start = Data === Uint8ClampedArray ? 1e-6 : 0; // halves are rounded up, as in Pillow

  // Columns before rows, as in Pillow: bytes are rounded between.
  const top = rows.first[0];
  const bottom = rows.first.at(-1) + rows.count.at(-1);
  const stride = part.width * channels;
  const narrow = new Data((bottom - top) * stride);
  for (let y = top, to = 0; y < bottom; y++) {
    for (let x = 0; x < part.width; x++) {
      const from = (y * image.width + first[x]) * channels;
      const end = from + count[x] * channels;
      for (let c = 0; c < channels; c++, to++) {
        let sum = start;
        let at = x * most;
        for (let i = from + c; i < end; i += channels) sum += weights[at++] * data[i];
        narrow[to] = sum;
      }
    }
  }

  const result = new Data(part.height * stride);
  const sums = new Float64Array(stride);
  for (let y = 0; y < part.height; y++) {
    sums.fill(start);
    for (let i = 0; i < rows.count[y]; i++) {
      const weight = rows.weights[y * rows.most + i];
      const from = (rows.first[y] + i - top) * stride;
      for (let x = 0; x < stride; x++) sums[x] += weight * narrow[from + x];
    }
    result.set(sums, y * stride);
  }
  return { width: part.width, height: part.height, channels, data: result };
}

/** For each pixel from `start` on: the first pixel that it is made of, how many, the weights. */
function taps(before, after, filter, start, length) {
  const scale = before / after;
  const stretch = Math.max(scale, 1);
  const reach = filter.reach * stretch;
  const most = Math.ceil(2 * reach) + 1;
  const first = new Int32Array(length);
  const count = new Int32Array(length);
  const weights = new Float64Array(length * most);
  for (let n = 0; n < length; n++) {
    const centre = (start + n + 0.5) * scale;
    const from = Math.floor(centre - reach + 0.5);
    const to = Math.floor(centre + reach + 0.5);
    first[n] = Math.max(0, from);
    count[n] = Math.min(before, to) - first[n];
    let total = 0;
    for (let i = from; i < to; i++) {
      const nearest = Math.min(Math.max(i, 0), before - 1);
      if (i !== nearest && !filter.repeat) continue;
      const weight = filter.weight((i + 0.5 - centre) / stretch);
      weights[n * most + nearest - first[n]] += weight;
      total += weight;
    }
    for (let i = 0; i < count[n]; i++) weights[n * most + i] /= total;
  }
  return { first, count, weights, most };
}

/** Rectangles of at most `side` x `side` pixels that cover an image. */
export function* tiles(width, height, side) {
  for (let top = 0; top < height; top += side) {
    for (let left = 0; left < width; left += side) {
      yield {
        left,
        top,
        width: Math.min(side, width - left),
        height: Math.min(side, height - top),
      };
    }
  }
}
