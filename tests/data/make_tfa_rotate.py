"""Makes tfa_rotate.npz: what `tfa.image.rotate` of tensorflow-addons 0.23 returns.

tensorflow-addons ended in 2024 and does not run beside Keras 3, so that its values are stored here.
To make them again, in an environment of its own (Python 3.9 to 3.11):

    python3.11 -m venv tfa
    tfa/bin/pip install "tensorflow-cpu==2.15.*" "tensorflow-addons==0.23.*" "numpy<2"
    tfa/bin/python tests/data/make_tfa_rotate.py

Under HEIGHTxWIDTH/INTERPOLATION/FILL_MODE is an array (angle, height, width, channel), one picture
for each of `degrees`; the input, (height, width, channel), is under HEIGHTxWIDTH. `constant` fills
with 0.25.
"""

import itertools
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa

SIZES = [(8, 8), (9, 9), (7, 12), (12, 5)]
DEGREES = [0.0, 11.0, -30.0, 90.0, 180.0, 217.5]


def main() -> None:
    """Writes the file beside this script."""
    random = np.random.default_rng(0)
    arrays = {
        "versions": np.array([tf.__version__, tfa.__version__]),
        "degrees": np.array(DEGREES, np.float32),
    }
    for height, width in SIZES:
        # Few bits, so that the inputs are the same numbers everywhere.
        image = (random.integers(0, 65, (height, width, 2)) / 64).astype(np.float32)
        arrays[f"{height}x{width}"] = image
        for interpolation, fill_mode in itertools.product(
            ["bilinear", "nearest"], ["constant", "reflect", "nearest", "wrap"]
        ):
            arrays[f"{height}x{width}/{interpolation}/{fill_mode}"] = tfa.image.rotate(
                np.stack([image] * len(DEGREES)),
                np.deg2rad(DEGREES).astype(np.float32),
                interpolation=interpolation,
                fill_mode=fill_mode,
                fill_value=0.25,
            ).numpy()
    np.savez_compressed(Path(__file__).with_name("tfa_rotate.npz"), **arrays)


if __name__ == "__main__":
    main()
