"""The folder of a training run: its config, its checkpoints, and how to resume it."""

import contextlib
import importlib.metadata
import json
import math
import platform
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kmatting import __version__
from kmatting.config import Config, load_config, save_config
from kmatting.errors import CheckpointError, ConfigError
from kmatting.files import whole_file
from kmatting.networks.metadata import METADATA, read_metadata
from kmatting.networks.shipped import find_weights
from kmatting.terminal import counted

CONFIG = "config.yaml"
LAST = "last.keras"
BEST = "best.keras"
LOCK = "run.lock"

_Count = Annotated[int, Field(ge=0, strict=True)]


class RunState(BaseModel):
    """Where a run stands, as its checkpoints say it.

    Attributes:
        epoch: complete epochs.
        best: lowest validation MAD so far, None without any.
        size: height and width in pixels that the network is trained at.
        licence: terms of the weights that the run started from, if their file states them.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    epoch: _Count = 0
    best: Annotated[float, Field(ge=0, strict=True)] | None = None
    size: tuple[_Count, _Count] | None = None
    licence: str | None = None


def open_run(
    config_file: Path | None,
    overrides: Sequence[str] | Mapping[str, Any],
    output: Path | None,
    resume: bool,
) -> tuple[Config, Path]:
    """Finds the config and the folder of a new or a resumed run.

    Args:
        config_file: YAML file. May be left out to resume with the run's own config.
        overrides: what overrides the file, see `load_config`.
        output: the run's folder; by default `runs/` and the name of the config.
        resume: whether to continue the run in the folder.

    Returns:
        The config and the folder.

    Raises:
        ConfigError: if there is no config or nothing to resume, or if a new run would overwrite
            another one.
    """
    if config_file is None:
        if output is None or not resume:
            raise ConfigError("Expected --config FILE, or --resume with --output DIR.")
        if not (output / CONFIG).exists():
            raise ConfigError(f"{output}: holds no run to resume; expected {output / CONFIG}.")
        return load_config(output / CONFIG, overrides), output
    folder = output or Path("runs") / config_file.stem
    config = load_config(config_file, overrides)
    checkpoint = find_checkpoint(folder, resume)
    # A start that failed before its first epoch may have left a config; it does not bind.
    if checkpoint and config != load_config(folder / CONFIG):
        raise ConfigError(
            f"{config_file}: differs from the config of the run, {folder / CONFIG}. Leave out "
            "--config to resume with the run's own."
        )
    return config, folder


def find_checkpoint(folder: Path, resume: bool) -> Path | None:
    """Finds the checkpoint to resume from.

    Args:
        folder: the run's folder; need not exist.
        resume: whether the run in the folder is to be continued.

    Returns:
        Path of its `last.keras`, or None if no epoch is complete.

    Raises:
        ConfigError: if there is a checkpoint that a new run would overwrite.
    """
    checkpoint = folder / LAST
    if not checkpoint.exists():
        return None
    if not resume:
        raise ConfigError(
            f"{folder}: holds a run already. Continue it with --resume, or choose another folder "
            "with --output DIR."
        )
    return checkpoint


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a folder; the lock ends with the process, however that ends.

    Args:
        folder: the run's folder; made if it does not exist.

    Raises:
        ConfigError: if another process trains in this folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run_lock = FileLock(folder / LOCK)
    try:
        run_lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"{folder}: another process is training in this folder. Wait for its end, or choose "
            "another folder with --output DIR."
        ) from None
    try:
        yield
    finally:
        run_lock.release()


def describe_run(config: Config, folder: Path) -> None:
    """Saves the complete config, the versions and the seed of a run.

    Args:
        config: the whole config.
        folder: the run's folder.
    """
    import keras  # here, as resuming is checked before it is loaded

    packages = (keras.backend.backend(), "keras", "numpy", "pillow")
    run = {
        "kmatting": __version__,
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
        "platform": platform.platform(),
        "seed": config.seed,
    }
    with whole_file(folder / "run.json") as partial:
        partial.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    with whole_file(folder / CONFIG) as partial:
        save_config(config, partial)


def starting_licence(weights: Path | None) -> str | None:
    """Returns the terms of the weights that a run starts from, if their file states them.

    Args:
        weights: `model.weights` of the config.
    """
    path = None if weights is None else find_weights(weights)
    if path is None or path.suffix != ".keras" or not path.is_file():
        return None
    licence: str | None = read_metadata(path).get("licence")
    return licence


def write_state(
    checkpoint: Path,
    epoch: int,
    best: float,
    size: tuple[int, int],
    licence: str | None = None,
) -> None:
    """Adds the state of a run to a `.keras` file, which is a zip archive.

    Args:
        checkpoint: the file.
        epoch: complete epochs.
        best: lowest validation MAD so far, infinite without any.
        size: height and width in pixels that the network is trained at.
        licence: terms of the weights that the run started from, if known.
    """
    lowest = best if math.isfinite(best) else None
    state = RunState(epoch=epoch, best=lowest, size=size, licence=licence)
    with zipfile.ZipFile(checkpoint, "a") as archive:
        archive.writestr(METADATA, state.model_dump_json())


def read_state(checkpoint: Path) -> RunState:
    """Reads the state of a run from its `last.keras`.

    Args:
        checkpoint: the file.

    Returns:
        The state.

    Raises:
        CheckpointError: if the file is damaged, or not the checkpoint of a run.
    """
    try:
        metadata = read_metadata(checkpoint)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    if not metadata:
        raise CheckpointError(f"{checkpoint}: not a checkpoint of a run; it holds no {METADATA}.")
    try:
        return RunState.model_validate(metadata)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"]))
        raise CheckpointError(
            f"{checkpoint}: damaged {METADATA}: {key}: {problem['msg']}."
        ) from error


def how_to_resume(folder: Path) -> str:
    """Returns a line that says how to continue a run that was stopped.

    Args:
        folder: the run's folder.
    """
    checkpoint = folder / LAST
    try:
        epochs = read_state(checkpoint).epoch if checkpoint.is_file() else 0
    except CheckpointError:
        return f"{checkpoint} is damaged"
    complete = f"{counted(epochs, 'epoch')} complete"
    return f"{complete}; resume with: kmatting train --resume --output {folder}"
