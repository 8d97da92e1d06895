// Photo in, matte out: what kmatting/inference/matter.py does with a .tflite file.

import { loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";
import constants from "./constants.json" with { type: "json" };
import { fit } from "./fitting.js";
import { refine } from "./refine.js";
import { resize } from "./resize.js";

// How signatures of sizes begin; how far beyond 0 and 1 an alpha may be.
const { SIZE_SIGNATURE, TOLERANCE } = constants.network;

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
    const isSize = (name) => name.startsWith(SIZE_SIGNATURE);
    const names = Object.keys(model.signatures).filter(isSize);
    const networks = names.length ? names.map((name) => model.signatures[name]) : [model];
    this.inputs = networks.map(inputOf);
    /** What `predict` takes as a size, such as "288x512", height first. */
    this.sizes = this.inputs.map(({ height, width }) => `${height}x${width}`);
  }

  /**
   * Predicts the matte of a photo.
   *
   * @param photo image of 4 channels, bytes; the fourth is not used.
   * @param size one of `sizes`.
   * @returns image of one channel, floats from 0 to 1, of the photo's size.
   */
  async predict(photo, size = this.sizes[0]) {
    const input = this.inputs[this.sizes.indexOf(size)];
    const { width, height, filter } = fit(photo, input);
    const small = resize(photo, width, height, filter);
    const alpha = await run(small, input);
    return refine({ width, height, channels: 1, data: alpha }, photo);
  }
}

/** Reads height, width and type of a network that takes one size. */
function inputOf(network) {
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

/** Runs the network on a photo that fits into its input, whose border fills the rest. */
async function run({ width, height, data }, input) {
  const bytes = input.type === "uint8";
  const pixels = new (bytes ? Uint8Array : Float32Array)(input.width * input.height * 3);
  for (let i = 0; i < input.width * input.height; i++) {
    const y = Math.min(Math.floor(i / input.width), height - 1);
    const x = Math.min(i % input.width, width - 1);
    for (let c = 0; c < 3; c++) {
      const level = data[(y * width + x) * 4 + c];
      pixels[3 * i + c] = bytes ? level : level / 255;
    }
  }
  const tensor = new Tensor(pixels, [1, input.height, input.width, 3]);
  const [output] = await input.network.run(tensor);
  const values = (await output.data()).slice();
  tensor.delete();
  output.delete();

  // The highest code of a sigmoid in 8 bits stands for 1.
  const highest = values instanceof Uint8Array ? 255 : 1;
  const alpha = new Float32Array(width * height);
  for (let i = 0; i < alpha.length; i++) {
    const value = values[Math.floor(i / width) * input.width + (i % width)] / highest;
    if (!Number.isFinite(value)) throw new Error("the model returned numbers that are not finite.");
    if (value < -TOLERANCE || value > 1 + TOLERANCE) {
      throw new Error(`expected an alpha from 0 to 1 from the model, received ${value}.`);
    }
    alpha[i] = Math.min(Math.max(value, 0), 1);
  }
  return alpha;
}
