"""Measures kmatting's speed on this machine: `kmatting benchmark`.

Every row runs in a process of its own, so that its memory is its own and nothing is warm from the
row before. A row's rate is also given as a share of what the machine can do: the rate of a large
matrix product, measured in the same process, since a shared machine is not as fast at one moment as
at another.
"""

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kmatting.cli import at_least, command, make_parser, say
from kmatting.errors import UsageError
from kmatting.files import check_writable, whole_file
from kmatting.images import write_image
from kmatting.networks.formats import load_network
from kmatting.networks.shipped import shipped_model
from kmatting.quiet import quiet
from kmatting.sizes import DEFAULT_SIZE, STRIDE

EXAMPLES = """\
examples:
  everything:
    kmatting benchmark
  only training, and the figures for a script:
    kmatting benchmark --train --json train.json
  the small encoder:
    kmatting benchmark --predict --encoder densenet121

rows:
  train      a step of fit: forward pass, backward pass, update. The batch is in memory already; the
             clock stops when the device has finished.
  predict    the network alone: from 8-bit pixels in memory to an alpha in memory. With a GPU, Keras
             and SavedModel rows include the copies to and from it; TFLite runs on the processor.
             Rows "from the shell" include all that kmatting predict does.
  data       reading and augmenting a sample, as processor time.

columns:
  ms         median time of a step, a photo or a sample
  images/s   images of a step by that time
  CPU ms     time that processors worked in a step or a photo, all threads together
  GFLOP/s    operations of the convolutions and matrix products in the graph, by that time
  of peak    GFLOP/s as a share of a large matrix product's, in the same process, on the same device
             and in the same precision (float32 for TFLite), copies left out
  first s    from the start of the process until the first step or photo is done
  MB         largest memory of the process
  includes   what was timed
"""

FORMATS = ("keras", "saved_model", "float32", "float16", "dynamic", "int8")
_ON_GPU = ("keras", "saved_model")  # where there is one
_NETWORK = "network, copies to and from a GPU"
_REPEATS = 7  # timed calls of which the median is taken
_WARM_UP = 2  # calls before them
# Side of the matrices that the machine's rate is measured with: large enough to keep it busy.
_MATRIX = {"CPU": 2048, "GPU": 8192}
_PAIR = (384, 512)  # height and width of the photos that are read
_PHOTO = (960, 1280)  # and of those that are predicted from the shell
_PHOTOS = 24  # of the folder that is predicted
_MEGAPIXELS = (0.3, 1.2, 3, 12, 24, 48)


@dataclass
class Row:
    """One line of the table; a figure that makes no sense in it is None.

    Attributes:
        group: `train`, `predict` or `data`.
        name: what was measured.
        includes: what was timed.
        milliseconds: median time of a step, a photo or a sample.
        images_per_second: by that time.
        gflops: billions of operations a second.
        share: `gflops` as a share of the machine's rate.
        first_seconds: from the start of the process until the first result.
        megabytes: largest memory of the process.
        processor_ms: time that processors worked in a step or a photo, all threads together.
    """

    group: str
    name: str
    includes: str
    milliseconds: float
    images_per_second: float
    gflops: float | None = None
    share: float | None = None
    first_seconds: float | None = None
    megabytes: float | None = None
    processor_ms: float | None = None


