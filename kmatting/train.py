"""Trains a matting network: `python -m kmatting.train --config configs/quickstart.yaml`."""

import argparse
import importlib.metadata
import json
import platform
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kmatting import __version__
from kmatting.config import Config, ConfigError, TrainingConfig, load_config, save_config
from kmatting.images import whole_file
from kmatting.quiet import quiet

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

        from kmatting import callbacks
        from kmatting.data.pipeline import build
        from kmatting.models import build_model, encoder_layers

        strategy = _strategy(config.training)
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.training.precision)
    data = build(config.data, config.seed, config.training.batch_size)
    print(
        f"{data.train_samples} samples to train on, {data.validation_samples} to validate on, "
        f"{strategy.num_replicas_in_sync} replica(s). Run: {folder}"
    )
    with strategy.scope():
        model = build_model(config.model)
        optimizer = _optimizer(config.training, data.steps_per_epoch)
        # Built here and not by the first step, which would then have to be traced twice.
        _compile(model, optimizer, config.training)
        model.optimizer.build(model.trainable_variables)
    first_epoch, best = 0, float("inf")
    checkpoint = folder / callbacks.LAST
    if checkpoint.is_file():
        first_epoch, best = callbacks.read_state(checkpoint)
        model.load_weights(checkpoint)
    _describe_run(config, folder)

    watchers = [
        callbacks.StopOnNaN(),
        callbacks.Throughput(config.training.batch_size),
        callbacks.Checkpoint(folder, best),
        callbacks.CSVLog(folder / "log.csv", first_epoch),
        callbacks.TensorBoard(folder / "tensorboard"),
        callbacks.Panel(folder, *data.panel_samples(config.training.panel_samples)),
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
                _compile(model, optimizer, config.training)
        with data.clear_errors():
            model.fit(
                data.train(begin),
                validation_data=data.validation(),
                initial_epoch=begin,
                epochs=end,
                steps_per_epoch=data.steps_per_epoch,
                callbacks=watchers,
                shuffle=False,  # the data is, already
                verbose=1 if sys.stdout.isatty() else 2,
            )
    print(f"Trained {config.training.epochs} epochs. Look at {folder / 'panel.png'}")


def _strategy(config: TrainingConfig) -> Any:
    """Makes the strategy over the chosen devices: all GPUs, or else the CPU."""
    import tensorflow as tf

    if config.cpu_replicas > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        replicas = [tf.config.LogicalDeviceConfiguration()] * config.cpu_replicas
        tf.config.set_logical_device_configuration(cpu, replicas)
        devices = [f"CPU:{index}" for index in range(config.cpu_replicas)]
    else:
        known = [device.name.split("device:")[-1] for device in tf.config.list_logical_devices()]
        devices = config.devices or [name for name in known if name.startswith("GPU")] or ["CPU:0"]
        if missing := sorted(set(devices) - set(known)):
            raise ConfigError(
                f"training.devices: there is no {', '.join(missing)} here, only {', '.join(known)}."
            )
    if config.batch_size % len(devices):
        raise ConfigError(
            f"training.batch_size: expected a multiple of the {len(devices)} replicas, "
            f"received {config.batch_size}."
        )
    return tf.distribute.MirroredStrategy(devices)


def _optimizer(config: TrainingConfig, steps_per_epoch: int) -> Any:
    """Makes Adam with its learning-rate schedule."""
    import keras

    from kmatting.optimizers import Adam

    rate: Any = config.learning_rate
    schedule = config.schedule
    if schedule.kind == "cosine" or schedule.warmup_epochs:
        warmup = round(schedule.warmup_epochs * steps_per_epoch)
        rate = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else config.learning_rate,
            warmup_target=config.learning_rate if warmup else None,
            warmup_steps=warmup,
            decay_steps=max(1, config.epochs * steps_per_epoch - warmup),
            alpha=schedule.final if schedule.kind == "cosine" else 1.0,
        )
    return Adam(
        learning_rate=rate,
        beta_1=config.beta_1,
        beta_2=config.beta_2,
        global_clipnorm=config.clip_norm,
    )


def _compile(model: Any, optimizer: Any, config: TrainingConfig) -> None:
    """Compiles a model with the loss and the figures that are logged."""
    import keras

    from kmatting.keras_metrics import MAD, MSE, SAD
    from kmatting.losses import L1SSIMLoss, l1, ssim_loss

    parts = [keras.metrics.MeanMetricWrapper(part, part.__name__) for part in (l1, ssim_loss)]
    model.compile(
        optimizer=optimizer,
        loss=L1SSIMLoss(config.l1_weight, config.ssim_weight),
        weighted_metrics=[*parts, SAD(), MSE(), MAD()],
        jit_compile=config.jit,
    )


def _describe_run(config: Config, folder: Path) -> None:
    """Saves the resolved config, the versions and the seed with the run."""
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
    with whole_file(folder / "config.yaml") as partial:
        save_config(config, partial)


def _open_run(args: argparse.Namespace) -> tuple[Config, Path]:
    """Finds the config and the folder of a new or a resumed run."""
    if not args.config and not (args.resume and args.output):
        raise ConfigError("Expected --config FILE for a new run, or --resume with --output DIR.")
    folder = args.output or Path("runs") / args.config.stem
    saved = folder / "config.yaml"
    if not args.resume:
        if saved.exists():
            raise ConfigError(
                f"{folder}: holds a run already. Go on with it: --resume; or choose another "
                "folder: --output DIR."
            )
        return load_config(args.config, args.set), folder
    if not saved.exists() and not args.config:
        raise ConfigError(f"{folder}: holds no run to resume; expected {saved}.")
    config = load_config(args.config or saved, args.set)
    if args.config and saved.exists() and config != load_config(saved):
        raise ConfigError(
            f"{args.config}: differs from the config of the run, {saved}. Leave --config away to "
            "resume with the run's own."
        )
    return config, folder


def _how_to_resume(folder: Path) -> str:
    from kmatting.callbacks import LAST, read_state

    checkpoint = folder / LAST
    epochs = read_state(checkpoint)[0] if checkpoint.is_file() else 0
    return (
        f"stopped; {epochs} whole epochs are kept. "
        f"Go on with: python -m kmatting.train --resume --output {folder}"
    )


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
        config, folder = _open_run(args)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill is a Ctrl-C
    try:
        train(config, folder)
    except KeyboardInterrupt:
        print(f"\n{_how_to_resume(folder)}", file=sys.stderr)
        return 130
    except _expected_errors() as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _expected_errors() -> tuple[type[Exception], ...]:
    """Lists what may go wrong through no fault of the program."""
    from kmatting.callbacks import CheckpointError, NaNLossError
    from kmatting.data.pairs import DataError

    return CheckpointError, ConfigError, DataError, NaNLossError, OSError


if __name__ == "__main__":
    sys.exit(main())
