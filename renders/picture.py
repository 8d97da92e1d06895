"""Render passes to pictures: linear premultiplied colour and alpha in, straight sRGB RGBA out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

VISIBLE = 1 / 512  # less alpha than this is saved as 0 in 8 bits: its colour is no measurement
ARTIST, COPYRIGHT = 0x013B, 0x8298  # EXIF's names for author and licence


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """Returns sRGB values in [0, 1] of linear ones."""
    clipped = np.clip(linear, 0, 1)
    curve = 1.055 * np.maximum(clipped, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(clipped <= 0.0031308, 12.92 * clipped, curve)


def _halve(values: np.ndarray) -> np.ndarray:
    height, width = values.shape[:2]
    padded = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)))
    return padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2, -1).sum((1, 3))


def fill(colour: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Returns colours (H, W, 3) with those of no weight taken from their neighbourhood.

    A pyramid of weighted means: what is empty at one level is taken from the next coarser one.
    Without it, a resize of the file would pull black from under the transparent pixels.
    """
    total = weight[..., None]
    if min(colour.shape[:2]) > 1 and weight.min() < 1:
        coarse = _halve(np.concatenate([colour * total, total], -1))
        mean = coarse[..., :3] / np.maximum(coarse[..., 3:], 1e-6)
        below = fill(mean, np.minimum(coarse[..., 3], 1))
        spread = below.repeat(2, 0).repeat(2, 1)[: colour.shape[0], : colour.shape[1]]
        return colour * total + spread * (1 - total)
    return colour


def straight(premultiplied: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Returns straight RGBA (H, W, 4), uint8, of linear premultiplied colour and alpha.

    The colour is divided by alpha while it is still linear. Where alpha is small, the quotient
    is noise: it gives way to the colours around it.
    """
    alpha = np.clip(alpha, 0, 1)
    colour = premultiplied / np.maximum(alpha, VISIBLE)[..., None]
    bright = float(np.quantile(colour[alpha > 0.5], 0.999)) if (alpha > 0.5).any() else 1.0
    colour = np.clip(colour, 0, max(1.0, bright))
    colour = fill(to_srgb(colour), np.clip(alpha * 8 - 8 * VISIBLE, 0, 1))
    rgba = np.concatenate([colour, alpha[..., None]], -1)
    return np.round(np.clip(rgba, 0, 1) * 255).astype(np.uint8)


def save(pixels: np.ndarray, path: Path, terms: dict[str, str]) -> None:
    """Writes a PNG of RGBA (H, W, 4) or grey (H, W) pixels with its terms inside.

    It is written beside its place first: what is there is whole.
    """
    text = PngInfo()
    for key, value in terms.items():
        text.add_itxt(key, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    Image.fromarray(pixels).save(beside, format="PNG", pnginfo=text)
    beside.replace(path)


def save_photo(photo: np.ndarray, path: Path, author: str, licence: str) -> None:
    """Writes a JPEG with its terms inside."""
    exif = Image.Exif()
    exif[ARTIST], exif[COPYRIGHT] = author, licence
    Image.fromarray(photo).save(path, quality=90, exif=exif)


def stated(path: Path) -> tuple[str | None, str | None]:
    """Returns the author and the licence that a PNG or a JPEG itself states."""
    with Image.open(path) as photo:
        if isinstance(photo, PngImageFile):
            return photo.text.get("Author"), photo.text.get("Licence")
        exif = photo.getexif()
        return exif.get(ARTIST), exif.get(COPYRIGHT)
