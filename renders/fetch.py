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
import tempfile
import zipfile
from pathlib import Path

from tqdm import tqdm

from . import plan


def debian(pack: dict, packs: Path) -> None:
    """Downloads and unpacks the furniture's catalogues."""
    name, version = pack["from"].split("package ")[1].split()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", f"{name}={version}"], cwd=folder, check=True)
        (package,) = Path(folder).glob("*.deb")
        expect(package, pack["sha256"])
        subprocess.run(["dpkg-deb", "-x", str(package), folder], check=True)
        for catalogue in Path(folder).rglob("*.sh3f"):
            with zipfile.ZipFile(catalogue) as archive:
                archive.extractall(packs / catalogue.stem)


def git(pack: dict, packs: Path, clone: str | None) -> None:
    """Unpacks the listed paths of a repository at the listed commit."""
    target = packs / pack["name"]
    with tempfile.TemporaryDirectory() as folder:
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
            if (
                shown.returncode == 0
            ):  # snapshots may lack large files; what is needed is checked below
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                (target / name).write_bytes(shown.stdout)


def blender(pack: dict, packs: Path) -> None:
    """Copies the panoramas that come with bpy."""
    found = importlib.util.find_spec("bpy")
    if found is None or found.origin is None:
        raise SystemExit("bpy is not installed: pip install -r renders/requirements.txt")
    (packs / pack["name"]).mkdir(parents=True, exist_ok=True)
    for path in Path(found.origin).parent.parent.glob("**/studiolights/world/*.exr"):
        shutil.copy(path, packs / pack["name"] / path.name)


def expect(path: Path, digest: str) -> None:
    """Ends the program where a file is missing or is not the listed one."""
    if not path.is_file():
        raise SystemExit(f"{path} is missing: the source no longer brings it")
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
        if name == "sweethome3d-furniture":
            if not (options.packs / "Scopia").exists():
                debian(pack, options.packs)
        elif (options.packs / name).exists():
            continue
        elif name == "bpy":
            blender(pack, options.packs)
        else:
            git(pack, options.packs, clones.get(name))
    for entry in tqdm(listed["panoramas"] + listed["models"], unit="file"):
        expect(options.packs / entry["path"], entry["sha256"])


if __name__ == "__main__":
    main()
