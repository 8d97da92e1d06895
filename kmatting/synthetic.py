"""The command `kmatting synthetic`: writes procedural samples as a folder of pairs."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from kmatting.cli import at_least, command, make_parser
from kmatting.data.synthetic import sample
from kmatting.images import write_image


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `kmatting synthetic`; returns its exit status."""
    parser = make_parser(
        "synthetic",
        "Write synthetic samples as pairs: DIR/image/*.png and DIR/alpha/*.png.",
        "example: kmatting synthetic --output pairs --count 200",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder to write to"
    )
    parser.add_argument(
        "--count", type=at_least(1), default=100, help="number of samples (default: %(default)s)"
    )
    parser.add_argument(
        "--size", type=at_least(16), default=256, help="side in pixels (default: %(default)s)"
    )
    parser.add_argument(
        "--seed",
        type=at_least(0),
        default=0,
        help="another seed draws another set (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    for index in tqdm(range(options.count), unit="sample", disable=None):
        image, alpha = sample(options.seed, index, (options.size, options.size))
        write_image(options.output / "image" / f"{index:05d}.png", image)
        write_image(options.output / "alpha" / f"{index:05d}.png", alpha)
    return 0


if __name__ == "__main__":
    sys.exit(main())
