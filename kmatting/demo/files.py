"""The files that visitors send and receive, and when they are deleted."""

import contextlib
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kmatting.errors import UsageError

MAX_AGE = 3600  # seconds that a file is kept which no open page needs, such as an upload alone
GRACE = 60  # seconds that results are kept once there are others: a page shows them a bit later
_INTERVAL = 60  # seconds between two searches for such files


@dataclass
class _Visit:
    """What a page needs, by purpose."""

    needed: dict[str, set[Path]] = field(default_factory=dict)
    replaced: list[tuple[float, set[Path]]] = field(default_factory=list)  # and when
    streams: int = 0  # heartbeats that are open
    was_closed: bool = False
    last_seen: float = field(default_factory=time.time)

    def all_needed(self) -> set[Path]:
        return set().union(*self.needed.values(), *(files for _, files in self.replaced))


class VisitorFiles:
    """Knows which files each page needs, and deletes the others.

    A page is open as long as its heartbeat is: a connection that its browser holds. Its first photo
    may come before it. Gradio names uploads by their content, so visitors who send the same file
    share it; it stays until the last of them has left.
    """

    def __init__(self, folder: Path) -> None:
        self.examples: set[Path] = set()  # belong to no visitor and are never deleted
        self._folder = folder.resolve()
        self._visits: dict[str, _Visit] = {}
        self._lock = threading.Lock()

    def check(self, path: Any) -> None:
        """Raises UsageError unless a path, as sent by anybody, is that of an upload or a result."""
        if not isinstance(path, str) or self._folder not in Path(path).resolve().parents:
            raise UsageError(f"expected a file that was uploaded here, received {str(path)[:80]!r}")

    @contextlib.contextmanager
    def open_page(self, session: str) -> Iterator[None]:
        """Keeps a page's files while the block runs, and deletes them after it."""
        with self._lock:
            visit = self._visits.setdefault(session, _Visit())
            visit.streams += 1
        try:
            yield
        finally:
            with self._lock:
                visit.streams -= 1
                visit.last_seen = time.time()
                if not visit.streams:
                    former, visit.was_closed = visit.all_needed(), True
                    visit.needed, visit.replaced = {}, []
                    self._delete_unneeded(former)

    def keep(self, session: str, purpose: str, files: set[Path]) -> None:
        """Says which files a page needs; those that it needed for this purpose are deleted."""
        with self._lock:
            visit = self._visits.setdefault(session, _Visit())
            visit.last_seen = time.time()
            if visit.was_closed and not visit.streams:  # it was closed while these were made
                self._delete_unneeded(files)
            else:
                former, visit.needed[purpose] = visit.needed.get(purpose, set()), files
                self._delete_unneeded(former)

    def replace(
        self, session: str, purposes: Iterable[str], purpose: str, files: set[Path]
    ) -> None:
        """Keeps files in place of those for some purposes, which are deleted a little later."""
        with self._lock:
            visit = self._visits.setdefault(session, _Visit())
            former = set().union(*(visit.needed.pop(each, set()) for each in purposes))
            visit.replaced.append((time.time(), former))
        self.keep(session, purpose, files)

    def delete_old(self, max_age: float = MAX_AGE) -> None:
        """Deletes the files that no open page needs and that are older than so many seconds."""
        latest = time.time() - max_age
        with self._lock:
            for visit in self._visits.values():
                past = [each for each in visit.replaced if each[0] < time.time() - GRACE]
                visit.replaced = [each for each in visit.replaced if each not in past]
                self._delete_unneeded(set().union(*(files for _, files in past)))
            self._visits = {
                session: visit
                for session, visit in self._visits.items()
                if visit.streams or visit.last_seen >= latest
            }
            needed = self._all_needed()
            # Folders come after what is in them.
            for path in sorted(self._folder.rglob("*"), reverse=True):
                if needed.isdisjoint((path, *path.parents)):
                    with contextlib.suppress(OSError):  # somebody else deleted it
                        if path.stat().st_mtime < latest:
                            path.rmdir() if path.is_dir() else path.unlink()

    def delete_all(self) -> None:
        """Deletes the folder, whoever needs it."""
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextlib.contextmanager
    def deleting_old(self, interval: float = _INTERVAL) -> Iterator[None]:
        """Calls `delete_old` again and again in a thread while the block runs."""
        stopped = threading.Event()

        def work() -> None:
            while not stopped.wait(interval):
                self.delete_old()

        thread = threading.Thread(target=work, name="kmatting-delete", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()

    def _all_needed(self) -> set[Path]:
        return self.examples.union(*(visit.all_needed() for visit in self._visits.values()))

    def _delete_unneeded(self, files: set[Path]) -> None:
        for path in files - self._all_needed():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
