// Photo in, matte out: what kmatting/inference/matter.py does with a .tflite file.

import { loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";
import { refine } from "./refine.js";
import { BILINEAR, LANCZOS, resize } from "./resize.js";

const STRETCH = 2; // largest factor by which a photo's aspect ratio is changed
const FRAME_SIGNATURE = "matte_"; // begins the signature of each size in a file of several

/** A loaded model. */
export class Matter {
  /**
   * Loads a .tflite file of kmatting.
   *
   * @param model its address. LiteRT's WebAssembly is expected beside the worker.
   */
  static async load(model) {
    await loadLiteRt("./");
    const answer = await fetch(model);
    if (!answer.ok) throw new Error(`${model}: the server answered with status ${answer.status}.`);
    const content = new Uint8Array(await answer.arrayBuffer());
    return new Matter(await loadAndCompile(content, { accelerator: "wasm" }));
  }

  constructor(model) {
    const isFrame = (name) => name.startsWith(FRAME_SIGNATURE);
    const names = Object.keys(model.signatures).filter(isFrame);
    const networks = names.length ? names.map((name) => model.signatures[name]) : [model];
    this.frames = networks.map(frameOf);
    /** What `predict` takes as a size, such as "288x512", height first. */
    this.sizes = this.frames.map(({ height, width }) => `${height}x${width}`);
  }

  /**
   * Predicts the matte of a photo.
   *
   * @param photo image of 4 channels, bytes; the fourth is not used.
   * @param size one of `sizes`.
   * @returns image of one channel, floats from 0 to 1, of the photo's size.
   */
  async predict(photo, size = this.sizes[0]) {
    const frame = this.frames[this.sizes.indexOf(size)];
    const [width, height] = seen(photo.width, photo.height, frame);
    const enlarged = width * height > photo.width * photo.height;
    const small = resize(photo, width, height, enlarged ? LANCZOS : BILINEAR);
    const alpha = await run(small, frame);
    return refine({ width, height, channels: 1, data: alpha }, photo);
  }
}

/** Reads height, width and type of a network that takes one size. */
function frameOf(network) {
  const [input] = network.getInputDetails();
  const [output] = network.getOutputDetails();
  const isMatting = input.shape.length === 4 && input.shape[3] === 3;
  const types = [input.dtype, output.dtype];
  if (!isMatting || !types.every((type) => type === "float32" || type === "uint8")) {
    throw new Error(
      `expected a model from an image (1, H, W, 3) to an alpha, of float32 or uint8, received ` +
        `(${[...input.shape]}) and ${types.join(" to ")}. Export it by kmatting export.`,
    );
  }
  const [, height, width] = input.shape;
  return { network, height, width, type: input.dtype };
}

/** The size at which the network sees a photo, as `kmatting.sizes.size_in_frame` has it. */
function seen(width, height, frame) {
  const wider = width / height / (frame.width / frame.height);
  const unfilled = wider / Math.min(Math.max(wider, 1 / STRETCH), STRETCH);
  return [
    Math.max(1, Math.round(frame.width * Math.min(1, unfilled))),
    Math.max(1, Math.round(frame.height * Math.min(1, 1 / unfilled))),
  ];
}

/** Runs the network on a photo that fits into its frame, whose border fills the rest. */
async function run({ width, height, data }, frame) {
  const bytes = frame.type === "uint8";
  const pixels = new (bytes ? Uint8Array : Float32Array)(frame.width * frame.height * 3);
  for (let i = 0; i < frame.width * frame.height; i++) {
    const y = Math.min(Math.floor(i / frame.width), height - 1);
    const x = Math.min(i % frame.width, width - 1);
    for (let c = 0; c < 3; c++) {
      const level = data[(y * width + x) * 4 + c];
      pixels[3 * i + c] = bytes ? level : level / 255;
    }
  }
  const input = new Tensor(pixels, [1, frame.height, frame.width, 3]);
  const [output] = await frame.network.run(input);
  const values = (await output.data()).slice();
  input.delete();
  output.delete();

  // The highest code of a sigmoid in 8 bits stands for 1.
  const highest = values instanceof Uint8Array ? 255 : 1;
  const alpha = new Float32Array(width * height);
  for (let i = 0; i < alpha.length; i++) {
    const value = values[Math.floor(i / width) * frame.width + (i % width)] / highest;
    if (!Number.isFinite(value)) throw new Error("the model returned numbers that are not finite.");
    alpha[i] = Math.min(Math.max(value, 0), 1);
  }
  return alpha;
}
