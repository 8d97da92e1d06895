"""The report of `kmatting evaluate`: means over images and over groups, as text, JSON and CSV."""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kmatting.files import whole_file
from kmatting.scoring.metrics import DTSSD, METRICS, Figure

__all__ = ["make_report", "report_text", "write_csv", "write_json"]

_PROTOCOL = {
    "size": "the original size of each true alpha",
    "rounding": "truth and prediction rounded to 8 bits, no other change",
}
_NO_GROUP = "(no group)"
# Titles of the two parts of the table, and what ends the keys of their figures.
_REGIONS = (("whole image", ""), ("unknown band", "_unknown"))


def make_report(
    rows: Sequence[dict[str, Any]],
    failed: Mapping[str, str] | None = None,
    internal_errors: int = 0,
    *,
    predictions: str,
    alphas: str,
    unknown: str,
    is_video: bool = False,
    resized: bool = False,
) -> dict[str, Any]:
    """Gathers what was scored, how, the means, and the figures of each image.

    Args:
        rows: what `kmatting.scoring.cases.score_case` returns, for each image scored.
        failed: why the others could not be scored, by name.
        internal_errors: number of those that failed by a bug of kmatting.
        predictions: where the predictions come from.
        alphas: where the true alphas come from.
        unknown: how the unknown band was made.
        is_video: whether the images are frames of a video.
        resized: whether predictions of another size were resized.

    Returns:
        The report, as it is written to `report.json`.
    """
    figures = (*METRICS, DTSSD) if is_video else METRICS
    unit = "frames" if is_video else "images"
    protocol = {**_PROTOCOL, "mean": f"over {unit}"}
    protocol |= {figure.name: figure.meaning for figure in figures}
    protocol["unknown"] = unknown
    if resized:
        protocol["resized"] = "predictions of another size were resized to the alpha's, bilinear"
    grouped = any("group" in row for row in rows)
    groups = sorted({row["group"] for row in rows}) if grouped else []
    return {
        "predictions": predictions,
        "alphas": alphas,
        "protocol": protocol,
        "figures": [figure.name for figure in figures],
        "unit": unit,
        "failed": dict(failed or {}),
        "internal_errors": internal_errors,
        **_means(rows, figures),
        "groups": {name or _NO_GROUP: _means(_of(rows, name), figures) for name in groups},
        "per_image": list(rows),
    }


def report_text(report: dict[str, Any]) -> str:
    """Writes the means as a table, with a row for each group."""
    unit = report["unit"]
    count = f"{report['images']} {unit}"
    if report["failed"]:
        total = report["images"] + len(report["failed"])
        count = f"{report['images']} of {total} {unit}; {len(report['failed'])} could not be scored"
    figures = [figure for figure in (*METRICS, DTSSD) if figure.name in report["figures"]]
    width = max([13, *(len(name) + 4 for name in report["groups"])])
    lines = [
        f"{report['predictions']} against {report['alphas']}: {count}",
        "",
        f"{'mean':<{width}}{unit:>8}" + "".join(f"{figure.caption:>14}" for figure in figures),
    ]
    for title, suffix in _REGIONS:
        lines.append(f"{title:<{width}}" + _cells(report, suffix, figures))
        for name, means in report["groups"].items():
            lines.append(f"{'  ' + name:<{width}}" + _cells(means, suffix, figures))
    lines += [
        "",
        f"unknown band: {report['protocol']['unknown']}; "
        f"{report['unknown_share']:.1%} of the pixels",
        "The figures are defined in kmatting evaluate --help.",
    ]
    return "\n".join(lines)


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Writes the report; figures of an empty band and of no thin parts are null."""
    with whole_file(path) as partial:
        text = json.dumps(_without_nan(report), indent=2, allow_nan=False, ensure_ascii=False)
        partial.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes one line per image; figures of an empty band and of no thin parts are empty."""
    with (
        whole_file(path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(
            {key: "" if value is None else value for key, value in row.items()}
            for row in _without_nan(list(rows))
        )


def _of(rows: Sequence[dict[str, Any]], group: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["group"] == group]


def _means(rows: Sequence[dict[str, Any]], figures: Iterable[Figure]) -> dict[str, Any]:
    """Averages the figures of images over all of them, and those of the band over what has one."""
    means = {}
    for figure in figures:
        scored = rows[1:] if figure is DTSSD else rows  # the first frame of a video has none
        in_band = [row for row in scored if row["unknown_share"] > 0]
        means[figure.name] = _mean(row[figure.name] for row in scored)
        means[f"{figure.name}_unknown"] = _mean(row[f"{figure.name}_unknown"] for row in in_band)
    return {
        "images": len(rows),
        "images_with_unknown": sum(row["unknown_share"] > 0 for row in rows),
        "unknown_share": _mean(row["unknown_share"] for row in rows),
        "mean": means,
    }


def _cells(means: dict[str, Any], suffix: str, figures: Iterable[Figure]) -> str:
    count = means["images_with_unknown" if suffix else "images"]
    values = (f"{means['mean'][figure.name + suffix]:>14.{figure.decimals}f}" for figure in figures)
    return f"{count:>8}" + "".join(values)


def _mean(values: Iterable[float]) -> float:
    numbers = [value for value in values if not math.isnan(value)]
    return math.fsum(numbers) / len(numbers) if numbers else math.nan


def _without_nan(value: Any) -> Any:
    """Replaces NaN by None, which JSON has a word for."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
