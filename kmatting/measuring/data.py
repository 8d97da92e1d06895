"""Rows of the group `data`: the input pipeline of training."""

import tempfile
import time
from pathlib import Path
from typing import Any

from kmatting.images import write_image
from kmatting.measuring.machine import peak_memory
from kmatting.measuring.rows import Row
from kmatting.quiet import quiet

__all__ = ["KINDS", "input_pipeline"]

KINDS = ("pairs", "composite", "synthetic")
_PAIR = (384, 512)  # height and width of the photos that are read


def input_pipeline(kind: str, size: int) -> Row:
    """Measures the input pipeline alone, augmented as in training, on one processor.

    Args:
        kind: one of `KINDS`.
        size: side of the samples.

    Returns:
        The row: processor time, not wall time, so that it is per core whatever runs beside it.
    """
    with quiet():
        from kmatting.config import DataConfig
        from kmatting.data.pipeline import build
        from kmatting.data.synthetic import layers, sample
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index in range(16):
            image, alpha = sample(0, index, _PAIR)
            write_image(folder / "image" / f"{index}.jpg", image, quality=90)
            write_image(folder / "alpha" / f"{index}.png", alpha)
            write_image(folder / "background" / f"{index}.jpg", layers(0, index, _PAIR)[2])
        sources: dict[str, dict[str, Any]] = {
            "pairs": {"images": folder / "image", "alphas": folder / "alpha"},
            "composite": {
                "foregrounds": folder / "image",
                "alphas": folder / "alpha",
                "backgrounds": folder / "background",
            },
            "synthetic": {},
        }
        train = [{"kind": kind, **sources[kind]}]
        config = DataConfig.model_validate({"train": train, "validation": 0.0, "size": size})
        batches = iter(build(config, 0, 8).train())
        next(batches)
        start = time.process_time()
        count = 30
        for _ in range(count):
            next(batches)
        seconds = (time.process_time() - start) / (8 * count)
    return Row(
        "data",
        f"{kind} {size} px, per core",
        "read, augment",
        1000 * seconds,
        1 / seconds,
        megabytes=peak_memory(),
    )
