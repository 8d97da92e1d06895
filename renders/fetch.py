"""Brings the sources that `sources.json` lists into a folder, and checks every file.

    python -m renders.fetch PACKS [--photos] [--git NAME=CLONE ...]

The Debian package comes by `apt-get download`, the panoramas of Blender from the installed bpy,
the rest from git: from a clone at hand, or from GitHub. What only `renders.photos` needs comes with
`--photos` alone; that one checks its files itself.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from . import plan

FURNITURE = "sweethome3d-furniture"


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """Fills a folder beside its place and renames it at the end: what is there is whole."""
    beside = target.with_name(target.name + ".part")
    if beside.exists():
        shutil.rmtree(beside)  # of a fetch that was cut off
    beside.mkdir(parents=True)
    yield beside
    beside.rename(target)


def catalogues(listed: dict) -> set[str]:
    """Returns the folders that the furniture's package is unpacked to."""
    return {Path(m["path"]).parts[0] for m in listed["models"] if m["pack"] == FURNITURE}


def debian(pack: dict, packs: Path) -> None:
    """Downloads the furniture's catalogues and unpacks those that are not there."""
    name, version = pack["from"].split("package ")[1].split()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", f"{name}={version}"], cwd=folder, check=True)
        (package,) = Path(folder).glob("*.deb")
        expect(package.name, Path(folder), pack["sha256"])
        subprocess.run(["dpkg-deb", "-x", str(package), folder], check=True)
        for catalogue in Path(folder).rglob("*.sh3f"):
            if (packs / catalogue.stem).exists():
                continue
            with zipfile.ZipFile(catalogue) as archive, whole(packs / catalogue.stem) as target:
                archive.extractall(target)


def git(pack: dict, packs: Path, clone: str | None) -> None:
    """Unpacks the listed paths of a repository at the listed commit.

    Snapshots may lack large files. It names them and goes on: what is needed is checked later.
    """
    with tempfile.TemporaryDirectory() as folder, whole(packs / pack["name"]) as target:
        if clone is None:
            clone = folder
            for words in (
                ["init", "--quiet"],
                ["fetch", "--quiet", "--depth", "1", pack["from"], pack["commit"]],
            ):
                subprocess.run(["git", "-C", folder, *words], check=True)
        listing = subprocess.run(
            ["git", "-C", clone, "ls-tree", "-r", "--name-only", pack["commit"], *pack["paths"]],
            check=True,
            capture_output=True,
            text=True,
        )
        for name in listing.stdout.splitlines():
            shown = subprocess.run(
                ["git", "-C", clone, "show", f"{pack['commit']}:{name}"], capture_output=True
            )
            if shown.returncode:
                said = shown.stderr.decode(errors="replace").strip()
                print(f"{pack['name']}/{name} could not be read: {said}", file=sys.stderr)
                continue
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(shown.stdout)


def blender(pack: dict, packs: Path) -> None:
    """Copies the panoramas that come with bpy."""
    found = importlib.util.find_spec("bpy")
    if found is None or found.origin is None:
        raise SystemExit("bpy is not installed: pip install -r renders/requirements.txt")
    with whole(packs / pack["name"]) as target:
        for path in Path(found.origin).parent.parent.glob("**/studiolights/world/*.exr"):
            shutil.copy(path, target / path.name)


def expect(place: str, packs: Path, digest: str) -> None:
    """Ends the program where a file of a pack is missing or is not the listed one."""
    path = packs / place
    if not path.is_file():
        folder = packs / Path(place).parts[0]
        raise SystemExit(f"{path} is missing: delete {folder} and run renders.fetch again")
    if (got := hashlib.sha256(path.read_bytes()).hexdigest()) != digest:
        raise SystemExit(f"{path}: expected sha256 {digest}, got {got}")


def main() -> None:
    """Fetches what is not there, then checks everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packs", type=Path)
    parser.add_argument(
        "--photos", action="store_true", help="the repositories that renders.photos needs, too"
    )
    parser.add_argument(
        "--git",
        action="append",
        default=[],
        metavar="NAME=CLONE",
        help="a clone or bare repository to take instead of GitHub",
    )
    options = parser.parse_args()
    clones = dict(entry.split("=", 1) for entry in options.git)
    listed = plan.sources()
    options.packs.mkdir(parents=True, exist_ok=True)
    photos = plan.sources(plan.PHOTOS)["packs"] if options.photos else []
    for pack in listed["packs"] + photos:
        name = pack["name"]
        if name == FURNITURE:
            if not all((options.packs / folder).exists() for folder in catalogues(listed)):
                debian(pack, options.packs)
        elif (options.packs / name).exists():
            continue
        elif name == "bpy":
            blender(pack, options.packs)
        else:
            git(pack, options.packs, clones.get(name))
    for entry in tqdm(listed["panoramas"] + listed["models"], unit="file"):
        expect(entry["path"], options.packs, entry["sha256"])


if __name__ == "__main__":
    main()