def training_step(
    encoder: str, name: str, size: int, batch: int, precision: str, recompute: bool = False
) -> Row:
    """Measures a training step on random images: loss, gradients, update.

    Args:
        encoder: as in a config.
        name: `model1` or `model2`.
        size: side of the images.
        batch: images a step.
        precision: Keras dtype policy.
        recompute: as in a config.

    Returns:
        The row; its operations are those of forward and backward pass.
    """
    start = time.perf_counter()
    with quiet():
        import keras
        import tensorflow as tf

        from kmatting import models
        from kmatting.config import TrainingConfig
        from kmatting.training.compiling import compile_model
        from kmatting.training.optimizer import make_optimizer
    imported = time.perf_counter() - start
    dtype = tf.bfloat16 if precision == "mixed_bfloat16" else tf.float32
    before = matrix_rate(dtype)

    start = time.perf_counter()
    keras.config.set_dtype_policy(precision)
    model = getattr(models, name)(encoder, encoder_weights="none")
    if recompute:
        models.recompute_dense_blocks(model)
    config = TrainingConfig(batch_size=batch)
    compile_model(model, make_optimizer(config, 1), config)
    images = tf.random.uniform((batch, size, size, 3))
    alphas = tf.random.uniform((batch, size, size, 1))
    data = tf.data.Dataset.from_tensors((images, alphas)).repeat()
    ends: list[float] = []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
            float(logs["loss"])  # waits for the device
            ends.append(time.perf_counter())

    steps = 1 + _WARM_UP + _REPEATS
    with quiet():
        model.fit(data, steps_per_epoch=steps, callbacks=[Clock()], verbose=0, shuffle=False)
    megabytes = peak_memory()
    seconds = statistics.median(np.diff(ends)[_WARM_UP:])
    after = matrix_rate(dtype)

    @tf.function
    def gradients(images: Any, alphas: Any) -> Any:
        with tf.GradientTape() as tape:
            cost = model.loss(alphas, model(images, training=True))
        return tape.gradient(cost, model.trainable_variables)

    count = operations(gradients.get_concrete_function(images, alphas).graph)
    return Row(
        "train",
        f"{name} {encoder} {size} px, batch {batch}, {precision.removeprefix('mixed_')}"
        + (", recomputed" if recompute else ""),
        "forward, backward, update",
        milliseconds=1000 * seconds,
        images_per_second=batch / seconds,
        gflops=count / seconds / 1e9,
        share=count / seconds / ((before + after) / 2),
        first_seconds=imported + ends[0] - start,
        megabytes=megabytes,
    )


def export_models(encoder: str, size: int, folder: str) -> int:
    """Writes an untrained Model 2 in every format.

    Args:
        encoder: as in a config.
        size: side of the TFLite files' images.
        folder: where `keras.keras`, `saved_model/` and `float32-SIZE.tflite` and so on go; the two
            that take any size are not written again.

    Returns:
        The operations of the network on one image.
    """
    with quiet():
        import tensorflow as tf

        from kmatting import models
        from kmatting.data.synthetic import sample
        from kmatting.exporting import tflite
        from kmatting.exporting.saved_model import export_saved_model

        model = models.model2(encoder, encoder_weights="none")
        if not (Path(folder) / "keras.keras").exists():
            model.save(Path(folder) / "keras.keras")
            export_saved_model(model, folder, "saved_model", max_size=10**6, warmup=False)
        photos = [sample(0, index, (size, size))[0] for index in range(4)]
        for variant in (kind for kind in FORMATS if kind in tflite.LIMITS):
            content = tflite.convert(model, (size, size), variant, photos)
            (Path(folder) / f"{variant}-{size}.tflite").write_bytes(content)
        run = tf.function(lambda image: model(image, training=False))
        return operations(run.get_concrete_function(tf.TensorSpec((1, size, size, 3))).graph)


def prediction(encoder: str, kind: str, size: int, folder: str, count: int) -> Row:
    """Measures the bare network on one photo, with all processors.

    Args:
        encoder: as in a config.
        kind: one of `FORMATS`.
        size: side of the photo.
        folder: what `export_models` wrote to.
        count: what it returned.

    Returns:
        The row.
    """
    start = time.perf_counter()
    path = _model_path(kind, size, Path(folder))
    photo = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8)
    with quiet():
        network = load_network(path)
        network.run(photo)
    first = time.perf_counter() - start
    seconds = median_seconds(lambda: network.run(photo))
    megabytes = peak_memory()
    with quiet():
        import tensorflow as tf
    return Row(
        "predict",
        f"model2 {encoder} {size} px, {kind}",
        _NETWORK,
        milliseconds=1000 * seconds,
        images_per_second=1 / seconds,
        gflops=count / seconds / 1e9,
        share=count / seconds / matrix_rate(tf.float32, on_processor=kind not in _ON_GPU),
        first_seconds=first,
        megabytes=megabytes,
    )


