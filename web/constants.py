"""Writes constants.json: the numbers that the page shares with Python.

    python web/constants.py

A test fails if the file is not what this writes.
"""

import json
from pathlib import Path

from kmatting import sizes
from kmatting.inference import refine
from kmatting.networks.network import SIZE_SIGNATURE, TOLERANCE
from kmatting.pictures import foreground, matte

FILE = Path(__file__).with_name("constants.json")


def constants() -> str:
    """Returns the content of the file."""
    groups = {
        "network": {
            "STRETCH": sizes.STRETCH,
            "SIZE_SIGNATURE": SIZE_SIGNATURE.partition("{")[0],
            "TOLERANCE": TOLERANCE,
        },
        "refine": {
            name: getattr(refine, name)
            for name in (
                "EPSILON", "SOFTNESS", "NEARLY_BEST", "STEEP", "SOFT", "SHARPENED", "LEAST_RANGE",
                "UNEXPLAINED", "GRAIN", "FIT_TILE", "JUDGED_TILES", "FLAT",
            )
        },
        "foreground": {
            name: getattr(foreground, name)
            for name in ("ESTIMATE_PIXELS", "STEPS", "LEAST_WEIGHT")
        },
        "matte": {"OPAQUE_SHARE": matte.OPAQUE_SHARE},
    }  # fmt: skip
    return json.dumps(groups, indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(constants(), encoding="utf-8")
