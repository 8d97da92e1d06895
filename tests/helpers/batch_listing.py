"""Measures what a batch job costs before its first photo: listing, grouping by name, skipping.

    python tests/helpers/batch_listing.py MODEL.tflite 100000

lists that many made-up photos, all of which are done already, on Beam's local runner, and prints
the seconds of processor time and the memory of this process.
"""

import resource
import sys
import time

from apache_beam import Pipeline
from apache_beam.io.filesystem import FileMetadata
from apache_beam.options.pipeline_options import PipelineOptions
from batch_memory_files import MemoryFiles

from kmatting.batch import pipeline as beam
from kmatting.batch.local import local_runner
from kmatting.batch.storage import read_glob


class ListedFiles(MemoryFiles):
    """Names only: each file that is asked for is there."""

    count = 0

    @classmethod
    def scheme(cls):
        return "listed"

    def _list(self, dir_or_prefix):
        for number in range(self.count):
            yield FileMetadata(f"listed://photos/{number // 1000:05}/{number:08}.jpg", 1, 0)

    def exists(self, path):
        return path.startswith("listed://mattes/") and not path.endswith(".jsonl")

    def delete(self, paths):
        pass


def main(model: str, count: int) -> None:
    ListedFiles.count = count
    options = PipelineOptions([])
    pipeline = Pipeline(local_runner(options), options)
    start = time.process_time()
    summary = beam.run(
        pipeline, [read_glob("listed://photos/**.jpg")], beam.Settings(model, "listed://mattes")
    )
    assert summary.counts["found"] == summary.counts["skipped"] == count, summary
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{count} photos: {time.process_time() - start:.1f} s, peak {peak:.0f} MB")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
