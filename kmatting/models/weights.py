"""Explains in one line why weights do not fit a network."""

import re
import textwrap

CHOICES = "Set model.encoder_weights to imagenet, to the path of a weights file, or to none."


def explain(error: Exception) -> str:
    """Shortens an error from loading weights; Keras's holds the values of whole layers.

    Args:
        error: what Keras, h5py or a download raised.

    Returns:
        A layer with the shapes that differ, or else the first line of the message.
    """
    text = str(error).strip()
    layer = re.search(r"object <\w+ name=([^,>]+)", text)
    shapes = re.search(r"variable\.shape=(\(.*?\)), Received: value\.shape=(\(.*?\))", text)
    counts = re.search(r"expected (\d+) variables, but received (\d+)", text)
    if layer and shapes:
        return f"layer {layer[1]}: expected shape {shapes[1]}, received {shapes[2]}"
    if layer and counts:
        return f"layer {layer[1]}: expected {counts[1]} variables, received {counts[2]}"
    first_line = (text or type(error).__name__).splitlines()[0]
    return textwrap.shorten(first_line, 200, placeholder=" ...")
