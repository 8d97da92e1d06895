"""Runs `.onnx` files with ONNX Runtime, on processors. Nothing here imports TensorFlow."""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from kmatting.errors import ModelError
from kmatting.networks.metadata import METADATA, parse_metadata
from kmatting.networks.network import Network, fixed_frame
from kmatting.networks.runtime import keep_in_forks, processors

INPUT, OUTPUT = "image", "alpha"
_ERRORS = 3  # level of ONNX Runtime's log: no notes on the graph and the machine


def load_onnx(path: Path, threads: int | None = None) -> Network:
    """Loads an ONNX model.

    Args:
        path: the file.
        threads: number of threads; by default the number of processors.

    Returns:
        The `Network`.

    Raises:
        ModelError: if it is not a matting model as kmatting exports it.
    """
    session = open_session(path, threads)
    shape = _image_shape(session)
    properties = session.get_modelmeta().custom_metadata_map
    metadata = parse_metadata(properties.get(METADATA, "{}"))

    def run(batch: np.ndarray) -> np.ndarray:
        return session.run([OUTPUT], {INPUT: batch / np.float32(255)})[0]

    reload = functools.partial(load_onnx, path.absolute(), threads)
    return Network(run, fixed_frame(shape), reload, metadata.get("max_size"))


def open_session(path: Path, threads: int | None = None) -> Any:
    """Opens a session of ONNX Runtime.

    Args:
        path: the file.
        threads: number of threads; by default the number of processors.

    Returns:
        The `onnxruntime.InferenceSession`.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or processors()
    options.log_severity_level = _ERRORS
    # Waiting threads would take processor time from the reading and writing of other photos.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    keep_in_forks(session)
    return session


def _image_shape(session: Any) -> list[int | None]:
    """Checks the inputs and outputs of a model; returns the shape of its image."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    names = [[each.name for each in group] for group in (inputs, outputs)]
    types = {each.type for each in (*inputs, *outputs)}
    if names != [[INPUT], [OUTPUT]] or types != {"tensor(float)"}:
        raise ModelError(
            f"expected an input {INPUT} and an output {OUTPUT} of float32, as kmatting export "
            f"--format onnx writes them, received {_listed(inputs)} and {_listed(outputs)}. "
            "kmatting cannot know how another model wants its photos."
        )
    return [side if isinstance(side, int) else None for side in inputs[0].shape]


def _listed(tensors: Any) -> str:
    return ", ".join(f"{each.name} {each.type} {each.shape}" for each in tensors)