def shipped() -> Row:
    """Measures the bare network that kmatting ships, with all processors."""
    start = time.perf_counter()
    network = load_network(shipped_model())
    height, width = network.frame or (DEFAULT_SIZE, DEFAULT_SIZE)
    photo = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    network.run(photo)
    first = time.perf_counter() - start
    before = time.process_time()
    seconds = median_seconds(lambda: network.run(photo))
    processor = (time.process_time() - before) / (_WARM_UP + _REPEATS)
    return Row(
        "predict",
        f"shipped model, {height}x{width}",
        _NETWORK,
        milliseconds=1000 * seconds,
        images_per_second=1 / seconds,
        processor_ms=1000 * processor,
        first_seconds=first,
        megabytes=peak_memory(),
    )


def from_the_shell(folder: Path) -> list[Row]:
    """Measures `kmatting predict` with the model that kmatting ships.

    Args:
        folder: for photos.

    Returns:
        Rows for the mattes and the cutouts of one photo, and for the mattes of a folder; the
        latter's time is what a photo more costs, the start left out.
    """
    photos = _write_photos(folder / "photos", _PHOTO, _PHOTOS)
    _predict(photos[0], "--alpha")  # reads the files of the interpreter once
    rows = []
    what = f"shipped model from the shell, {_PHOTO[1]}x{_PHOTO[0]} JPEG"
    for kind in ("alpha", "cutout"):
        runs = [_predict(photos[0], f"--{kind}") for _ in range(_REPEATS)]
        rows.append(_shell_row(f"{what} to {kind}: one photo", "start, all steps", runs))
    one = rows[0].milliseconds
    runs = [_predict(folder / "photos", "--alpha") for _ in range(3)]
    row = _shell_row(f"{what} to alpha: each more", "all steps", runs)
    row.milliseconds = (row.milliseconds - one) / (_PHOTOS - 1)
    row.processor_ms = ((row.processor_ms or 0) - (rows[0].processor_ms or 0)) / (_PHOTOS - 1)
    row.images_per_second = 1000 / row.milliseconds
    return [*rows, row]


