"""Lists the data that open weights are trained on, and refuses what is not free.

    python -m renders.free configs/open.yaml LIST.csv

Run it where the training runs, with kmatting installed. Each photo of each folder that the config
names has to be in the folder's `log.jsonl`, which `renders.render`, `renders.backgrounds` and
`renders.photos` write, and has to state the same terms itself. LIST.csv, beside the model card,
gives each file, its SHA-256, title, author and licence, and its page where the log has one.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from kmatting.config import Config, load_config
from kmatting.data.folders import list_folder
from kmatting.data.samples import SourceSection
from kmatting.files import whole_file

from . import picture, plan

FREE = Path("data/free")
KINDS = {"pairs", "composite", "backgrounds", "synthetic"}  # shards come from elsewhere
START = {"imagenet", "none"}
COLUMNS = ("file", "sha256", "title", "author", "licence", "url")


def sources(config: Config) -> list[SourceSection]:
    """Returns the sources that a config trains and validates on."""
    validation = config.data.validation
    return [*config.data.train, *(validation if isinstance(validation, list) else [])]


def folders(source: SourceSection) -> Iterator[tuple[str, Path]]:
    """Yields the folders that a source names, with their keys."""
    for key, value in source:
        if isinstance(value, Path):
            yield key, value


def earlier(config: Config) -> Path | None:
    """Returns the config of the run whose weights this one starts from, or None."""
    weights = config.model.weights
    if weights is None or weights.suffix != ".keras":
        return None
    path = weights.parent / "config.yaml"
    return path if path.is_file() else None


def refused(config: Config) -> list[str]:
    """Returns what a config names that open weights must not see, a line each.

    It may start from the weights of another run if what that one saw is free, too.
    """
    lines = []
    if path := earlier(config):
        lines += [f"{path}: {line}" for line in refused(load_config(path))]
    elif config.model.weights is not None:
        lines.append(
            f"model.weights: {config.model.weights}: expected none, or those in a run's folder"
        )
    if config.model.encoder_weights not in START:
        lines.append(f"model.encoder_weights: {config.model.encoder_weights}: expected {START}")
    for source in sources(config):
        if source.kind not in KINDS:
            lines.append(f"a source of the kind {source.kind}: expected one of {KINDS}")
        lines += [
            f"{key}: {folder}: expected a folder in {FREE}"
            for key, folder in folders(source)
            if FREE not in folder.parents or ".." in folder.parts
        ]
    return lines


def named_folders(config: Config) -> set[tuple[Path, bool]]:
    """Returns the folders that a config and the runs before it name, and whether with theirs."""
    named = {
        (folder, source.recursive) for source in sources(config) for _, folder in folders(source)
    }
    path = earlier(config)
    return named | named_folders(load_config(path)) if path else named


def logged(folder: Path) -> dict[str, dict]:
    """Returns the lines of a folder's log that tell of a photo, by its name."""
    log = folder / "log.jsonl"
    if not log.is_file():
        raise SystemExit(f"{log} is missing: nobody knows where these photos come from")
    lines = map(json.loads, log.read_text(encoding="utf-8").splitlines())
    return {line["file"]: line for line in lines if "error" not in line}


def rows(folder: Path, recursive: bool = False) -> list[dict[str, str]]:
    """Returns a row of the list for each photo of a folder.

    Ends the program where the folder is missing or holds no photo, and where a photo is not in
    the log, is not free or states other terms.
    """
    listing = list_folder(folder, recursive)
    if listing.problems:
        raise SystemExit("\n".join(listing.problems))
    known: dict[Path, dict[str, dict]] = {}
    found = []
    for (path,) in tqdm(listing.files, desc=str(folder), unit="photo"):
        if path.parent not in known:
            known[path.parent] = logged(path.parent)
        line = known[path.parent].get(path.name)
        if line is None:
            raise SystemExit(f"{path}: not in the log of its folder")
        if line["licence"] not in plan.LICENCES:
            raise SystemExit(f"{path}: {line['licence']} is not free")
        terms = (line["author"], line["licence"])
        if (says := picture.stated(path)) != terms:
            raise SystemExit(f"{path}: expected the terms {terms} in it, received {says}")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        cells = (path.as_posix(), digest, line["title"], *terms, line.get("url", ""))
        found.append(dict(zip(COLUMNS, cells, strict=True)))
    return found


def main() -> None:
    """Checks a config and writes the list of its data."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("list", type=Path)
    options = parser.parse_args()
    config = load_config(options.config)
    if lines := refused(config):
        raise SystemExit("\n".join([f"{options.config}:", *lines]))
    named = named_folders(config)
    listed = [row for folder, recursive in sorted(named) for row in rows(folder, recursive)]
    with (
        whole_file(options.list) as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(listed)
    print(f"{len(listed)} files in {options.list}")


if __name__ == "__main__":
    main()
