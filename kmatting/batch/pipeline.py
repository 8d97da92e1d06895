"""Matting as steps of an Apache Beam pipeline, which runs on one machine or on many.

    find photos -> name what is made of each -> read -> network -> write

Only paths wait between machines, in the grouping by name; from there on each photo goes through all
steps before the next one is read, so that memory does not grow with their number. The workers
import this module: kmatting must be installed there, in the same version.
"""

import contextlib
import io
import itertools
import json
import logging
import os
import posixpath
import re
import shlex
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.io.fileio import MatchAll
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.io.textio import WriteToText
from apache_beam.metrics.metric import Metrics, MetricsFilter
from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, RunInference
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.portability.api import beam_provision_api_pb2 as provision
from apache_beam.pvalue import PCollection, TaggedOutput
from apache_beam.runners.portability.fn_api_runner.fn_runner import (
    ExtendedProvisionInfo,
    FnApiRunner,
)
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.runner import PipelineResult, PipelineState
from apache_beam.transforms.environments import (
    EmbeddedPythonEnvironment,
    Environment,
    SubprocessSDKEnvironment,
)
from PIL import Image

from kmatting.images import IMAGE_SUFFIXES, ImageError, Photo, read_photo
from kmatting.inference.cutout import PNG_LEVEL
from kmatting.inference.matte import Matte
from kmatting.inference.matter import Matter
from kmatting.quiet import quiet

ERRORS = "errors.jsonl"
KINDS = ("alpha", "cutout")
COUNTERS = ("found", "done", "skipped", "failed")
# Distributions of microseconds a photo; the second is RunInference's own.
STEPS = {"read": "read", "network": "inference_batch_latency_micro_secs", "write": "write"}
METRICS = "kmatting"  # the namespace of both

# At the level DEBUG, one word for what happened to a photo: "matched" and each of `COUNTERS`. A
# command can draw a progress bar of it, where the workers are in its own process.
_LOGGER = logging.getLogger(__name__)

# Suffixes that a photo's name loses.
_SUFFIXES = (*IMAGE_SUFFIXES, ".gif", ".ppm", ".avif", ".mpo")
# Here a file appears when all of it is there, and a rename would be a copy.
_OBJECT_STORES = ("gs", "s3", "azfs")
_PARTIAL = ".partial"  # folder of the output in which files are written before they are renamed


@dataclass(frozen=True)
class Settings:
    """What is to be made.

    Attributes:
        model: path or URL of a `.keras` file, a SavedModel folder or a `.tflite` file; None for the
            model that the kmatting of each worker ships.
        output: path or URL of the folder to write to.
        kinds: what to make of each photo, of `KINDS`.
        foreground: method of `kmatting.inference.foreground.estimate_foreground` for cutouts.
        size: as in `kmatting.inference.matter.Matter`.
        threads: as in `kmatting.inference.matter.Matter`, of each worker process.
    """

    model: str | None
    output: str
    kinds: tuple[str, ...] = ("alpha",)
    foreground: str = "ml"
    size: int | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Job:
    """One photo and the files to be made of it.

    Attributes:
        photo: path or URL.
        outputs: path or URL to write, by kind.
    """

    photo: str
    outputs: dict[str, str]


@dataclass(frozen=True)
class Summary:
    """What a job did.

    Attributes:
        counts: number of photos by each of `COUNTERS`.
        seconds: mean time of a photo by each of `STEPS`.
    """

    counts: dict[str, int]
    seconds: dict[str, float]


def run(pipeline: beam.Pipeline, patterns: Sequence[str], settings: Settings) -> Summary:
    """Runs a job and waits for its end.

    Args:
        pipeline: an empty pipeline.
        patterns: globs of photos, absolute paths or URLs.
        settings: what is to be made.

    Returns:
        What was done. `ERRORS` in the output folder lists what failed, or is not there.

    Raises:
        Exception: whatever the runner raises when the job breaks off.
    """
    clear_partial(settings.output)
    errors = FileSystems.join(partial_folder(settings.output), ERRORS)
    _ = build(pipeline, patterns, settings) | "errors" >> WriteToText(
        errors, num_shards=1, shard_name_template="", skip_if_empty=True
    )
    try:
        result = pipeline.run()
        state = result.wait_until_finish()
        if state != PipelineState.DONE:
            raise RuntimeError(f"it ended in the state {state}.")
        former = FileSystems.join(settings.output, ERRORS)
        if FileSystems.exists(former):
            FileSystems.delete([former])
        if FileSystems.exists(errors):
            FileSystems.rename([errors], [former])
    finally:
        clear_partial(settings.output)
    return _summarise(result)