def by_megapixels(folder: Path) -> Iterator[Row]:
    """Measures `kmatting predict` on photos from 0.3 to 48 megapixels.

    Args:
        folder: for photos.

    Yields:
        A row for the matte and one for the cutout of each size.
    """
    for megapixels in _MEGAPIXELS:
        height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
        size = (height, height * 4 // 3)
        (photo,) = _write_photos(folder / f"{megapixels}", size, 1)
        for kind in ("alpha", "cutout"):
            runs = [_predict(photo, f"--{kind}") for _ in range(3)]
            yield _shell_row(f"from the shell, {megapixels} MP to {kind}", "start, all steps", runs)


def _write_photos(folder: Path, size: tuple[int, int], count: int) -> list[Path]:
    """Writes synthetic photos; large ones are enlarged, as drawing them would take minutes."""
    from kmatting.data.synthetic import sample

    paths = [folder / f"{index:03d}.jpg" for index in range(count)]
    for index, path in enumerate(paths):
        photo = Image.fromarray(sample(1, index, _PHOTO)[0])
        write_image(path, photo.resize(size[::-1], Image.Resampling.BICUBIC), quality=90)
    return paths


def _predict(source: Path, kind: str) -> tuple[float, float, float]:
    """Runs `kmatting predict`; returns its seconds, its processor seconds and its memory in MB."""
    with tempfile.TemporaryDirectory() as output:
        arguments = [sys.executable, "-m", "kmatting", "predict", str(source), "-o", output, kind]
        start = time.perf_counter()
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UsageError(f"kmatting predict {source} failed with status {process.returncode}.")
    return seconds, usage.ru_utime + usage.ru_stime, _in_megabytes(usage.ru_maxrss)


def _shell_row(name: str, includes: str, runs: Sequence[tuple[float, float, float]]) -> Row:
    seconds, processor, megabytes = (statistics.median(each) for each in zip(*runs, strict=True))
    return Row(
        "predict",
        name,
        includes,
        milliseconds=1000 * seconds,
        images_per_second=1 / seconds,
        processor_ms=1000 * processor,
        megabytes=megabytes,
    )


def reading(kind: str, size: int) -> Row:
    """Measures the input pipeline alone, augmented as in training, on one processor.

    Args:
        kind: `pairs`, `composite` or `synthetic`.
        size: side of the samples.

    Returns:
        The row: processor time, not wall time, so that it is per core whatever runs beside it.
    """
    with quiet():
        from kmatting.config import DataConfig
        from kmatting.data.pipeline import build
        from kmatting.data.synthetic import layers, sample
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index in range(16):
            image, alpha = sample(0, index, _PAIR)
            write_image(folder / "image" / f"{index}.jpg", image, quality=90)
            write_image(folder / "alpha" / f"{index}.png", alpha)
            write_image(folder / "background" / f"{index}.jpg", layers(0, index, _PAIR)[2])
        sources: dict[str, dict[str, Any]] = {
            "pairs": {"images": folder / "image", "alphas": folder / "alpha"},
            "composite": {
                "foregrounds": folder / "image",
                "alphas": folder / "alpha",
                "backgrounds": folder / "background",
            },
            "synthetic": {},
        }
        train = [{"kind": kind, **sources[kind]}]
        config = DataConfig.model_validate({"train": train, "validation": 0.0, "size": size})
        batches = iter(build(config, 0, 8).train())
        next(batches)
        start = time.process_time()
        count = 30
        for _ in range(count):
            next(batches)
        seconds = (time.process_time() - start) / (8 * count)
    return Row(
        "data",
        f"{kind} {size} px, per core",
        "read, augment",
        1000 * seconds,
        1 / seconds,
        megabytes=peak_memory(),
    )


def operations(graph: Any) -> int:
    """Counts the operations of a graph's convolutions and matrix products.

    A multiplication and an addition count as two. All else (batch norm, activations, resizing,
    SSIM's blurring) moves memory rather than computes, and is not counted.

    Args:
        graph: a `tf.Graph` whose shapes are known.

    Returns:
        Their number.

    Raises:
        ValueError: if a shape is not known.
    """
    total = 0
    for node in graph.get_operations():
        if node.type == "Conv2D":
            result, kernel = node.outputs[0].shape, node.inputs[1].shape
        elif node.type == "Conv2DBackpropInput":
            result, kernel = node.inputs[2].shape, node.inputs[1].shape
        elif node.type == "Conv2DBackpropFilter":
            result, kernel = node.inputs[2].shape, node.outputs[0].shape
        elif node.type == "MatMul":
            left = node.inputs[0].shape
            inner = left[0] if node.get_attr("transpose_a") else left[1]
            total += 2 * math.prod(node.outputs[0].shape) * inner
            continue
        else:
            continue
        if not (result.is_fully_defined() and kernel.is_fully_defined()):
            raise UsageError(f"{node.name}: expected known shapes, received {result} and {kernel}.")
        total += 2 * math.prod(result) * math.prod(kernel[:3])
    return total


def matrix_rate(dtype: Any, on_processor: bool = False) -> float:
    """Measures what the machine can do.

    Args:
        dtype: TensorFlow dtype.
        on_processor: whether to leave out a GPU.

    Returns:
        Operations a second of a product of two large matrices, with TensorFlow's threads. Only one
        number is copied from the device.
    """
    import tensorflow as tf

    has_gpu = bool(tf.config.list_physical_devices("GPU")) and not on_processor
    device = "GPU" if has_gpu else "CPU"
    side = _MATRIX[device]
    with tf.device(f"{device}:0"):
        left = tf.cast(tf.random.normal((side, side)), dtype)
        right = tf.cast(tf.random.normal((side, side)), dtype)
        # The sum needs the whole product, and takes a thousandth of its operations.
        product = tf.function(lambda: tf.reduce_sum(tf.matmul(left, right)))
        return 2 * side**3 / median_seconds(lambda: product().numpy())


def median_seconds(run: Callable[[], Any]) -> float:
    """Times a call a few times after a few that do not count; returns the median."""
    for _ in range(_WARM_UP):
        run()
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_memory() -> float:
    """Returns the largest memory of this process so far, in MB."""
    return _in_megabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _in_megabytes(maxrss: int) -> float:
    return maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def machine() -> dict[str, Any]:
    """Describes the machine and the versions; measures its matrix products."""
    with quiet():
        import tensorflow as tf
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpus": len(tf.config.list_physical_devices("GPU")),
        "load": os.getloadavg()[0],
        "float32_gflops": matrix_rate(tf.float32) / 1e9,
        "bfloat16_gflops": matrix_rate(tf.bfloat16) / 1e9,
        "python": platform.python_version(),
        **{name: version(name) for name in ("tensorflow", "keras", "numpy", "pillow", "kmatting")},
    }


