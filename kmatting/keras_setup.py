"""Loads Keras with the settings that kmatting needs, whatever the user's own are.

They come from `KERAS_BACKEND` and from `~/.keras/keras.json`, or from the program that uses
kmatting. Call `import_keras` before anything that imports Keras at the top of its module.
"""

import os
import sys
from importlib.util import find_spec
from typing import Any

from kmatting.errors import UsageError

__all__ = ["import_keras"]

_TENSORFLOW = "tensorflow"


def import_keras(tensorflow: bool = False, prefer_tensorflow: bool = False) -> Any:
    """Imports Keras; sets what kmatting needs, or refuses what the program has set otherwise.

    Images have their channels last, and numbers are float32. Where Keras is not loaded yet, both
    are set, for the whole process. Where it is, they are the program's and not changed.

    Args:
        tensorflow: whether only TensorFlow will do as Keras's backend. A file of settings that
            names another one is overruled then; `KERAS_BACKEND` is not.
        prefer_tensorflow: whether TensorFlow is the backend unless `KERAS_BACKEND` names another.
            Where it is not installed and JAX is, JAX is the backend in either case.

    Returns:
        The module `keras`.

    Raises:
        UsageError: if a setting does not fit; the message names it.
        ModuleNotFoundError: if Keras or TensorFlow is not installed.
    """
    is_first = "keras" not in sys.modules
    only_jax = find_spec(_TENSORFLOW) is None and find_spec("jax") is not None
    if is_first and (tensorflow or prefer_tensorflow or only_jax):
        os.environ.setdefault(
            "KERAS_BACKEND", "jax" if only_jax and not tensorflow else _TENSORFLOW
        )
    keras = _imported()
    if is_first:
        keras.config.set_image_data_format("channels_last")
        keras.config.set_floatx("float32")
    backend = keras.config.backend()
    if tensorflow and backend != _TENSORFLOW:
        hint = "unset it, or set it to tensorflow" if is_first else "start without it"
        raise UsageError(f"KERAS_BACKEND is {backend}, but this needs TensorFlow; {hint}.")
    for name, needed in (("image_data_format", "channels_last"), ("floatx", "float32")):
        found = getattr(keras.config, name)()
        if found != needed:
            raise UsageError(
                f"Keras is set to {name} {found}, but kmatting needs {needed}: call "
                f'keras.config.set_{name}("{needed}") first.'
            )
    return keras


def _imported() -> Any:
    try:
        import keras
    except (ImportError, ValueError, AssertionError) as error:
        backend = os.environ.get("KERAS_BACKEND", "")
        missing = (getattr(error, "name", None) or "").partition(".")[0]
        if missing in ("keras", _TENSORFLOW) and backend in ("", _TENSORFLOW):
            raise  # what an extra of kmatting installs
        setting = f"KERAS_BACKEND is {backend}" if backend else "see ~/.keras/keras.json"
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(f"Keras cannot be loaded ({reason}); {setting}.") from error
    return keras
