"""The files that visitors send and receive, and when they are deleted."""

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kmatting.errors import UsageError

MAX_AGE = 3600  # seconds that a file is kept which no open page needs, such as that of an HTTP call
_INTERVAL = 60  # seconds between two searches for such files


class VisitorFiles:
    """Knows which files each open page needs, and deletes the others.

    Gradio names uploads by their content, so visitors who send the same file share it. It stays
    until the last of them has left.

    Args:
        folder: the folder of all uploads and results.

    Attributes:
        examples: files that belong to no visitor and are never deleted.
    """

    def __init__(self, folder: Path) -> None:
        self.examples: set[Path] = set()
        self._folder = folder.resolve()
        self._needed: dict[str, dict[str, set[Path]]] = {}
        self._closed: set[str] = set()
        self._lock = threading.Lock()

    def check(self, path: Any) -> None:
        """Checks that a path, as sent by anybody, is that of an upload or a result.

        Args:
            path: anything.

        Raises:
            ValueError: if it is not.
        """
        if not isinstance(path, str) or self._folder not in Path(path).resolve().parents:
            raise UsageError(f"expected a file that was uploaded here, received {str(path)[:80]!r}")

    def open_page(self, session: str) -> None:
        """Notes that a page is open.

        Args:
            session: the page's session.
        """
        with self._lock:
            self._needed[session] = {}

    def is_open(self, session: str) -> bool:
        """Tells whether a session is that of an open page, not of an HTTP call.

        Args:
            session: the session.
        """
        with self._lock:
            return session in self._needed

    def close_page(self, session: str) -> None:
        """Deletes the files of a page that was closed.

        Args:
            session: the page's session.
        """
        with self._lock:
            self._closed.add(session)
            for files in self._needed.pop(session, {}).values():
                self._delete_unneeded(files)

    def keep(self, session: str, purpose: str, files: set[Path]) -> None:
        """Says which files a page needs; those it needed before for the same purpose are deleted.

        Without an open page (an HTTP call) the files are left to `delete_old`.

        Args:
            session: the page's session.
            purpose: what the files are for, such as "photo".
            files: paths of files and folders.
        """
        with self._lock:
            if session in self._needed:
                needed = self._needed[session]
                former, needed[purpose] = needed.get(purpose, set()), files
                self._delete_unneeded(former)
            elif session in self._closed:  # it was closed while these were made
                self._delete_unneeded(files)

    def delete_old(self, max_age: float = MAX_AGE) -> None:
        """Deletes the files that no open page needs.

        Args:
            max_age: seconds since a file was written; younger ones are left.
        """
        latest = time.time() - max_age
        with self._lock:
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
        """Calls `delete_old` again and again in a thread while the block runs.

        Args:
            interval: seconds between two calls.
        """
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
        return self.examples.union(
            *(files for page in self._needed.values() for files in page.values())
        )

    def _delete_unneeded(self, files: set[Path]) -> None:
        for path in files - self._all_needed():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
