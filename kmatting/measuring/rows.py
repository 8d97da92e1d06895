"""A line of the table of `kmatting benchmark`."""

from dataclasses import dataclass

__all__ = ["TITLES", "Row", "row_text"]

# Of the columns after group and name, which take 74 characters.
TITLES = (
    f"{'':74}{'ms':>9}{'images/s':>10}{'CPU ms':>9}{'GFLOP/s':>9}{'of peak':>9}"
    f"{'first s':>9}{'MB':>8}  includes"
)


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


def row_text(row: Row) -> str:
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
