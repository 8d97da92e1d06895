"""Trains a matting network: `kmatting train --config configs/quickstart.yaml`."""

import argparse
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kmatting.callable_module import CallableModule
from kmatting.cli import command, make_parser, say
from kmatting.errors import DeviceMemoryError, LostWorkerError, UsageError
from kmatting.keras_setup import import_keras
from kmatting.quiet import quiet
from kmatting.terminal import counted
from kmatting.training.ending import ends_data_threads

if TYPE_CHECKING:
    from kmatting.config import Config

__all__ = ["main", "train"]

EXAMPLES = """examples:
  a first look, on built-in synthetic data:
    kmatting train --config configs/quickstart.yaml
  your own photos and mattes, paired by file name:
    kmatting train --config configs/model2.yaml --output runs/mine \\
      --set data.train.0.images=photos data.train.0.alphas=mattes
  resume a run that was stopped:
    kmatting train --resume --output runs/mine
  watch it:
    tensorboard --logdir runs
"""


def train(
    config: "str | os.PathLike[str] | Config | None" = None,
    output: str | os.PathLike[str] | None = None,
    resume: bool = False,
    set: Sequence[str] | Mapping[str, Any] = (),
) -> Path:
    """Trains a network, as `kmatting train` does, whose options the arguments are.

    Sets Keras's global random seed and dtype policy. Prints the progress.

    Args:
        config: config of the run: a YAML file, or a `kmatting.config.Config`. Can be left out to
            resume a run with its own.
        output: the run's folder; by default `runs/` and the name of the config. Receives
            `config.yaml` and `run.json` (what was run), `last.keras`, `best.keras`, `log.csv`,
            `panel.png`, `panels/` and `tensorboard/`.
        resume: whether to continue the run in the folder from its last complete epoch. A folder
            without a complete epoch starts from the beginning.
        set: keys of the config to override: `{"training.epochs": 10}`, or
            `["training.epochs=10"]`.

    Returns:
        The run's folder.

    Raises:
        ConfigError: if the config is wrong, or the devices, the weights or the batch size do not
            fit, or if the folder holds another run.
        DataError: if the data cannot be used.
        CheckpointError: if the run cannot be resumed because a file is damaged.
        NaNLossError: if the loss becomes NaN or infinite.
        WorkersDifferError: if the workers of a cluster were started with different settings.
        LostWorkerError: if another worker of the cluster ended.
        DeviceMemoryError: if a step needs more memory than the device has.

    Examples:
        >>> run = kmatting.train("configs/model2.yaml", set={"data.train.0.images": "photos"})
        >>> matter = kmatting.Matter(run / "best.keras")
    """
    from kmatting.config import Config
    from kmatting.training.run_folder import how_to_resume, open_run

    folder = None if output is None else Path(output)
    if isinstance(config, Config):
        if folder is None or set:
            raise UsageError(
                "With a Config, train() needs `output`, and takes no `set`: change the Config."
            )
    else:
        file = None if config is None else Path(config)
        config, folder = open_run(file, set, folder, resume)
    try:
        _train(config, folder, resume)
    except (KeyboardInterrupt, OSError, DeviceMemoryError, LostWorkerError) as error:
        error.add_note(how_to_resume(folder))
        raise
    return folder


@ends_data_threads
def _train(config: "Config", folder: Path, resume: bool) -> None:
    """Trains a network and writes everything about the run to a folder."""
    with quiet():
        keras = import_keras(prefer_tensorflow=True)

        from kmatting.data.pipeline import build
        from kmatting.training import replicas, run_folder
        from kmatting.training.callbacks import make_callbacks
        from kmatting.training.devices import make_strategy, read_cluster
        from kmatting.training.fitting import fit
        from kmatting.training.network import make_network

        cluster = read_cluster()
        strategy = make_strategy(config.training, cluster)
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.training.precision)

    data = build(
        config.data, config.seed, config.training.batch_size, cluster.index, cluster.workers
    )
    say(
        f"{counted(data.train_samples, 'sample')} to train on, "
        f"{data.validation_samples} to validate on, "
        f"{counted(strategy.num_replicas_in_sync, 'replica')}. Run: {folder}"
    )
    checkpoint = run_folder.find_checkpoint(folder, resume)
    if cluster.workers > 1:
        replicas.check_alike(
            strategy,
            config=config.model_dump_json(exclude={"data"}),
            data=data.description(),
            checkpoint=checkpoint.read_bytes() if checkpoint else b"",
        )

    # Only the chief writes to the folder.
    with run_folder.lock(folder) if cluster.is_chief else contextlib.nullcontext():
        # Another run may have written one before the lock.
        checkpoint = run_folder.find_checkpoint(folder, resume)
        state = run_folder.read_state(checkpoint) if checkpoint else run_folder.RunState()
        if state.licence is None:
            state.licence = run_folder.starting_licence(config.model.weights)
        model = make_network(config, strategy, data.steps_per_epoch, checkpoint)
        callbacks = make_callbacks(config, strategy, folder, data, model, state, cluster.is_chief)
        if cluster.is_chief:
            run_folder.describe_run(config, folder)
        fit(model, strategy, config, data, callbacks, state.epoch, verbose=cluster.is_chief)
        if cluster.workers > 1:
            replicas.wait_for_all(strategy)
    say(f"Trained {counted(config.training.epochs, 'epoch')}. See {folder / 'panel.png'}")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("train", "Train a matting network.", EXAMPLES)
    parser.add_argument("--config", type=Path, metavar="FILE", help="config of the run, YAML")
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="override keys of the config, such as training.epochs=10",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder of the run (default: runs/CONFIG)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the run from its last complete epoch"
    )
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    train(**vars(_parse(argv)))
    return 0


sys.modules[__name__].__class__ = CallableModule

if __name__ == "__main__":
    sys.exit(main())
