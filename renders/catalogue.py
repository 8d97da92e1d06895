"""Writes the list of sources from what `renders.fetch` brought.

    python -m renders.catalogue PACKS > renders/sources.json

One line a model: its author and its terms as its own licence file states them, else as the
catalogue that it comes in does.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

PACKS = {
    "sweethome3d-furniture": {
        "from": "Debian 12 (main), package sweethome3d-furniture 1.8-1",
        "page": "https://www.sweethome3d.com/freeModels.jsp",
        "licence": "each model's own, below",
        "sha256": "3ccb90c63f9525e887a767b9cd5c8b6933b8b6b2973a615a5359ee68a2118668",
    },
    "mpfb2": {
        "from": "https://github.com/makehumancommunity/mpfb2",
        "commit": "80919fa4682335c41847f761a4d79dcad4124732",
        "author": "MakeHuman community, Data Collection AB",
        "licence": "CC0-1.0",
        "paths": ["LICENSE.ASSETS.md", "src/mpfb/data/3dobjs/base.obj", "src/mpfb/data/targets"],
    },
    "drei-assets": {
        "from": "https://github.com/pmndrs/drei-assets",
        "commit": "456060a26bbeb8fdf79326f224b6d99b8bcce736",
        "author": "Poly Haven",
        "licence": "CC0-1.0",
        "paths": ["hdri"],
    },
    "3d-demo-data": {
        "from": "https://github.com/gkjohnson/3d-demo-data",
        "commit": "a79b5400ba8ed5bdeffebc10ce5adeecda7c3ebc",
        "author": "Poly Haven",
        "licence": "CC0-1.0",
        "paths": ["hdri"],
    },
    "YCB_Dataset": {
        "from": "https://github.com/elpis-lab/YCB_Dataset",
        "commit": "b7d8884aff05a801df77486fbc87ebdc7716b309",
        "author": "Yale-CMU-Berkeley Object and Model Set (Calli et al., 2015)",
        "licence": "CC-BY-4.0",
        "paths": ["ycb"],
    },
    "drake-models": {
        "from": "https://github.com/RobotLocomotion/models",
        "commit": "4723170e1c8ee8bc59c342bb5c491ab8f263f1fb",
        "author": "Poly Haven",
        "licence": "CC0-1.0",
        "paths": ["tutorials/models/assets"],
    },
    "bpy": {
        "from": "PyPI, bpy 5.0.1: datafiles/studiolights/world",
        "author": "Greg Zaal, Poly Haven",
        "licence": "CC0-1.0",
    },
}
# The terms of each catalogue, as its LICENSE.TXT states them.
SWEET_HOME = {
    "BlendSwap-CC-0": "CC0-1.0",
    "BlendSwap-CC-BY": "CC-BY-3.0",
    "KatorLegaz": "CC-BY-3.0-US",
    "Reallusion": "CC-BY-3.0-US",
    "Scopia": "CC-BY-3.0",
}


# How the authors of whole catalogues ask to be named, in their LICENSE.TXT.
CREDITED = {
    "Scopia": "Emmanuel Puybaret / eTeks and Scopia Visual Interfaces Systems, s.l. "
    "(http://www.scopia.es)",
    "KatorLegaz": "Andrew Kator & Jennifer Legaz",
    "Reallusion": "Reallusion (http://www.reallusion.com)",
}

# Of Poly Haven; the rest of the folder is by others, or the same tea set once more.
POLY_HAVEN = (
    "painted_wooden_cabinet_02_1k",
    "painted_wooden_cabinet_1k",
    "painted_wooden_stool_1k",
    "sofa_03_1k",
    "tea_set_01_1k",
    "wooden_bookshelf_worn_1k",
    "wooden_table_02_1k",
)
# Scans that failed: marbles run together, a box with dents for blocks, a lid without its glass.
FAILED = {"a_marbles", "a_colored_wood_blocks", "skillet_lid"}


def digest(path: Path) -> str:
    """Returns a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def terms(folder: Path, catalogue: str) -> str:
    """Returns the licence of a model: its own file's, else its catalogue's."""
    files = sorted(p for p in folder.iterdir() if "licen" in p.name.lower())
    if not files:
        return catalogue
    text = " ".join(
        html.unescape(re.sub("<[^>]*>", " ", files[0].read_text(errors="replace"))).split()
    )
    found = re.search(r"Creative Commons (Zero|Attribution 3\.0)(?! *(?:Share|Non|No))", text)
    if found is None:
        raise ValueError(f"{files[0]}: expected CC0 or CC BY 3.0, found neither")
    return "CC0-1.0" if found[1] == "Zero" else "CC-BY-3.0"


