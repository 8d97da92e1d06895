"""Matting as steps of an Apache Beam pipeline, which runs on one machine or on many.

    find photos -> name what is made of each -> read -> network -> write

Only paths wait between machines, in the grouping by name; from there on each photo goes through all
steps before the next one is read, so that memory does not grow with their number. The workers
import this module: kmatting must be installed there, in the same version.
"""

import json
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics.metric import Metrics, MetricsFilter
from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, RunInference
from apache_beam.pvalue import PCollection, TaggedOutput
from apache_beam.runners.runner import PipelineResult, PipelineState

from kmatting.batch.storage import (
    Glob,
    check_output,
    clear_partial,
    common_folder,
    delete,
    is_inside,
    is_local,
    list_glob,
    local_copy,
    namesakes,
    partial_folder,
    read_bytes,
    store_errors,
    write_lines,
    write_whole,
)
from kmatting.bugs import BugCounter, attempt
from kmatting.errors import Error, UsageError
from kmatting.images import Photo, image_suffixes, read_photo
from kmatting.inference.matter import Matter
from kmatting.pictures.compose import read_background
from kmatting.pictures.kinds import Scenes
from kmatting.pictures.maker import make_pictures
from kmatting.pictures.matte import Matte
from kmatting.pictures.names import Job, is_output, name_clash, output_name
from kmatting.pictures.wanted import Wanted
from kmatting.quiet import quiet
from kmatting.sizes import Quality, Size

__all__ = [
    "COUNTERS",
    "ERRORS",
    "STEPS",
    "WARNINGS",
    "MattingHandler",
    "Settings",
    "Summary",
    "build",
    "check_files",
    "first_traceback",
    "here",
    "load_matter",
    "output_path",
    "run",
]

ERRORS = "errors.jsonl"
WARNINGS = "warnings.jsonl"
COUNTERS = ("found", "done", "skipped", "failed", "warned", "internal_errors")
# Distributions of microseconds a photo; the second is RunInference's own.
STEPS = {"read": "read", "network": "inference_batch_latency_micro_secs", "write": "write"}
METRICS = "kmatting"  # the namespace of both

# What the steps in this process did, for a progress bar: "matched" and each of `COUNTERS`.
here: Counter[str] = Counter()

_LEFT_OUT = "left out "  # a suffix follows, in names of counters


@dataclass(frozen=True)
class Settings:
    """What is to be made.

    Attributes:
        model: path or URL of a model, as in `kmatting.inference.matter.Matter`; None for the model
            that the kmatting of each worker ships.
        output: path or URL of the folder to write to.
        wanted: the pictures of each photo. Workers read its backgrounds.
        size: as in `kmatting.inference.matter.Matter`.
        threads: as in `kmatting.inference.matter.Matter`, of each worker process.
        quality: as in `kmatting.inference.matter.Matter`.
        keep_suffix: as in `kmatting.pictures.names.output_name`.
    """

    model: str | None
    output: str
    wanted: Wanted = field(default_factory=lambda: Wanted(("alpha",)))
    size: Size | None = None
    threads: int | None = None
    quality: Quality = "fast"
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


def first_traceback(output: str) -> str:
    """Returns the traceback of the first bug in the list of what failed."""
    lines = read_bytes(FileSystems.join(output, ERRORS)).splitlines()
    traces = (json.loads(line).get("traceback") for line in lines)
    return next((trace for trace in traces if trace), "")


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
    # A name that is no UTF-8 is written as JSON escapes it.
    lines = (line.encode("utf-8", "backslashreplace") + b"\n" for line in gathered[1])
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


def build(
    pipeline: beam.Pipeline, globs: Sequence[Glob], settings: Settings
) -> tuple[PCollection, PCollection]:
    """Adds all steps to a pipeline.

    Args:
        pipeline: the pipeline.
        globs: the photos.
        settings: what is to be made.

    Returns:
        What failed, as lines of JSON: `{"photo": path, "reason": text}`, with "traceback" for the
        first bug of each worker; and in the same way what was made of a part of a file.
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
    handler = KeyedModelHandler(
        MattingHandler(settings.model, settings.size, settings.threads, settings.quality)
    )
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
        UsageError: if a glob matches nothing, or the output folder cannot be written to or holds
            the photos.
        ModelError: if the model cannot be used.
        ImageError: if a background cannot be read.
    """
    with store_errors():
        for glob in globs:
            if next(list_glob(glob), None) is None:
                raise UsageError(
                    f"{glob.path}: matches no files. Expected a photo, a folder, or a glob such as "
                    "'photos/*.jpg', or 'photos/**.jpg' for the folders in it too."
                )
        read_scenes(settings.wanted)
        load_matter(settings.model, settings.size, settings.threads, settings.quality)
        check_output(settings.output, globs)


