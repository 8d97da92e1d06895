// Photo in, matte out: what kmatting/inference/matter.py does with a .tflite file.

import { loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";
import { refine } from "./refine.js";
import { BILINEAR, LANCZOS, resize } from "./resize.js";

const STRETCH = 2; // largest factor by which a photo's aspect ratio is changed

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

  constructor(network) {
    this.network = network;
    const [input] = network.getInputDetails();
    const [output] = network.getOutputDetails();
    [, this.height, this.width] = input.shape;
    const isMatting = input.shape.length === 4 && input.shape[3] === 3;
    const types = [input.dtype, output.dtype];
    if (!isMatting || !types.every((type) => type === "float32" || type === "uint8")) {
      throw new Error(
        `expected a model from an image (1, H, W, 3) to an alpha, of float32 or uint8, received ` +
          `(${[...input.shape]}) and ${types.join(" to ")}. Export it by kmatting export.`,
      );
    }
    this.type = input.dtype;
  }

  /**
   * Predicts the matte of a photo.
   *
   * @param photo image of 4 channels, bytes; the fourth is not used.
   * @returns image of one channel, floats from 0 to 1, of the photo's size.
   */
  async predict(photo) {
    const [width, height] = this.#seen(photo.width, photo.height);
    const enlarged = width * height > photo.width * photo.height;
    const small = resize(photo, width, height, enlarged ? LANCZOS : BILINEAR);
    const alpha = await this.#run(small);
    return refine({ width, height, channels: 1, data: alpha }, photo);
  }

  /** The size at which the network sees a photo, as `kmatting.sizes.size_in_frame` has it. */
  #seen(width, height) {
    const wider = width / height / (this.width / this.height);
    const unfilled = wider / Math.min(Math.max(wider, 1 / STRETCH), STRETCH);
    return [
      Math.max(1, Math.round(this.width * Math.min(1, unfilled))),
      Math.max(1, Math.round(this.height * Math.min(1, 1 / unfilled))),
    ];
  }

  /** Runs the network on a photo that fits into its frame, whose border fills the rest. */
  async #run({ width, height, data }) {
    const bytes = this.type === "uint8";
    const pixels = new (bytes ? Uint8Array : Float32Array)(this.width * this.height * 3);
    for (let i = 0; i < this.width * this.height; i++) {
      const y = Math.min(Math.floor(i / this.width), height - 1);
      const x = Math.min(i % this.width, width - 1);
      for (let c = 0; c < 3; c++) {
        const level = data[(y * width + x) * 4 + c];
        pixels[3 * i + c] = bytes ? level : level / 255;
      }
    }
    const input = new Tensor(pixels, [1, this.height, this.width, 3]);
    const [output] = await this.network.run(input);
    const values = (await output.data()).slice();
    input.delete();
    output.delete();

    // The highest code of a sigmoid in 8 bits stands for 1.
    const highest = values instanceof Uint8Array ? 255 : 1;
    const alpha = new Float32Array(width * height);
    for (let i = 0; i < alpha.length; i++) {
      const value = values[Math.floor(i / width) * this.width + (i % width)] / highest;
      if (!Number.isFinite(value)) throw new Error("the model returned numbers that are not finite.");
      alpha[i] = Math.min(Math.max(value, 0), 1);
    }
    return alpha;
  }
}