def _summarise(result: PipelineResult) -> Summary:
    found = result.metrics().query(MetricsFilter().with_namespace(METRICS))
    counts = {each.key.metric.name: each.result for each in found["counters"]}
    times = {each.key.metric.name: each.result.mean / 1e6 for each in found["distributions"]}
    return Summary(
        {name: counts.get(name, 0) for name in COUNTERS},
        {step: times.get(name, 0.0) for step, name in STEPS.items()},
    )


def local_runner(options: PipelineOptions, verbose: bool = False) -> FnApiRunner:
    """Makes Beam's embedded runner.

    Its workers are processes of their own, or this process if there is only one. They are never
    threads of this process (`direct_running_mode=multi_threading`): in Beam 2.77 another thread
    flushes what these send every second, also in the middle of an element, and jobs of 100,000
    photos end in errors of decoding. Beam's default is to try another runner first, which it
    downloads.

    Args:
        options: Beam's; `direct_num_workers` is the number of workers.
        verbose: whether worker processes may write to the terminal.
    """
    environment: Environment = EmbeddedPythonEnvironment.default()
    if options.view_as(DirectOptions).direct_num_workers != 1:
        command = f"{shlex.quote(sys.executable)} -m apache_beam.runners.worker.sdk_worker_main"
        # What goes wrong in them comes to the runner by another way.
        command += "" if verbose else f" 2>{os.devnull}"
        environment = SubprocessSDKEnvironment.from_command_string(command)
    struct = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    info = ExtendedProvisionInfo(provision.ProvisionInfo(pipeline_options=struct))
    return FnApiRunner(environment, provision_info=info)


def build(pipeline: beam.Pipeline, patterns: Sequence[str], settings: Settings) -> PCollection:
    """Adds all steps to a pipeline.

    Args:
        pipeline: the pipeline.
        patterns: as in `run`.
        settings: what is to be made.

    Returns:
        What failed, as lines of JSON: `{"photo": path, "reason": text}`.
    """
    base = common_folder(patterns)
    named = (
        pipeline
        | "globs" >> beam.Create(list(patterns))
        | "match" >> MatchAll()
        | "path" >> beam.Map(lambda metadata: metadata.path).with_output_types(str)
        | "not an output" >> beam.Filter(_is_outside, settings.output)
        | "key" >> beam.Map(_keyed, base).with_output_types(tuple[str, str])
        | "group" >> beam.GroupByKey()
        | "name" >> beam.ParDo(_Name(base, settings)).with_outputs("failed", main="jobs")
    )
    read = named.jobs | "read" >> beam.ParDo(_Read()).with_outputs("failed", main="photos")
    handler = KeyedModelHandler(MattingHandler(settings.model, settings.size, settings.threads))
    written = (
        read.photos
        | "network" >> RunInference(handler)
        | "write" >> beam.ParDo(_Write(settings)).with_outputs("failed", main="done")
    )
    return (named.failed, read.failed, written.failed) | "failures" >> beam.Flatten()


def absolute(path: str) -> str:
    """Makes a local path or glob absolute, for workers with another working folder.

    Args:
        path: path or URL.

    Returns:
        Path or URL without a slash at its end.
    """
    if FileSystems.get_scheme(path) is not None:
        return path.rstrip("/")
    return os.path.normpath(Path(path).absolute())


def check_files(settings: Settings, patterns: Sequence[str]) -> None:
    """Finds out before a job starts whether its files can be used.

    Args:
        settings: what is to be made.
        patterns: as in `run`.

    Raises:
        ValueError: if a glob matches nothing, the model cannot be used, the output cannot be
            written or holds the photos, or a file system needs another extra of Beam.
    """
    if not _is_outside(common_folder(patterns) + "/", settings.output):
        raise ValueError(f"{settings.output}: holds the photos; choose another --output.")
    for pattern in patterns:
        (result,) = FileSystems.match([pattern], [1])
        is_local = FileSystems.get_scheme(pattern) is None
        if not result.metadata_list or (is_local and Path(pattern).is_dir()):
            raise ValueError(
                f"{pattern}: matches no files. Expected a photo, or a glob such as 'photos/*.jpg', "
                "or 'photos/**.jpg' for its folders too."
            )
    load_matter(settings.model, settings.size, settings.threads)
    probe = FileSystems.join(partial_folder(settings.output), "probe")
    try:
        FileSystems.create(probe).close()
        FileSystems.delete([probe])
    except OSError as error:
        raise ValueError(f"{settings.output}: cannot be written to ({error}).") from error


def clear_partial(output: str) -> None:
    """Deletes what a job, or one that was killed, left in the folder for what is not yet whole.

    Args:
        output: path or URL of the output folder.
    """
    folder = partial_folder(output)
    with contextlib.suppress(OSError):  # it is not there
        (found,) = FileSystems.match([folder + "/**"])
        FileSystems.delete([metadata.path for metadata in found.metadata_list])
    with contextlib.suppress(OSError):
        FileSystems.delete([folder])


