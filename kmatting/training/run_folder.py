"""The folder of a training run: its config, its checkpoints, and how to go on with it."""

import importlib.metadata
import json
import math
import platform
import zipfile
from collections.abc import Sequence
from pathlib import Path

from kmatting import __version__
from kmatting.config import Config, ConfigError, load_config, save_config
from kmatting.images import whole_file
from kmatting.inference.metadata import METADATA

CONFIG = "config.yaml"
LAST = "last.keras"
BEST = "best.keras"


class CheckpointError(ValueError):
    """A checkpoint that a run cannot go on from; the message names it."""


def open_run(
    config_file: Path | None, overrides: Sequence[str], output: Path | None, resume: bool
) -> tuple[Config, Path]:
    """Finds the config and the folder of a new or a resumed run.

    Args:
        config_file: YAML file; may be left out to resume with the run's own.
        overrides: `a.b=value` strings, laid over the file.
        output: the run's folder, `runs/` and the config's name by default.
        resume: whether to go on with the run that the folder holds.

    Returns:
        The config and the folder.

    Raises:
        ConfigError: if there is no config, nothing to resume, or a run where a new one should be.
    """
    if config_file is None:
        if output is None or not resume:
            raise ConfigError("Expected --config FILE, or --resume with --output DIR.")
        if not (output / CONFIG).exists():
            raise ConfigError(f"{output}: holds no run to resume; expected {output / CONFIG}.")
        return load_config(output / CONFIG, overrides), output
    folder = output or Path("runs") / config_file.stem
    config = load_config(config_file, overrides)
    saved = folder / CONFIG
    if saved.exists() and not resume:
        raise ConfigError(
            f"{folder}: holds a run already. Go on with it: --resume; or choose another "
            "folder: --output DIR."
        )
    if saved.exists() and config != load_config(saved):
        raise ConfigError(
            f"{config_file}: differs from the config of the run, {saved}. Leave --config away to "
            "resume with the run's own."
        )
    return config, folder


def describe_run(config: Config, folder: Path) -> None:
    """Saves the resolved config, the versions and the seed with a run.

    Args:
        config: the whole config.
        folder: the run's folder.
    """
    packages = ("tensorflow", "keras", "numpy", "pillow")
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


def write_state(checkpoint: Path, epoch: int, best: float, size: tuple[int, int]) -> None:
    """Adds to a `.keras` file, a zip archive, where its run stands.

    Args:
        checkpoint: the file.
        epoch: number of whole epochs.
        best: lowest validation MAD so far, infinite without any.
        size: height and width that the network is trained at.
    """
    state = {"epoch": epoch, "best": best if math.isfinite(best) else None, "size": size}
    with zipfile.ZipFile(checkpoint, "a") as archive:
        archive.writestr(METADATA, json.dumps(state))


def read_state(checkpoint: Path) -> tuple[int, float]:
    """Reads where a run stands from its `last.keras`.

    Args:
        checkpoint: file that `write_state` was called on.

    Returns:
        The number of whole epochs, and the lowest validation MAD so far (infinite without any).

    Raises:
        CheckpointError: if the file is damaged or is no checkpoint of a run.
    """
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            state = json.loads(archive.read(METADATA))
    except (zipfile.BadZipFile, KeyError) as error:
        raise CheckpointError(
            f"{checkpoint}: not a checkpoint of a training run ({error})."
        ) from error
    return state["epoch"], math.inf if state["best"] is None else state["best"]


def how_to_resume(folder: Path) -> str:
    """Says how to go on with a run that was stopped.

    Args:
        folder: the run's folder.

    Returns:
        One line with the command.
    """
    checkpoint = folder / LAST
    epochs = read_state(checkpoint)[0] if checkpoint.is_file() else 0
    return (
        f"{epochs} whole epochs are kept. "
        f"Go on with: python -m kmatting.train --resume --output {folder}"
    )
