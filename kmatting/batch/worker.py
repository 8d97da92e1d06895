"""A worker process of the local runner, which ends at once when it is told to.

Beam waits for its workers, and those that are still starting do not listen to it: an interrupted
job would never end. So this process ends by itself as soon as a file, which the command deletes, is
gone, or the command itself is.
"""

import os
import sys
import threading
import time
from pathlib import Path

VARIABLE = "KMATTING_BATCH_WORKERS"  # of the environment; names the file
_INTERVAL = 0.2  # seconds


def main(file: Path, parent: int) -> None:
    """Works until the job is done, the file is deleted or the parent has ended."""
    threading.Thread(target=_watch, args=(file, parent), daemon=True).start()
    from apache_beam.runners.worker import sdk_worker_main  # takes seconds

    sdk_worker_main.main(sys.argv)


def _watch(file: Path, parent: int) -> None:
    while file.exists() and os.getppid() == parent:
        time.sleep(_INTERVAL)
    os._exit(143)  # that of SIGTERM


if __name__ == "__main__":
    main(Path(os.environ[VARIABLE]), os.getppid())