def measure(args: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Measures what was asked for, a row at a time.

    Args:
        args: the command's.
        folder: for models and photos.

    Yields:
        The rows, as soon as each is there.
    """
    everything = not (args.train or args.predict or args.shell or args.data)
    encoder = args.encoder
    if args.train or everything:
        for size in args.train_sizes:
            batch = 4 if size <= 256 else 2
            for name in ("model1", "model2"):
                for precision in ("float32", "mixed_bfloat16"):
                    yield _alone(training_step, encoder, name, size, batch, precision)
            if encoder.startswith("densenet"):
                yield _alone(training_step, encoder, "model2", size, batch, "float32", True)
    if args.predict or everything:
        for size in args.sizes:
            count = _alone(export_models, encoder, size, str(folder))
            for kind in FORMATS:
                yield _alone(prediction, encoder, kind, size, str(folder), count)
    if args.predict or args.shell or everything:
        yield _alone(shipped)
        yield from from_the_shell(folder)
    if args.shell or everything:
        yield from by_megapixels(folder)
    if args.data or everything:
        for kind in ("pairs", "composite", "synthetic"):
            yield _alone(reading, kind, 256)


def _alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def _model_path(kind: str, size: int, folder: Path) -> Path:
    names = {"keras": "keras.keras", "saved_model": "saved_model"}
    return folder / names.get(kind, f"{kind}-{size}.tflite")


def _processor() -> str:
    """Names the processor, as well as the system knows it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _format(row: Row) -> str:
    """Writes a row as a line of the table."""

    def cell(value: float | None, form: str) -> str:
        width = form.partition(".")[0]
        return " " * int(width) if value is None else f"{value:{form}}"

    share = "" if row.share is None else f"{row.share:.0%}"
    return (
        f"{row.group:8}{row.name:66}{row.milliseconds:9.1f}{row.images_per_second:10.2f}"
        f"{cell(row.processor_ms, '9.1f')}{cell(row.gflops, '9.0f')}{share:>9}"
        f"{cell(row.first_seconds, '9.1f')}"
        f"{cell(row.megabytes, '8.0f')}  {row.includes}"
    )


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    from kmatting.models.names import ENCODERS

    parser = make_parser(
        "benchmark", "Measure kmatting's speed on this machine, which should be idle.", EXAMPLES
    )
    parser.add_argument("--train", action="store_true", help="measure training steps")
    parser.add_argument("--predict", action="store_true", help="measure prediction in every format")
    parser.add_argument(
        "--shell",
        action="store_true",
        help="measure only kmatting predict with the shipped model, on photos up to 48 megapixels",
    )
    parser.add_argument("--data", action="store_true", help="measure the input pipeline")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE too")
    parser.add_argument(
        "--encoder",
        default="densenet201",
        choices=ENCODERS,
        help="encoder of the networks (default: %(default)s)",
    )
    parser.add_argument(
        "--train-sizes",
        type=at_least(STRIDE),
        nargs="+",
        default=[256, 512],
        metavar="PIXELS",
        help="sides of the training images (default: 256 512)",
    )
    parser.add_argument(
        "--sizes",
        type=at_least(STRIDE),
        nargs="+",
        default=[512, 1024],
        metavar="PIXELS",
        help="sides of the photos to predict (default: 512 1024)",
    )
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parse(argv)
    if args.json:
        check_writable(args.json.parent)
    facts = _alone(machine)
    for name, value in facts.items():
        say(f"{name:16} {value if isinstance(value, str | int) else f'{value:.1f}'}")
    titles = f"{'ms':>9}{'images/s':>10}{'CPU ms':>9}{'GFLOP/s':>9}{'of peak':>9}"
    titles += f"{'first s':>9}{'MB':>8}"
    say(f"\n{'':74}{titles}  includes")
    rows = []
    with tempfile.TemporaryDirectory(prefix="kmatting-benchmark-") as folder:
        for row in measure(args, Path(folder)):
            say(_format(row))
            rows.append(asdict(row))
    if args.json:
        with whole_file(args.json) as partial:
            partial.write_text(json.dumps({"machine": facts, "rows": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