def read_scenes(wanted: Wanted) -> Scenes:
    """Reads the backgrounds, by the name of their composite, from wherever Beam can read them."""
    scenes = {}
    for name, background in wanted.outputs.items():
        if isinstance(background, str) and not is_local(background):
            background = read_bytes(background)
        if background is not None:
            scenes[name] = read_background(background)
    return scenes


def output_path(photo: str, name: str, base: str, settings: Settings) -> str:
    """Names a file that is made of a photo.

    Args:
        photo: path or URL of the photo, below `base`.
        name: of the picture, such as "alpha" or "composite-white".
        base: path or URL of the folder below which all photos lie.
        settings: what is to be made.

    Returns:
        Path or URL: below the output folder as the photo is below `base`.
    """
    inner = PurePosixPath(photo[len(base) + 1 :])
    file = output_name(inner.name, name, settings.wanted.suffix(name), settings.keep_suffix)
    return f"{settings.output}/{inner.with_name(file)}"


def _keyed(photo: str, base: str, settings: Settings) -> tuple[str, str]:
    """Adds what photos have in common that would be written to one file."""
    here["matched"] += 1
    return output_path(photo, next(iter(settings.wanted.outputs)), base, settings).casefold(), photo


def load_matter(
    model: str | None, size: Size | None, threads: int | None, quality: Quality
) -> Matter:
    """Loads a model from wherever Beam can read it.

    Args:
        model: as in `local_copy`; the shipped model if None.
        size: as in `kmatting.inference.matter.Matter`.
        threads: as in `kmatting.inference.matter.Matter`.
        quality: as in `kmatting.inference.matter.Matter`.

    Raises:
        Error: as in `kmatting.inference.matter.Matter`.
    """
    if model is None:
        with quiet():
            return Matter(None, size, threads, quality)
    with local_copy(model) as path:
        try:
            with quiet():
                return Matter(path, size, threads, quality)
        except Error as error:
            raise UsageError(str(error).replace(str(path), model)) from error


class MattingHandler(ModelHandler[Photo, Matte | Exception, Matter]):
    """Runs a matting model in Beam's RunInference.

    Each worker process loads the model once for all its threads (Beam's default). It is not shared
    across processes: a model is small (5 to 60 MB), while each photo and matte would have to be
    copied to and from the one process that holds it, and wait there for the others.

    Args:
        model: path or URL of the model; the shipped one if None.
        size: as in `kmatting.inference.matter.Matter`.
        threads: as in `kmatting.inference.matter.Matter`.
        quality: as in `kmatting.inference.matter.Matter`.
    """

    def __init__(
        self,
        model: str | None,
        size: Size | None = None,
        threads: int | None = None,
        quality: Quality = "fast",
    ) -> None:
        # Photos differ in size and go through the network one at a time.
        super().__init__(min_batch_size=1, max_batch_size=1)
        self._model = model
        self._size = size
        self._threads = threads
        self._quality: Quality = quality

    def load_model(self) -> Matter:
        """Loads the model, once in a process."""
        return load_matter(self._model, self._size, self._threads, self._quality)

    def run_inference(
        self,
        batch: Sequence[Photo],
        model: Matter,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterator[Matte | Exception]:
        """Predicts mattes; yields the error of a photo for which there is none."""
        for photo in batch:
            yield attempt(model, photo)

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
                name: output_path(photo, name, self._base, self._settings)
                for name in self._settings.wanted.outputs
            }
            if len(photos) == 1:
                yield Job(photo, outputs)
            else:
                first, second = photos[:2]
                reason = name_clash(first, second, next(iter(outputs.values())))
                yield _listed(photo, "failed", reason)


