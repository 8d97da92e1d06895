"""Matting as steps of an Apache Beam pipeline, which runs on one machine or on many.

    find photos -> name what is made of each -> read -> network -> write

Only paths wait between machines, in the grouping by name; from there on each photo goes through all
steps before the next one is read, so that memory does not grow with their number. The workers
import this module: kmatting must be installed there, in the same version.
"""

import io
import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
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

from kmatting.batch.storage import (
    Glob,
    check_output,
    clear_partial,
    common_folder,
    delete,
    is_inside,
    list_glob,
    local_copy,
    namesakes,
    partial_folder,
    read_bytes,
    write_lines,
    write_whole,
)
from kmatting.errors import ImageError, UsageError
from kmatting.images import Photo, image_suffixes, read_photo
from kmatting.images.png import write_png
from kmatting.inference.matte import Matte
from kmatting.inference.matter import Matter
from kmatting.pictures.names import Job, is_output, name_clash, output_name
from kmatting.quiet import quiet
from kmatting.sizes import Size

ERRORS = "errors.jsonl"
WARNINGS = "warnings.jsonl"
KINDS = ("alpha", "cutout")
COUNTERS = ("found", "done", "skipped", "failed", "warned")
# Distributions of microseconds a photo; the second is RunInference's own.
STEPS = {"read": "read", "network": "inference_batch_latency_micro_secs", "write": "write"}
METRICS = "kmatting"  # the namespace of both

# At the level DEBUG, one word for what happened to a photo: "matched" and each of `COUNTERS`. A
# command can draw a progress bar of it, where the workers are in its own process.
_LOGGER = logging.getLogger(__name__)