def common_folder(patterns: Iterable[str]) -> str:
    """Finds the folder below which all globs match; names of outputs are relative to it.

    Args:
        patterns: globs, absolute paths or URLs.

    Returns:
        Path or URL without a slash at its end.
    """
    folders = [re.split(r"[*?\[]", pattern)[0].split("/")[:-1] for pattern in patterns]
    # Parts of the paths, as long as they are the same in all.
    common = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))
    return "/".join(parts[0] for parts in common)


def name_outputs(names: Sequence[str]) -> dict[str, str | None]:
    """Names what is made of the photos that share a `name_key`.

    A photo's name is its path without the suffix. Those that would be equal keep it, and so do
    those that end in another suffix without it (a.jpg.png): no name can then be that of a photo
    with another key.

    Args:
        names: different paths under the common folder, all with the same `name_key`.

    Returns:
        A path without suffix for each photo; None for one whose name differs from that of an
        earlier one by the case of letters only.
    """
    if len(names) == 1 and _stem(_stem(names[0])) == _stem(names[0]):
        return {names[0]: _stem(names[0])}
    taken: set[str] = set()
    outputs: dict[str, str | None] = {}
    for name in sorted(names):
        outputs[name] = None if name.casefold() in taken else name
        taken.add(name.casefold())
    return outputs


def name_key(name: str) -> str:
    """What photos have in common whose outputs may get equal names, in any case of letters.

    Args:
        name: path under the common folder.

    Returns:
        The path without the suffix, in one case of letters.
    """
    return _stem(name).casefold()


def _stem(name: str) -> str:
    stem, suffix = posixpath.splitext(name)
    return stem if suffix.lower() in _SUFFIXES else name


def _keyed(path: str, base: str) -> tuple[str, str]:
    _LOGGER.debug("matched")
    return name_key(path[len(base) + 1 :]), path


def _is_outside(path: str, folder: str) -> bool:
    return not path.startswith(folder.rstrip("/") + "/")


def write_whole(path: str, data: bytes, folder: str) -> None:
    """Writes a file so that it is seen when it is whole, whatever happens meanwhile.

    Args:
        path: path or URL of the file.
        data: all of it.
        folder: path or URL, on the same file system, of the folder for what is not yet whole.
            Unused for object stores, where a file appears when it is closed.
    """
    in_store = FileSystems.get_scheme(path) in _OBJECT_STORES
    partial = path if in_store else FileSystems.join(folder, f"{uuid.uuid4().hex}.png")
    try:
        with FileSystems.create(
            partial, mime_type="image/png", compression_type=CompressionTypes.UNCOMPRESSED
        ) as file:
            file.write(data)
        if not in_store:
            parent = path.rpartition("/")[0]
            if not FileSystems.exists(parent):
                with contextlib.suppress(OSError):  # another worker was faster
                    FileSystems.mkdirs(parent)
            FileSystems.rename([partial], [path])
    except OSError:
        with contextlib.suppress(OSError):
            FileSystems.delete([partial])
        raise


def partial_folder(output: str) -> str:
    """The folder for what is not yet whole.

    Args:
        output: path or URL of the output folder.

    Returns:
        Path or URL.
    """
    return FileSystems.join(output, _PARTIAL)


@contextlib.contextmanager
def local_copy(model: str) -> Iterator[Path]:
    """Fetches a model from wherever Beam can read it.

    Args:
        model: path or URL of a file or a SavedModel folder. A local one is used as it is.

    Yields:
        Path of the model on this machine, until the end of the block.

    Raises:
        ValueError: if there is none.
    """
    if FileSystems.get_scheme(model) is None:
        yield Path(model)
        return
    model = model.rstrip("/")
    with tempfile.TemporaryDirectory(prefix="kmatting-") as folder:
        home = model.rpartition("/")[0]
        found = FileSystems.match([model, model + "/**"])
        urls = [metadata.path for result in found for metadata in result.metadata_list]
        for url in urls:
            if url.endswith("/"):  # how object stores write an empty folder
                continue
            copy = Path(folder, *url[len(home) + 1 :].split("/"))
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(_read_bytes(url))
        if not urls:
            raise ValueError(f"{model}: no such file.")
        yield Path(folder, model.rpartition("/")[2])


def load_matter(model: str | None, size: int | None, threads: int | None) -> Matter:
    """Loads a model from wherever Beam can read it.

    Args:
        model: as in `local_copy`; the shipped model if None.
        size: as in `kmatting.inference.matter.Matter`.
        threads: as in `kmatting.inference.matter.Matter`.

    Raises:
        ValueError: as in `kmatting.inference.matter.Matter`.
    """
    if model is None:
        with quiet():
            return Matter(None, size, threads)
    with local_copy(model) as path:
        try:
            with quiet():
                return Matter(path, size, threads)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), model)) from error


