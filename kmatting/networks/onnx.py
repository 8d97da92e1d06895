"""Runs `.onnx` files with ONNX Runtime, on processors. Nothing here imports TensorFlow."""

from pathlib import Path
from typing import Any

import numpy as np

from kmatting.errors import ModelError
from kmatting.networks.metadata import METADATA, parse_metadata
from kmatting.networks.network import Network, fixed_size, foreign
from kmatting.networks.runtime import keep_in_forks, processors
from kmatting.sizes import Size

INPUT, OUTPUT = "image", "alpha"
_ERRORS = 3  # level of ONNX Runtime's log: no notes on the graph and the machine


def load(path: Path, threads: int | None = None, size: Size | None = None) -> "OnnxNetwork":
    """Loads an `.onnx` file, see `kmatting.networks.formats.load_network`."""
    return OnnxNetwork(path.absolute(), threads)


class OnnxNetwork(Network):
    """An `.onnx` file as kmatting exports it.

    Args:
        path: the file.
        threads: number of threads; by default the number of processors.

    Raises:
        ModelError: if it is another kind of model.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        super().__init__(path, threads)
        with foreign("an ONNX model"):
            self._session = open_session(path, threads)
        self.fixed_size = fixed_size(_image_shape(self._session))
        properties = self._session.get_modelmeta().custom_metadata_map
        self._metadata = parse_metadata(properties.get(METADATA))
        self.best_size = self._metadata.get("max_size")

    @property
    def metadata(self) -> dict[str, Any]:
        """Content of the model's `kmatting.json`."""
        return self._metadata

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Runs the network, as `Network.run` says."""
        alpha: np.ndarray = self._session.run([OUTPUT], {INPUT: batch / np.float32(255)})[0]
        return alpha


def open_session(path: Path, threads: int | None = None) -> Any:
    """Opens an `onnxruntime.InferenceSession`; by default it takes all processors."""
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
            f"--format onnx writes them, received {_described(inputs)} and {_described(outputs)}. "
            "kmatting cannot know how another model wants its photos."
        )
    return [side if isinstance(side, int) else None for side in inputs[0].shape]


def _described(tensors: Any) -> str:
    return ", ".join(f"{each.name} {each.type} {each.shape}" for each in tensors)
