// The way of a photo into the network: what kmatting/networks/fitting.py does for a fixed size.

import constants from "./constants.json" with { type: "json" };
import { BILINEAR, LANCZOS } from "./resize.js";

const { STRETCH } = constants.network; // largest factor by which a photo's aspect ratio is changed

/**
 * How a photo fills the input of a network.
 *
 * @returns width and height at which the network sees the photo, and the filter that resizes it.
 */
export function fit(photo, input) {
  const wider = photo.width / photo.height / (input.width / input.height);
  const unfilled = wider / Math.min(Math.max(wider, 1 / STRETCH), STRETCH);
  const width = Math.max(1, rounded(input.width * Math.min(1, unfilled)));
  const height = Math.max(1, rounded(input.height * Math.min(1, 1 / unfilled)));
  const enlarged = width * height > photo.width * photo.height;
  return { width, height, filter: enlarged ? LANCZOS : BILINEAR };
}

/** Rounds halves to the even neighbour, as Python does. */
function rounded(value) {
  const below = Math.floor(value);
  return value - below === 0.5 ? below + (below % 2) : Math.round(value);
}
