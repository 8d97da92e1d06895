"""A soft shadow behind a subject."""

import numpy as np
from PIL import Image, ImageFilter

_BLUR = 0.025  # standard deviation, as a share of the picture's shorter side
_DROP = 0.02  # how far it falls down, likewise
_SMALL = 512  # pixels of the longer side on which it is blurred


def soft_shadow(alpha: np.ndarray, strength: float) -> np.ndarray:
    """Computes a soft shadow that falls a little below the subject.

    Its softness follows from the size of the picture, not from that of the subject, so that it does
    not flicker in a video.

    Args:
        alpha: float array (H, W) in [0, 1].
        strength: how dark it is behind the subject, in [0, 1].

    Returns:
        float32 array (H, W) in [0, 1]: 1 is black. It ends at the border of the picture.
    """
    height, width = alpha.shape
    scale = min(1.0, _SMALL / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = Image.fromarray(alpha.astype(np.float32, copy=False)).resize(size, Image.Resampling.BOX)
    levels = Image.fromarray(np.rint(np.asarray(small) * (255 * strength)).astype(np.uint8))
    drop = round(_DROP * min(size))
    fallen = levels.transform(size, Image.Transform.AFFINE, (1, 0, 0, 0, 1, -drop))
    blurred = fallen.filter(ImageFilter.GaussianBlur(_BLUR * min(size)))
    enlarged = blurred.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(enlarged) / np.float32(255)
