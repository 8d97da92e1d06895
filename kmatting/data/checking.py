"""Checks every file before training: reads it as training will, once."""

import json
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import PIL

from kmatting import __version__
from kmatting.ahead import map_ordered
from kmatting.data.cache import cache_folder, digest, signature
from kmatting.data.samples import AnySample, Sample
from kmatting.errors import DataError, ImageError
from kmatting.files import whole_file
from kmatting.images import faint_set
from kmatting.terminal import progress

_LISTED = 20  # problems that a message spells out
_FORMAT = f"kmatting {__version__}, Pillow {PIL.__version__}"  # another reader may judge otherwise
_NO_ALPHA = -1

Peaks = dict[str, int]  # highest level of the alpha of good samples, by signature


class FileChecker:
    """Checks the samples of all sources and collects what is wrong with them.

    Good samples are remembered in the user's cache folder by path, size and time of each file, so
    that the next start, and every other worker on the same machine, does not read them again.

    Args:
        on_bad_data: `error`, `skip` or `trust`, as in `kmatting.data.config.DataConfig`.
        worker: index of this process among those that train together. With `error` it reads only
            its own part; with `skip` all have to know all bad files.
        workers: number of these processes.
    """

    def __init__(self, on_bad_data: str = "error", worker: int = 0, workers: int = 1) -> None:
        self.on_bad_data = on_bad_data
        self.part = slice(worker, None, workers) if on_bad_data == "error" else slice(None)
        self.problems: list[str] = []
        self.notes: list[str] = []

    def add(self, problems: Iterable[str], notes: Iterable[str]) -> None:
        """Notes problems of a source (such as an alpha without an image) and remarks, a line each.

        Args:
            problems: what is wrong.
            notes: what was left out on purpose.
        """
        self.problems += problems
        self.notes += notes

    def keep_good(self, samples: Sequence[AnySample], name: str) -> list[AnySample]:
        """Reads the samples, in parallel; a progress bar shows when it takes long.

        Args:
            samples: the samples of a source.
            name: what to call their mattes in messages, such as the folder.

        Returns:
            The samples that can be used, in order. What is wrong with the others is noted.
        """
        if self.on_bad_data == "trust" or not samples:
            return list(samples)
        signatures = [signature(sample.files, repr(sample)) for sample in samples]
        cache = cache_folder() / "checked" / (digest(f"{type(samples[0])} {name}") + ".json")
        good = _load(cache)
        unknown = [
            index for index in range(len(samples))[self.part] if signatures[index] not in good
        ]
        bad: dict[int, str] = {}
        found = _read_all([samples[index] for index in unknown])
        for index, outcome in zip(unknown, found, strict=True):
            key = signatures[index]
            if isinstance(outcome, str):
                bad[index] = outcome
            elif key is not None:
                good[key] = outcome
        if len(bad) < len(unknown):
            _store(cache, good, signatures)
        self.problems += bad.values()
        peaks = [good[key] for key in signatures if key in good and good[key] != _NO_ALPHA]
        faint = faint_set(name, max(peaks)) if peaks else None
        if faint:
            self.problems.append(faint)
            return []
        return [sample for index, sample in enumerate(samples) if index not in bad]

    def report(self) -> None:
        """Raises or warns about everything that was found, at once.

        A folder that several sources name is spoken of once.

        Raises:
            DataError: if there are problems and `on_bad_data` is not `skip`.
        """
        if notes := dict.fromkeys(self.notes):
            warnings.warn("\n  ".join(["Training data:", *notes]), stacklevel=2)
        problems = list(dict.fromkeys(self.problems))
        if not problems:
            return
        count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
        listed = "".join(f"\n  {problem}" for problem in problems[:_LISTED])
        if len(problems) > _LISTED:
            listed += f"\n  ... and {len(problems) - _LISTED} more"
        if self.on_bad_data == "skip":
            warnings.warn(f"Skipped bad training data, {count}:{listed}", stacklevel=2)
        else:
            raise DataError(
                f"{count} in the training data (on_bad_data: skip trains without these "
                f"files):{listed}"
            )


def _read_all(samples: Sequence[Sample]) -> list[int | str]:
    """Reads samples; returns for each the highest level of its alpha, or what is wrong with it."""

    def outcome(sample: Sample) -> int | str:
        try:
            _, alpha = sample.read()
        except ImageError as error:
            return str(error)
        return _NO_ALPHA if alpha is None else int(alpha.max())

    # Decoding gives up the interpreter lock, so that threads use all cores.
    found = map_ordered(outcome, samples, os.cpu_count() or 1)
    return list(progress(found, len(samples), "file", "checking files", brief=True))


def _load(path: Path) -> Peaks:
    """Reads what is known to be good; nothing if the file is missing, old or damaged."""
    try:
        stored = json.loads(path.read_bytes())
        if stored["format"] != _FORMAT:
            return {}
        return {str(key): int(peak) for key, peak in stored["good"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _store(path: Path, good: Peaks, signatures: Sequence[str | None]) -> None:
    """Writes what is known to be good, also by other workers, about files that still exist."""
    known = _load(path) | good
    current = {key: known[key] for key in signatures if key in known}
    try:
        with whole_file(path) as partial:
            partial.write_text(json.dumps({"format": _FORMAT, "good": current}), encoding="utf-8")
    except OSError:
        pass  # only the next start takes longer
