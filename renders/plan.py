"""Which pictures there are: by kind, name and seed, and who may see them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
PHOTOS = HERE / "photos.json"
HELD_OUT = 15  # percent of the models, and of pictures without one, that no training sees
SCAN = "scan"  # the kind of a model that was scanned
LICENCES = {"CC0-1.0", "CC-BY-2.0", "CC-BY-3.0", "CC-BY-3.0-US", "CC-BY-4.0"}

# What a plain outline serves badly comes first.
THIN = re.compile(
    "chair|lamp|bic|bike|plant|table|stool|chandel|ladder|fence|tree|bench|rail|guitar|stand|rack"
    "|shelf|umbrella|basket|cart|stroller|wheel|flower|fern|palm|hanger|cage|swing|coat|fan|bed"
    "|crib|antenna|harp|easel|tripod|scooter|tricycle|orchid|lily|tulip|yucca|bush|net|racket|cord"
    "|horse|broom|scissors|glasses|fork|trampoline|light|hose|bonsai|bamboo|cat|dog",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Model:
    """A model file with its terms."""

    name: str
    kind: str
    title: str
    author: str
    licence: str
    pack: str
    path: str
    sha256: str


@dataclass(frozen=True)
class Job:
    """One picture: what is on it and the seed of everything that chance decides."""

    kind: str
    name: str
    seed: int

    @property
    def file(self) -> str:
        """Name of the picture's file."""
        return f"{self.kind}-{self.name}-{self.seed:03d}.png"

    def rng(self) -> np.random.Generator:
        """Returns the random numbers of this picture, the same on each machine."""
        digest = hashlib.sha256(f"{self.kind}-{self.name}-{self.seed}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def sources(path: Path = HERE / "sources.json") -> dict:
    """Returns the list of sources: repositories and packages, and what is used of them."""
    return json.loads(path.read_text(encoding="utf-8"))


def models(listed: dict) -> list[Model]:
    """Returns the models of a list of sources: scans last, for they came last; thin ones first."""
    found = [Model(**entry) for entry in listed["models"]]
    return sorted(
        found,
        key=lambda m: (m.kind == SCAN, not THIN.search(f"{m.title} {m.name}"), _hash(m.name)),
    )


def panoramas(listed: dict, packs: Path, unseen: bool = False) -> list[Path]:
    """Returns the panoramas that light training, or those kept for the benchmark."""
    return [packs / p["path"] for p in listed["panoramas"] if benchmark_only(p["name"]) == unseen]


def benchmark_only(name: str) -> bool:
    """Returns whether a panorama of this name lights the benchmark and no training."""
    return _hash(name) % 4 == 0


def held_out(name: str) -> bool:
    """Returns whether a model, or a picture without one, of this name is kept from training."""
    return _hash(name) % 100 < HELD_OUT


def _hash(name: str) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
