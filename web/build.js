// Writes the page to dist/: npm run build [-- model.tflite]

import { build } from "esbuild";
import { copyFileSync, existsSync, mkdirSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";

const HERE = import.meta.dirname;
const DIST = join(HERE, "dist");
const WASM = join(HERE, "node_modules/@litertjs/core/wasm");

const model = process.argv[2]
  ? resolve(process.argv[2])
  : join(HERE, "../saved_models/general.tflite");
if (!existsSync(model)) {
  console.error(`${model}: no such file. Expected a .tflite file of kmatting export.`);
  process.exit(1);
}

rmSync(DIST, { recursive: true, force: true });
mkdirSync(DIST);
await build({
  entryPoints: ["main.js", "worker.js"].map((name) => join(HERE, name)),
  bundle: true,
  minify: true,
  format: "iife", // LiteRT.js loads its WebAssembly by importScripts, which modules do not have
  target: "es2022",
  outdir: DIST,
});
copyFileSync(model, join(DIST, "model.tflite"));
for (const name of ["index.html", "style.css"]) {
  copyFileSync(join(HERE, name), join(DIST, name));
}
// LiteRT.js looks for its WebAssembly beside the worker; browsers without relaxed SIMD take "compat".
for (const variant of ["litert_wasm_internal", "litert_wasm_compat_internal"]) {
  for (const suffix of ["js", "wasm"]) {
    copyFileSync(join(WASM, `${variant}.${suffix}`), join(DIST, `${variant}.${suffix}`));
  }
}
