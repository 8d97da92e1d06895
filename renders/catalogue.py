"""Writes sources.json from the unpacked packs: one line a model, with its author and terms.

python -m renders.catalogue PACKS > renders/sources.json
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path

DEBIAN = {
    "package": "sweethome3d-furniture",
    "version": "1.8-1",
    "from": "Debian 12, main",
    "page": "https://www.sweethome3d.com/freeModels.jsp",
    "sha256": "",
}
# The terms of each catalogue, as its LICENSE.TXT states them.
SWEET_HOME = {
    "BlendSwap-CC-0": "CC0-1.0",
    "BlendSwap-CC-BY": "CC-BY-3.0",
    "KatorLegaz": "CC-BY-3.0-US",
    "Reallusion": "CC-BY-3.0-US",
    "Scopia": "CC-BY-3.0",
}


def digest(path: Path) -> str:
    """Returns a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sweet_home(folder: Path, licence: str) -> list[dict]:
    """Returns the models of one unpacked Sweet Home 3D catalogue."""
    text = (folder / "PluginFurnitureCatalog.properties").read_text(encoding="latin-1")
    fields: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        if match := re.match(r"(\w+)#(\d+)=(.*)", line):
            fields.setdefault(match[2], {})[match[1]] = match[3].strip()
    found = []
    for entry in fields.values():
        path = folder / entry.get("model", "/-").lstrip("/")
        if not path.is_file():
            continue
        found.append(
            {
                "name": f"{folder.name.replace('-', '').lower()}_{re.sub(r'[^A-Za-z0-9]+', '', path.stem)}",
                "kind": "person" if folder.name == "Reallusion" else "furniture",
                "title": entry["name"].encode("latin-1").decode("unicode_escape"),
                "author": entry.get("creator", "unknown"),
                "licence": licence,
                "pack": "sweethome3d-furniture",
                "path": str(path.relative_to(folder.parent)),
                "sha256": digest(path),
            }
        )
    return found


def main() -> None:
    """Writes the list to the standard output."""
    packs = Path(sys.argv[1])
    models = [m for name, licence in SWEET_HOME.items() for m in sweet_home(packs / name, licence)]
    names = [m["name"] for m in models]
    print(len(names), len(set(names)), file=sys.stderr)
    lines = ",\n".join(json.dumps(m, ensure_ascii=False) for m in models)
    print(f'{{"packs": {json.dumps({"sweethome3d-furniture": DEBIAN})},\n"models": [\n{lines}\n]}}')


if __name__ == "__main__":
    main()