class _PerPhoto(beam.DoFn):
    """A step that a photo may fail in, by its own fault or by a bug."""

    def setup(self) -> None:
        """Begins to count the bugs that this worker meets in this step."""
        self._bugs = BugCounter()

    def _failure(self, photo: str, error: Exception) -> TaggedOutput:
        """Makes a line of `ERRORS`; the first bug brings its traceback.

        Raises:
            RuntimeError: if it is a bug and those before it were bugs too. Beam keeps its text.
        """
        before = self._bugs.count
        try:
            reason = (self._bugs.problem(error) or "").removeprefix("image: ")
        except type(error) as last:
            raise RuntimeError("".join(traceback.format_exception(last))) from last
        if self._bugs.count == before:
            return _listed(photo, "failed", reason)
        _count("internal_errors")
        is_first = self._bugs.count == 1
        trace = "".join(traceback.format_exception(error)) if is_first else None
        return _listed(photo, "failed", reason, trace)


class _Read(_PerPhoto):
    """Leaves out what is done, reads the rest."""

    def __init__(self, settings: Settings) -> None:
        self._keep_suffix = settings.keep_suffix

    def process(self, job: Job) -> Iterator[Any]:
        start = time.perf_counter()
        outcome = attempt(self._read, job)
        if isinstance(outcome, Exception):
            yield self._failure(job.photo, outcome)
            return
        self._bugs.problem(None)
        if outcome is None:
            _count("skipped")
            return
        _count_time("read", start)
        yield outcome

    def _read(self, job: Job) -> tuple[Job, Photo] | None:
        """Reads a photo; returns None if all is there that is made of it."""
        with store_errors():
            # Asked for each photo here and not once for all at the start: so this holds also when
            # a runner repeats work that it lost.
            missing = {
                name: path for name, path in job.outputs.items() if not FileSystems.exists(path)
            }
            done = [path for name, path in job.outputs.items() if name not in missing]
            # Of which photo it was made, a file does not say.
            checks = done and not self._keep_suffix
            others = namesakes(job.photo, image_suffixes()) if checks else []
            if others:
                raise UsageError(name_clash(others[0], job.photo, done[0]))
            if not missing:
                return None
            content = read_bytes(job.photo)
        return replace(job, outputs=missing), read_photo(content, warn=False)


class _Write(_PerPhoto):
    """Makes the pictures of a matte and writes them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def setup(self) -> None:
        """Reads the backgrounds, once for all photos of this worker."""
        super().setup()
        self._scenes = read_scenes(self._settings.wanted)

    def process(self, element: tuple[Job, Matte | Exception]) -> Iterator[Any]:
        job, matte = element
        start = time.perf_counter()
        outcome = matte if isinstance(matte, Exception) else attempt(self._write, job, matte)
        if isinstance(outcome, Exception):
            yield self._failure(job.photo, outcome)
            return
        self._bugs.problem(None)
        _count("done")
        _count_time("write", start)
        if outcome:
            yield _listed(job.photo, "warned", "; ".join(outcome))

    def _write(self, job: Job, matte: Matte) -> list[str]:
        """Writes the files of one photo; returns what a user should know of it."""
        remarks = [matte.photo.note()] if matte.photo.note() else []
        wanted, partial = self._settings.wanted, partial_folder(self._settings.output)
        for picture in make_pictures(matte, wanted, self._scenes, job.outputs):
            path, content = job.outputs[picture.name], picture.encode()
            with store_errors("cannot be written: "):
                write_whole(path, content, picture.suffix, partial)
            remarks += [remark for remark in picture.remarks if remark not in remarks]
        return remarks


def _listed(photo: str, outcome: str, reason: str, trace: str | None = None) -> TaggedOutput:
    """Makes a line of `ERRORS` or `WARNINGS`."""
    _count(outcome)
    record = {"photo": photo, "reason": reason, **({"traceback": trace} if trace else {})}
    return TaggedOutput(outcome, json.dumps(record, ensure_ascii=False))


def _count(name: str) -> None:
    Metrics.counter(METRICS, name).inc()
    here[name] += 1


def _count_time(step: str, start: float) -> None:
    Metrics.distribution(METRICS, step).update(int(1e6 * (time.perf_counter() - start)))