_LEFT_OUT = "left out "  # a suffix follows, in names of counters


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
        keep_suffix: as in `kmatting.pictures.names.output_name`.
    """

    model: str | None
    output: str
    kinds: tuple[str, ...] = ("alpha",)
    foreground: str = "ml"
    size: Size | None = None
    threads: int | None = None
    keep_suffix: bool = False


@dataclass(frozen=True)
class Summary:
    """What a job did.

    Attributes:
        counts: number of photos by each of `COUNTERS`.
        seconds: mean time of a photo by each of `STEPS`.
        left_out: number of files that globs matched and that are not photos, by suffix.
    """

    counts: dict[str, int]
    seconds: dict[str, float]
    left_out: dict[str, int]


def run(pipeline: beam.Pipeline, globs: Sequence[Glob], settings: Settings) -> Summary:
    """Runs a job and waits for its end.

    Args:
        pipeline: an empty pipeline.
        globs: the photos.
        settings: what is to be made.

    Returns:
        What was done. `ERRORS` in the output folder lists what failed in this job, `WARNINGS` what
        was made of a part of a file, in this job or before. Without such photos they are not there.

    Raises:
        Exception: whatever the runner raises when the job breaks off.
    """
    clear_partial(settings.output)
    partial = {
        name: FileSystems.join(partial_folder(settings.output), name) for name in (ERRORS, WARNINGS)
    }
    lists = dict(zip(partial, build(pipeline, globs, settings), strict=True))
    for name, lines in lists.items():
        _ = (
            lines
            | f"gather {name}" >> beam.WithKeys(0)
            | f"one file of {name}" >> beam.GroupByKey()
            | f"write {name}" >> beam.Map(_write_list, partial[name])
        )
    try:
        result = pipeline.run()
        state = result.wait_until_finish()
        if state != PipelineState.DONE:
            raise RuntimeError(f"it ended in the state {state}.")
        for name, path in partial.items():
            _replace_list(FileSystems.join(settings.output, name), path)
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
        {
            name.removeprefix(_LEFT_OUT): count
            for name, count in counts.items()
            if name.startswith(_LEFT_OUT)
        },
    )


def _write_list(gathered: tuple[int, Iterable[str]], path: str) -> None:
    lines = (line.encode() + b"\n" for line in gathered[1])
    write_lines(path, lines, "application/x-ndjson")


def _replace_list(former: str, new: str) -> None:
    """Puts the list of this job in the place of the one before; warnings of that stay in it."""
    if former.endswith(WARNINGS) and FileSystems.exists(former):
        if not FileSystems.exists(new):
            return
        lines = dict.fromkeys((read_bytes(former) + read_bytes(new)).splitlines(keepends=True))
        write_lines(new, lines, "application/x-ndjson")
    if FileSystems.exists(former):
        delete(former)
    if FileSystems.exists(new):
        FileSystems.rename([new], [former])


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


def build(
    pipeline: beam.Pipeline, globs: Sequence[Glob], settings: Settings
) -> tuple[PCollection, PCollection]:
    """Adds all steps to a pipeline.

    Args:
        pipeline: the pipeline.
        globs: the photos.
        settings: what is to be made.

    Returns:
        What failed, as lines of JSON: `{"photo": path, "reason": text}`; and in the same way what
        was made of a part of a file.
    """
    base = common_folder(globs)
    named = (
        pipeline
        | "globs" >> beam.Create(list(globs))
        | "find" >> beam.ParDo(_Find(settings)).with_output_types(str)
        | "key" >> beam.Map(_keyed, base, settings).with_output_types(tuple[str, str])
        | "group" >> beam.GroupByKey()
        | "name" >> beam.ParDo(_Name(base, settings)).with_outputs("failed", main="jobs")
    )
    read = named.jobs | "read" >> beam.ParDo(_Read(settings)).with_outputs("failed", main="photos")
    handler = KeyedModelHandler(MattingHandler(settings.model, settings.size, settings.threads))
    written = (
        read.photos
        | "network" >> RunInference(handler)
        | "write" >> beam.ParDo(_Write(settings)).with_outputs("failed", "warned", main="done")
    )
    failed = (named.failed, read.failed, written.failed) | "failures" >> beam.Flatten()
    return failed, written.warned


def check_files(settings: Settings, globs: Sequence[Glob]) -> None:
    """Finds out before a job starts whether its files can be used.

    Args:
        settings: what is to be made.
        globs: the photos.

    Raises:
        ValueError: if a glob matches nothing, the model cannot be used, or the output folder cannot
            be written to or holds the photos.
    """
    for glob in globs:
        if next(list_glob(glob), None) is None:
            raise UsageError(
                f"{glob.path}: matches no files. Expected a photo, a folder, or a glob such as "
                "'photos/*.jpg', or 'photos/**.jpg' for the folders in it too."
            )
    load_matter(settings.model, settings.size, settings.threads)
    check_output(settings.output, globs)


def output_path(photo: str, kind: str, base: str, settings: Settings) -> str:
    """Names a file that is made of a photo.

    Args:
        photo: path or URL of the photo, below `base`.
        kind: one of `KINDS`.
        base: path or URL of the folder below which all photos lie.
        settings: what is to be made.

    Returns:
        Path or URL: below the output folder as the photo is below `base`.
    """
    inner = PurePosixPath(photo[len(base) + 1 :])
    name = output_name(inner.name, kind, keep_suffix=settings.keep_suffix)
    return f"{settings.output}/{inner.with_name(name)}"


def _keyed(photo: str, base: str, settings: Settings) -> tuple[str, str]:
    """Adds what photos have in common that would be written to one file."""
    _LOGGER.debug("matched")
    return output_path(photo, settings.kinds[0], base, settings).casefold(), photo


def load_matter(model: str | None, size: Size | None, threads: int | None) -> Matter:
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
            raise UsageError(str(error).replace(str(path), model)) from error


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
        self, model: str | None, size: Size | None = None, threads: int | None = None
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
        """Predicts mattes; yields the error of a photo for which the model gives none."""
        for photo in batch:
            try:
                yield model(photo)
            except ValueError as error:
                yield error
            except MemoryError:
                yield ImageError("not enough memory.")

    def get_num_bytes(self, batch: Sequence[Photo]) -> int:
        """The size of the pixels; Beam would pickle them to find out."""
        return sum(photo.rgb.nbytes for photo in batch)

    def get_metrics_namespace(self) -> str:
        """Where RunInference counts."""
        return METRICS


class _Find(beam.DoFn):
    """Lists the photos of a glob; counts what else it matches."""

    def __init__(self, settings: Settings) -> None:
        self._output = settings.output

    def process(self, glob: Glob) -> Iterator[str]:
        for path in list_glob(glob):
            if is_inside(path, self._output):
                continue
            if glob.pattern and is_output(path):
                Metrics.counter(METRICS, f"{_LEFT_OUT}outputs").inc()
            elif glob.pattern and PurePosixPath(path).suffix.lower() not in image_suffixes():
                Metrics.counter(METRICS, _LEFT_OUT + PurePosixPath(path).suffix.lower()).inc()
            else:
                yield path


class _Name(beam.DoFn):
    """Names the outputs of photos; refuses photos that would be written to one file."""

    def __init__(self, base: str, settings: Settings) -> None:
        self._base = base
        self._settings = settings

    def process(self, element: tuple[str, Iterable[str]]) -> Iterator[Any]:
        photos = sorted(set(element[1]))
        for photo in photos:
            _count("found")
            outputs = {
                kind: output_path(photo, kind, self._base, self._settings)
                for kind in self._settings.kinds
            }
            if len(photos) == 1:
                yield Job(photo, outputs)
            else:
                first, second = photos[:2]
                yield _failure(photo, name_clash(first, second, next(iter(outputs.values()))))


class _Read(beam.DoFn):
    """Leaves out what is done, reads the rest."""

    def __init__(self, settings: Settings) -> None:
        self._keep_suffix = settings.keep_suffix

    def process(self, job: Job) -> Iterator[Any]:
        start = time.perf_counter()
        try:
            # Asked for each photo here and not once for all at the start: so this holds also when
            # a runner repeats work that it lost.
            missing = {
                kind: path for kind, path in job.outputs.items() if not FileSystems.exists(path)
            }
            done = [path for kind, path in job.outputs.items() if kind not in missing]
            if done and not self._keep_suffix:
                # Of which photo it was made, a file does not say.
                others = namesakes(job.photo, image_suffixes())
                if others:
                    yield _failure(job.photo, name_clash(others[0], job.photo, done[0]))
                    return
            if not missing:
                _count("skipped")
                return
            photo = read_photo(read_bytes(job.photo), warn=False)
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
        except (ValueError, OSError, MemoryError) as error:
            yield _failure(job.photo, f"cannot be written: {error or 'not enough memory'}")
            return
        _count("done")
        _count_time("write", start)
        if note := matte.photo.note():
            yield _listed(job.photo, "warned", note)


def _encode(matte: Matte, kind: str, foreground: str) -> bytes:
    """Makes one picture of a matte, as a PNG file."""
    encoded = io.BytesIO()
    write_png(encoded, matte.alpha_image() if kind == "alpha" else matte.cutout(foreground))
    return encoded.getvalue()


def _failure(photo: str, reason: str) -> TaggedOutput:
    return _listed(photo, "failed", reason)


def _listed(photo: str, outcome: str, reason: str) -> TaggedOutput:
    """Makes a line of `ERRORS` or `WARNINGS`."""
    _count(outcome)
    line = json.dumps({"photo": photo, "reason": reason}, ensure_ascii=False)
    return TaggedOutput(outcome, line)


def _count(name: str) -> None:
    Metrics.counter(METRICS, name).inc()
    _LOGGER.debug(name)


def _count_time(step: str, start: float) -> None:
    Metrics.distribution(METRICS, step).update(int(1e6 * (time.perf_counter() - start)))
