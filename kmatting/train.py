"""Trains a matting network: `python -m kmatting.train --config configs/quickstart.yaml`."""

import argparse
import gc
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from kmatting.config import Config, ConfigError
from kmatting.quiet import quiet
from kmatting.training.run_folder import (
    LAST,
    CheckpointError,
    describe_run,
    how_to_resume,
    open_run,
    read_state,
)

EXAMPLES = """examples:
  a first look, on built-in synthetic data:
    python -m kmatting.train --config configs/quickstart.yaml
  own photos and mattes, matched by stem:
    python -m kmatting.train --config configs/model2.yaml --output runs/mine \\
      --set data.train.0.images=photos data.train.0.alphas=mattes
  go on with a run that was stopped:
    python -m kmatting.train --resume --output runs/mine
  watch it:
    tensorboard --logdir runs
"""


def train(config: Config, folder: Path) -> None:
    """Trains a network and keeps everything about the run in a folder.

    A run that the folder already holds goes on from its last whole epoch. Sets Keras's global
    random seed and dtype policy.

    Args:
        config: the whole config.
        folder: the run's folder; `config.yaml` and `run.json` (what was run), `last.keras`,
            `best.keras`, `log.csv`, `panel.png`, `panels/` and `tensorboard/` go there.

    Raises:
        ConfigError: if devices, weights or batch size do not fit.
        DataError: if the data cannot be used.
        NaNLossError: if the loss is no longer a number.
    """
    with quiet():
        import keras

        from kmatting.data.pipeline import build
        from kmatting.models import build_model, encoder_layers, recompute_dense_blocks
        from kmatting.training import callbacks, replicas
        from kmatting.training.compiling import compile_model
        from kmatting.training.devices import make_strategy, read_cluster
        from kmatting.training.optimizer import make_optimizer

        cluster = read_cluster()
        strategy = make_strategy(config.training, cluster)
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.training.precision)
    data = build(
        config.data, config.seed, config.training.batch_size, cluster.index, cluster.workers
    )
    print(
        f"{data.train_samples} samples to train on, {data.validation_samples} to validate on, "
        f"{strategy.num_replicas_in_sync} replica(s). Run: {folder}"
    )
    checkpoint = folder / LAST
    if cluster.workers > 1:
        replicas.check_alike(
            strategy,
            config=config.model_dump_json(exclude={"data"}),
            data=data.description(),
            checkpoint=checkpoint.read_bytes() if checkpoint.is_file() else b"",
        )
    with strategy.scope():
        model = build_model(config.model)
        if config.training.recompute:
            recompute_dense_blocks(model)
        optimizer = make_optimizer(config.training, data.steps_per_epoch)
        compile_model(model, optimizer, config.training)
    if cluster.workers > 1:
        replicas.let_keras_fit(model)
    first_epoch, best = 0, float("inf")
    if checkpoint.is_file():
        first_epoch, best = read_state(checkpoint)
        model.load_weights(checkpoint)

    watchers = [callbacks.StopOnNaN(), callbacks.Throughput(config.training.batch_size)]
    if strategy.num_replicas_in_sync > 1:
        watchers.append(replicas.MeanStatistics())
    if cluster.is_chief:
        for leftover in folder.glob(".*.partial*"):  # of a run that was killed while it wrote
            leftover.unlink()
        describe_run(config, folder)
        watchers += [
            callbacks.CSVLog(folder / "log.csv", first_epoch),
            callbacks.TensorBoard(folder / "tensorboard"),
            callbacks.Panel(folder, *data.panel_samples(config.training.panel_samples)),
            # Last: an epoch counts once all about it is written.
            callbacks.Checkpoint(folder, config.data.size, best),
        ]
    thaw = min(config.model.freeze_encoder_epochs, config.training.epochs)
    for begin, end in ((0, thaw), (thaw, config.training.epochs)):
        begin = max(begin, first_epoch)
        if begin >= end:
            continue
        if thaw:
            for layer in encoder_layers(model):
                layer.trainable = end > thaw
            with strategy.scope():
                compile_model(model, optimizer, config.training)
        with data.clear_errors():
            model.fit(
                replicas.distribute(strategy, data.train(begin)),
                validation_data=replicas.distribute(strategy, data.validation()),
                initial_epoch=begin,
                epochs=end,
                steps_per_epoch=data.steps_per_epoch,
                validation_steps=data.validation_steps,
                callbacks=watchers,
                shuffle=False,  # the data is, already
                verbose=(1 if sys.stdout.isatty() else 2) if cluster.is_chief else 0,
            )
    if cluster.workers > 1:
        replicas.wait_for_all(strategy)
    print(f"Trained {config.training.epochs} epochs. Look at {folder / 'panel.png'}")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m kmatting.train",
        description="Train a matting network.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
        "--resume", action="store_true", help="go on from the last whole epoch of the run"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    args = _parse(argv)
    try:
        config, folder = open_run(args.config, args.set, args.output, args.resume)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill is a Ctrl-C
    try:
        train(config, folder)
    except KeyboardInterrupt:
        print(f"\nstopped; {how_to_resume(folder)}", file=sys.stderr)
        return 130
    except OSError as error:  # a full disk, most often
        print(f"error: {error}; {how_to_resume(folder)}", file=sys.stderr)
        return 2
    except _expected_errors() as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except _lost_worker():
        print(
            "error: another worker ended or cannot be reached; see what it said, then start all "
            f"again. {how_to_resume(folder)}",
            file=sys.stderr,
        )
        return 2
    finally:
        # Ends the threads that read data: at the interpreter's exit they would wait for each other.
        gc.collect()
    return 0


def _expected_errors() -> tuple[type[Exception], ...]:
    """Lists what may go wrong through no fault of the program."""
    from kmatting.data.pairs import DataError
    from kmatting.training.callbacks import NaNLossError
    from kmatting.training.replicas import WorkersDifferError

    return CheckpointError, ConfigError, DataError, NaNLossError, WorkersDifferError


def _lost_worker() -> type[Exception]:
    """Returns what TensorFlow raises when a worker is gone."""
    import tensorflow as tf

    return tf.errors.UnavailableError


if __name__ == "__main__":
    sys.exit(main())