def sweet_home(folder: Path, licence: str) -> Iterable[dict]:
    """Yields the models of one unpacked Sweet Home 3D catalogue."""
    text = (folder / "PluginFurnitureCatalog.properties").read_text(encoding="latin-1")
    fields: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        if match := re.match(r"(\w+)#(\d+)=(.*)", line):
            fields.setdefault(match[2], {})[match[1]] = match[3].strip()
    short = folder.name.replace("-", "").lower()
    for entry in fields.values():
        path = folder / entry.get("model", "/-").lstrip("/")
        if path.is_file():
            yield {
                "name": f"{short}_{re.sub(r'[^A-Za-z0-9]+', '', path.stem)}",
                "kind": "person" if folder.name == "Reallusion" else "furniture",
                "title": entry["name"].encode("latin-1").decode("unicode_escape"),
                "author": CREDITED.get(folder.name, entry.get("creator", "unknown")),
                "licence": terms(path.parent, licence),
                "pack": "sweethome3d-furniture",
                "path": str(path.relative_to(folder.parent)),
                "sha256": digest(path),
            }


def scans(packs: Path) -> Iterable[dict]:
    """Yields things that were scanned, those of YCB, and models of Poly Haven as true to life."""
    found = [(path, "ycb", path.parent.name) for path in packs.glob("YCB_Dataset/ycb/*/*.obj")]
    folder = packs / "drake-models" / "tutorials" / "models" / "assets"
    found += [(folder / f"{n}.gltf", "polyhaven", n.removesuffix("_1k")) for n in POLY_HAVEN]
    for path, by, name in sorted(found):
        pack = path.relative_to(packs).parts[0]
        if name not in FAILED:
            yield {
                "name": f"{by}_{name}",
                "kind": "scan",
                "title": name.replace("_", " ").capitalize(),
                "author": PACKS[pack]["author"],
                "licence": PACKS[pack]["licence"],
                "pack": pack,
                "path": str(path.relative_to(packs)),
                "sha256": digest(path),
            }


def panoramas(packs: Path) -> Iterable[dict]:
    """Yields the panoramas that light the scenes, all by Poly Haven."""
    for pack in ("bpy", "drei-assets", "3d-demo-data"):
        for path in sorted((packs / pack).rglob("*.*")):
            if path.suffix in {".hdr", ".exr"}:
                yield {
                    "name": path.stem,
                    "author": PACKS[pack]["author"],
                    "licence": "CC0-1.0",
                    "pack": pack,
                    "path": str(path.relative_to(packs)),
                    "sha256": digest(path),
                }


def main() -> None:
    """Writes the list to the standard output."""
    packs = Path(sys.argv[1])
    models = [m for name, licence in SWEET_HOME.items() for m in sweet_home(packs / name, licence)]
    models += scans(packs)
    seen: dict[str, dict] = {}
    for panorama in panoramas(packs):  # some repositories bring the same one
        seen.setdefault(panorama["name"], panorama)
    rooms = {
        "packs": [json.dumps({"name": k, **v}) for k, v in PACKS.items()],
        "panoramas": [json.dumps(p) for p in seen.values()],
        "models": [json.dumps(m, ensure_ascii=False) for m in models],
    }
    print("{")
    for name, rows in rooms.items():
        end = "" if name == "models" else ","
        print(f'"{name}": [\n' + ",\n".join(rows) + f"\n]{end}")
    print("}")


if __name__ == "__main__":
    main()
