"""Rows of the group `data`: the input pipeline of training."""

import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kmatting.images import write_image
from kmatting.measuring.machine import peak_memory
from kmatting.measuring.rows import Row
from kmatting.quiet import quiet

__all__ = ["input_pipeline", "pipelines"]

_PAIR = (384, 512)  # height and width of the photos that are read
_PHOTOS, _SAMPLES = 32, 400
_PLAIN: dict[str, Any] = {"fit": "crop", "crop_scale": [0.5, 1.0]}
_AUGMENTATIONS = {
    "crop, rotate, flip": _PLAIN,  # that of configs/model1.yaml, and a crop
    "and colour, blur, noise": {**_PLAIN, "colour": 0.3, "blur": 1.5, "noise": 0.03},
}


def pipelines() -> Iterator[tuple[str, str]]:
    """Yields what `input_pipeline` can measure here.

    Yields:
        Kind of source, and name of the augmentation. The kind "albumentations" reads and augments
        the same files by that library, and is there if the library is installed.
    """
    for kind in ("pairs", *(("albumentations",) if find_spec("albumentations") else ())):
        for augmentation in _AUGMENTATIONS:
            yield kind, augmentation
    for kind in ("composite", "synthetic"):
        yield kind, next(iter(_AUGMENTATIONS))


def input_pipeline(kind: str, augmentation: str, size: int) -> Row:
    """Measures reading and augmenting in one thread.

    Args:
        kind: as `pipelines` yields it.
        augmentation: the same.
        size: side of the samples.

    Returns:
        The row: processor time, not wall time, so that it is per core whatever runs beside it.
    """
    with quiet(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_photos(folder)
        make = _albumentations if kind == "albumentations" else _kmatting
        sample = make(folder, kind, _AUGMENTATIONS[augmentation], size)
        for number in range(_PHOTOS):
            sample(number)
        start = time.process_time()
        for number in range(_SAMPLES):
            sample(number)
        seconds = (time.process_time() - start) / _SAMPLES
    return Row(
        "data",
        f"{kind} {size} px, per core",
        augmentation,
        1000 * seconds,
        1 / seconds,
        megabytes=peak_memory(),
    )


def _write_photos(folder: Path) -> None:
    from kmatting.data.synthetic import layers, sample

    for index in range(_PHOTOS):
        image, alpha = sample(0, index, _PAIR)
        write_image(folder / "image" / f"{index}.jpg", image, quality=90)
        write_image(folder / "alpha" / f"{index}.png", alpha)
        write_image(folder / "background" / f"{index}.jpg", layers(0, index, _PAIR)[2])


def _kmatting(
    folder: Path, kind: str, augmentation: dict[str, Any], size: int
) -> Callable[[int], Any]:
    """Returns a function that makes the sample of a number as training does."""
    import cv2

    from kmatting.config import DataConfig
    from kmatting.data.pipeline import build

    cv2.setNumThreads(1)
    sources: dict[str, dict[str, Any]] = {
        "pairs": {"images": folder / "image", "alphas": folder / "alpha"},
        "composite": {
            "foregrounds": folder / "image",
            "alphas": folder / "alpha",
            "backgrounds": folder / "background",
        },
        "synthetic": {},
    }
    values = {"train": [{"kind": kind, **sources[kind]}], "validation": 0.0, "size": size}
    config = DataConfig.model_validate({**values, "augmentation": augmentation})
    return build(config, 0, 8).train().sample


def _albumentations(
    folder: Path, kind: str, augmentation: dict[str, Any], size: int
) -> Callable[[int], Any]:
    """Returns a function that makes a like sample by OpenCV and albumentations."""
    import albumentations
    import cv2

    cv2.setNumThreads(1)
    least, most = augmentation["crop_scale"]
    changes = [
        albumentations.RandomResizedCrop(size=(size, size), scale=(least**2, most**2)),
        albumentations.Rotate(limit=30, border_mode=cv2.BORDER_REFLECT, p=1),
        albumentations.HorizontalFlip(),
        albumentations.VerticalFlip(),
    ]
    if "colour" in augmentation:
        changes += [
            albumentations.ColorJitter(p=1),
            albumentations.GaussianBlur(sigma_limit=(0, augmentation["blur"]), blur_limit=0),
            albumentations.GaussNoise(std_range=(0, augmentation["noise"]), p=0.5),
        ]
    change = albumentations.Compose(changes)

    def sample(number: int) -> Any:
        name = str(number % _PHOTOS)
        image = cv2.imread(str(folder / "image" / f"{name}.jpg"), cv2.IMREAD_COLOR_RGB)
        alpha = cv2.imread(str(folder / "alpha" / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
        return change(image=image, mask=alpha)

    return sample
