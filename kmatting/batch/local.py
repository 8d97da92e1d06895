"""Beam's runner on this machine, and the end of its workers when a job is interrupted."""

import contextlib
import os
import shlex
import signal
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.portability.api import beam_provision_api_pb2 as provision
from apache_beam.runners.portability.fn_api_runner.fn_runner import (
    ExtendedProvisionInfo,
    FnApiRunner,
)
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.transforms.environments import (
    EmbeddedPythonEnvironment,
    Environment,
    SubprocessSDKEnvironment,
)

from kmatting.batch.worker import VARIABLE

__all__ = ["local_runner", "stopping_workers"]


def local_runner(options: PipelineOptions, verbose: bool = False) -> FnApiRunner:
    """Makes Beam's embedded runner.

    Its workers are processes of their own, or this process if there is only one. They are never
    threads of this process (`direct_running_mode=multi_threading`): in Beam 2.77 another thread
    flushes what these send every second, also in the middle of an element, and jobs of 100,000
    photos end in errors of decoding. Beam's default is to try another runner first, which it
    downloads.

    Args:
        options: Beam's; `direct_num_workers` is the number of workers. More than one run only in
            `stopping_workers`.
        verbose: whether worker processes may write to the terminal.
    """
    environment: Environment = EmbeddedPythonEnvironment.default()
    if options.view_as(DirectOptions).direct_num_workers != 1:
        command = f"{shlex.quote(sys.executable)} -m kmatting.batch.worker"
        command = command if os.name == "nt" else f"exec {command}"  # no shell in between
        # What goes wrong in them comes to the runner by another way.
        command += "" if verbose else f" 2>{os.devnull}"
        environment = SubprocessSDKEnvironment.from_command_string(command)
    struct = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    info = ExtendedProvisionInfo(provision.ProvisionInfo(pipeline_options=struct))
    return FnApiRunner(environment, provision_info=info)


@contextlib.contextmanager
def stopping_workers() -> Iterator[list[int]]:
    """Ends the worker processes when SIGINT or SIGTERM arrives in the block, or it is left.

    The signal then raises what it would raise without this, and Beam has no worker to wait for.

    Yields:
        The numbers of the signals that arrived; Beam may drop what they raise.
    """
    descriptor, name = tempfile.mkstemp(prefix="kmatting-batch-")
    os.close(descriptor)
    file = Path(name)
    os.environ[VARIABLE] = name
    arrived: list[int] = []

    def after_workers(handle: Callable[[int, types.FrameType | None], Any]) -> Any:
        def stop(number: int, frame: types.FrameType | None) -> None:
            arrived.append(number)
            file.unlink(missing_ok=True)
            handle(number, frame)

        return stop

    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number, handle in former.items():
            if callable(handle):  # else it is ignored, or ends this process at once
                signal.signal(number, after_workers(handle))
        yield arrived
    finally:
        file.unlink(missing_ok=True)
        for number, handle in former.items():
            signal.signal(number, handle)