class MattingHandler(ModelHandler[Photo, Matte | ValueError, Matter]):
    """Runs a matting model in Beam's RunInference.

    Each worker process loads the model once for all its threads (Beam's default). It is not shared
    across processes: a model is small (5 to 60 MB), while each photo and matte would have to be
    copied to and from the one process that holds it, and wait there for the others.

    Args:
        model: path or URL of the model; the shipped one if None.
        size: as in `kmatting.inference.matter.Matter`.
        threads: as in `kmatting.inference.matter.Matter`.
    """

    def __init__(
        self, model: str | None, size: int | None = None, threads: int | None = None
    ) -> None:
        # Photos differ in size and go through the network one at a time.
        super().__init__(min_batch_size=1, max_batch_size=1)
        self._model = model
        self._size = size
        self._threads = threads

    def load_model(self) -> Matter:
        """Loads the model, once in a process."""
        return load_matter(self._model, self._size, self._threads)

    def run_inference(
        self,
        batch: Sequence[Photo],
        model: Matter,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterator[Matte | ValueError]:
        """Takes the mattes; yields the error of a photo that the model has no matte for."""
        for photo in batch:
            try:
                yield model(photo)
            except ValueError as error:
                yield error

    def get_num_bytes(self, batch: Sequence[Photo]) -> int:
        """The size of the pixels; Beam would pickle them to find out."""
        return sum(photo.rgb.nbytes for photo in batch)

    def get_metrics_namespace(self) -> str:
        """Where RunInference counts."""
        return METRICS


class _Name(beam.DoFn):
    """Names the outputs of the photos that share a key."""

    def __init__(self, base: str, settings: Settings) -> None:
        self._base = base
        self._settings = settings

    def process(self, element: tuple[str, Iterable[str]]) -> Iterator[Any]:
        _, paths = element
        photos = {path[len(self._base) + 1 :]: path for path in paths}  # each once
        for name, output in name_outputs(list(photos)).items():
            _count("found")
            if output is None:
                yield _failure(photos[name], "its name differs from another's in case only.")
            else:
                yield Job(photos[name], self._outputs(output))

    def _outputs(self, name: str) -> dict[str, str]:
        output, kinds = self._settings.output, self._settings.kinds
        folders = {kind: f"{output}/{kind}" if len(kinds) > 1 else output for kind in kinds}
        return {kind: f"{folder}/{name}.png" for kind, folder in folders.items()}


class _Read(beam.DoFn):
    """Leaves out what is done, reads the rest."""

    def process(self, job: Job) -> Iterator[Any]:
        start = time.perf_counter()
        try:
            # Asked for each photo here and not once for all at the start: so this holds also when
            # a runner repeats work that it lost.
            missing = {
                kind: path for kind, path in job.outputs.items() if not FileSystems.exists(path)
            }
            if not missing:
                _count("skipped")
                return
            photo = read_photo(_read_bytes(job.photo))
        except (ImageError, OSError) as error:
            yield _failure(job.photo, str(error).removeprefix("image: "))
            return
        _count_time("read", start)
        yield replace(job, outputs=missing), photo


class _Write(beam.DoFn):
    """Makes the pictures of a matte and writes them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def process(self, element: tuple[Job, Any]) -> Iterator[Any]:
        job, matte = element
        if isinstance(matte, ValueError):
            yield _failure(job.photo, str(matte))
            return
        start = time.perf_counter()
        try:
            for kind, path in job.outputs.items():
                data = _encode(matte, kind, self._settings.foreground)
                write_whole(path, data, partial_folder(self._settings.output))
        except (ValueError, OSError) as error:
            yield _failure(job.photo, f"cannot be written: {error}")
            return
        _count("done")
        _count_time("write", start)


def _encode(matte: Matte, kind: str, foreground: str) -> bytes:
    """Makes one picture of a matte, as a PNG file."""
    encoded = io.BytesIO()
    if kind == "alpha":
        Image.fromarray(np.rint(matte.alpha * 255).astype(np.uint8)).save(encoded, "png")
    else:
        matte.cutout(foreground).save(encoded, "png", compress_level=PNG_LEVEL)
    return encoded.getvalue()


def _read_bytes(path: str) -> bytes:
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        return file.read()


def _failure(photo: str, reason: str) -> TaggedOutput:
    _count("failed")
    line = json.dumps({"photo": photo, "reason": reason}, ensure_ascii=False)
    return TaggedOutput("failed", line)


def _count(name: str) -> None:
    Metrics.counter(METRICS, name).inc()
    _LOGGER.debug(name)


def _count_time(step: str, start: float) -> None:
    Metrics.distribution(METRICS, step).update(int(1e6 * (time.perf_counter() - start)))
