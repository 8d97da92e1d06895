"""Compares our metrics with score_mattes.m, a second implementation that runs in Octave.

Not part of the test suite, since it needs Octave and its image package
(`apt-get install octave octave-image`). Without folders it makes its own mattes.

Example:
    python tests/reference/compare_with_octave.py
    python tests/reference/compare_with_octave.py --alphas alphas --predictions some other third
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from kmatting.images import list_images, read_alpha
from kmatting.scoring.metrics import BAND_WIDTH, FIGURES, score, unknown_band

HERE = Path(__file__).parent
Pairs = list[tuple[np.ndarray, np.ndarray]]


def main() -> int:
    """Prints for each set of predictions what both find, and how far they are apart."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--alphas", type=Path, help="folder of true alphas")
    parser.add_argument(
        "--predictions", type=Path, nargs="+", default=[], help="folders of predicted alphas"
    )
    arguments = parser.parse_args()
    if (arguments.alphas is None) == bool(arguments.predictions):
        parser.error("--alphas and --predictions go together")
    sets = (
        {str(folder): read_pairs(arguments.alphas, folder) for folder in arguments.predictions}
        if arguments.alphas
        else make_sets()
    )
    worst = max(compare(name, pairs) for name, pairs in sets.items())
    print(f"\nlargest relative distance: {worst:.1e}")
    return int(worst > 1e-3)


def read_pairs(alphas: Path, predictions: Path) -> Pairs:
    """Reads the mattes whose stems are in both folders."""
    predicted = {path.stem: path for path in list_images(predictions)}
    return [
        (read_alpha(path), read_alpha(predicted[path.stem]))
        for path in list_images(alphas)
        if path.stem in predicted
    ]


def make_sets() -> dict[str, Pairs]:
    """Makes soft, wavy shapes and three bad copies of each."""
    sets: dict[str, Pairs] = {"noisy": [], "binary": [], "faint and broken": []}
    for seed in range(8):
        random = np.random.default_rng(seed)
        height, width = random.integers(150, 400, 2)
        y, x = np.mgrid[:height, :width] / 20
        truth = np.zeros((height, width))
        for across, along, phase, weight in random.uniform(-1, 1, (6, 4)):
            truth += weight * np.sin(across * x + along * y + 3 * phase)
        truth = np.rint(np.clip(truth + 0.5, 0, 1) * 255).astype(np.uint8)
        noise = random.integers(-60, 61, truth.shape)
        sets["noisy"].append((truth, np.clip(truth + noise, 0, 255).astype(np.uint8)))
        sets["binary"].append((truth, np.where(truth >= 128, 255, 0).astype(np.uint8)))
        faint = (truth * 0.8).astype(np.uint8)
        faint[:: random.integers(9, 30)] = 0
        sets["faint and broken"].append((truth, faint))
    sets["empty"] = [(truth, np.zeros_like(truth)) for truth, _ in sets["noisy"]]
    return sets


def compare(name: str, pairs: Pairs) -> float:
    """Scores pairs both ways, prints a table, returns the largest relative distance."""
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        lines = []
        for number, (truth, prediction) in enumerate(pairs):
            unknown = unknown_band(truth)
            ours.append(list(score(truth, prediction, unknown).values()))
            trimap = np.where(unknown, 128, np.where(truth == 255, 255, 0)).astype(np.uint8)
            paths = [Path(folder, f"{number}_{kind}.raw") for kind in ("true", "pred", "trimap")]
            for path, matte in zip(paths, (truth, prediction, trimap), strict=True):
                path.write_bytes(np.array(matte.shape, "<u4").tobytes() + matte.tobytes())
            lines.append("\t".join(map(str, paths)))
        listing, output = Path(folder, "list.txt"), Path(folder, "scores.csv")
        listing.write_text("\n".join(lines))
        call = f"addpath('{HERE}'); score_mattes('{listing}', '{output}')"
        run = subprocess.run(["octave-cli", "--eval", call], capture_output=True, text=True)
        if run.returncode:
            sys.exit(f"Octave failed: {run.stderr}")
        theirs = np.loadtxt(output, delimiter=",", ndmin=2)
    ours = np.array(ours)
    mean, octave = ours.mean(axis=0), theirs.mean(axis=0)
    distances = np.max(np.abs(ours - theirs[:, :12]) / np.maximum(theirs[:, :12], 1e-6), axis=0)
    names = [*FIGURES, *(f"{figure}_unknown" for figure in FIGURES)]
    print(f"\n{name}: {len(pairs)} mattes, band {BAND_WIDTH} px")
    print(f"{'':<22}{'mean':>14}{'mean in Octave':>16}{'largest distance of an image':>30}")
    for row in zip(names, mean, octave, distances, strict=False):
        print("{:<22}{:>14.8f}{:>16.8f}{:>30.1e}".format(*row))
    print(f"{'gradient, stretched':<36}{octave[12]:>16.8f}")
    print(f"{'gradient_unknown, stretched':<36}{octave[13]:>16.8f}")
    return float(distances.max())


if __name__ == "__main__":
    sys.exit(main())
