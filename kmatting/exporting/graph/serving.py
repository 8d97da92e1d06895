"""The signatures of an exported SavedModel: plain photos in, mattes or cutouts out."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from kmatting.exporting.graph.decode import check_files, decode, over_white
from kmatting.exporting.graph.fitting import check_batch, pad, reduce
from kmatting.exporting.graph.foreground import estimate_foreground
from kmatting.exporting.graph.refine import refine
from kmatting.networks.network import PLAIN_SIGNATURE, SIGNATURE

_IMAGES = tf.TensorSpec((None, None, None, 3), tf.uint8, "image")
_FILES = tf.TensorSpec((None,), tf.string, "image_bytes")


class Server:
    """A network with what a server does around it.

    Args:
        model: a matting network.
        max_size: side in pixels of the square whose area the network sees.
    """

    def __init__(self, model: keras.Model, max_size: int) -> None:
        self._model, self._max_size = model, max_size
        # All signatures call these, so that the network is traced and stored once.
        self._network = tf.function(self._run_network, input_signature=[_IMAGES])
        self._matte = tf.function(self._make_matte, input_signature=[_IMAGES])

    def signatures(self) -> dict[str, Callable]:
        """Returns the `tf.function` of each signature, by its name."""

        def serve(image: Any) -> dict[str, Any]:
            return {"alpha": self._matte(image)}

        def serve_network(image: Any) -> dict[str, Any]:
            return {"alpha": self._network(image)}

        def serve_encoded(image_bytes: Any) -> dict[str, Any]:
            return {"alpha_png_bytes": _one_by_one(self._matte_png, image_bytes)}

        def serve_cutout(image_bytes: Any) -> dict[str, Any]:
            return {"cutout_png_bytes": _one_by_one(self._cutout_png, image_bytes)}

        return {
            SIGNATURE: tf.function(serve, input_signature=[_IMAGES]),
            "encoded": tf.function(serve_encoded, input_signature=[_FILES]),
            "encoded_cutout": tf.function(serve_cutout, input_signature=[_FILES]),
            PLAIN_SIGNATURE: tf.function(serve_network, input_signature=[_IMAGES]),
        }

    def _run_network(self, image: Any) -> Any:
        shape = tf.shape(image)
        with tf.control_dependencies([check_batch(shape[0], shape[1:3], self._max_size)]):
            image = tf.cast(image, tf.float32)
        return self._model(image / 255, training=False)

    def _make_matte(self, image: Any) -> Any:
        """Makes the alphas (N, H, W, 1) of uint8 photos (N, H, W, 3)."""
        small = reduce(image, self._max_size)
        alpha = self._network(pad(small))[:, : tf.shape(small)[1], : tf.shape(small)[2], 0]
        alpha = tf.debugging.check_numerics(alpha, "The network's alpha is not finite.")
        alpha = tf.clip_by_value(alpha, 0, 1)
        refined = tf.map_fn(
            lambda pair: refine(*pair),
            (alpha, image),
            parallel_iterations=1,
            fn_output_signature=tf.TensorSpec((None, None), tf.float32),
        )
        return refined[..., None]

    def _matte_png(self, file: Any) -> Any:
        image, opacity = decode(file)
        alpha = self._matte(over_white(image, opacity)[None])[0]
        return tf.io.encode_png(_levels(alpha, opacity))

    def _cutout_png(self, file: Any) -> Any:
        image, opacity = decode(file)
        alpha = self._matte(over_white(image, opacity)[None])[0]
        # Colours of fully transparent pixels are arbitrary; the network saw white there.
        colours = estimate_foreground(tf.where(opacity > 0, image, 255), alpha[..., 0])
        levels = _levels(alpha, opacity)
        colours = tf.where(levels > 0, colours, 0)
        return tf.io.encode_png(tf.concat([colours, levels], -1), compression=1)


def _one_by_one(encode: Callable[[Any], Any], files: Any) -> Any:
    """Makes a PNG file of each file; sizes differ, and memory stays that of the largest photo."""
    return tf.map_fn(
        encode,
        check_files(files),
        parallel_iterations=1,
        fn_output_signature=tf.TensorSpec((), tf.string),
    )


def _levels(alpha: Any, opacity: Any) -> Any:
    """Returns the alpha of a photo with its own opacity in 8 bits."""
    return tf.cast(tf.round(alpha * (tf.cast(opacity, tf.float32) / 255) * 255), tf.uint8)
