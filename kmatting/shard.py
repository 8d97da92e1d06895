"""Packs training data into TFRecord shards: `kmatting shard`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kmatting.cli import command, complain, make_parser, say
from kmatting.files import check_folder
from kmatting.terminal import counted

_EXAMPLES = """examples:
  pack pairs into shards, and train on them:
    kmatting shard pack photos mattes shards
    kmatting train --config configs/model2.yaml \\
      --set data.train='[{kind: shards, shards: shards}]'
  check whether they are still whole:
    kmatting shard verify shards
  unpack them, byte for byte, to pairs/image and pairs/alpha:
    kmatting shard unpack shards pairs
"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `kmatting shard`; returns its exit status: 1 if `verify` finds damage, 2 for errors."""
    args = _parse(argv)
    from kmatting.data import packing

    if args.command == "pack":
        check_folder(args.shards, "shards")
        pairs = _find_good_pairs(args.images, args.alphas)
        manifest = packing.pack(pairs, args.shards, round(args.shard_size * 1_000_000))
        say(f"Packed {counted(len(pairs), 'pair')} into {counted(len(manifest.shards), 'shard')}.")
    elif args.command == "unpack":
        check_folder(args.pairs, "pairs")
        packing.unpack(args.shards, args.pairs)
    elif problems := packing.verify(args.shards):
        complain("\n".join(problems))
        return 1
    else:
        say("All shards are whole.")
    return 0


def _find_good_pairs(images: Path, alphas: Path) -> list[Any]:
    """Finds and checks the pairs of two folders; raises DataError for everything wrong."""
    from kmatting.data.checking import FileChecker
    from kmatting.data.pairs import find_pairs

    checker = FileChecker()
    pairs, problems, notes = find_pairs(images, alphas)
    checker.add(problems, [])
    for note in notes:
        complain(f"note: {note}")
    good = checker.keep_good(pairs, str(alphas))
    checker.report()
    return good


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(
        "shard", "Pack pairs into TFRecord shards, unpack or verify them.", _EXAMPLES
    )
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="pack pairs into shards")
    packing.add_argument("images", type=Path, help="folder of photos")
    packing.add_argument("alphas", type=Path, help="folder of mattes, with the same stems")
    packing.add_argument("shards", type=Path, help="folder to write; must not exist")
    packing.add_argument(
        "--shard-size",
        type=_positive,
        default=256,
        metavar="MB",
        help="a shard is closed at this size (default: %(default)s)",
    )
    unpacking = commands.add_parser("unpack", help="unpack shards to pairs, byte for byte")
    unpacking.add_argument("shards", type=Path, help="folder of shards")
    unpacking.add_argument(
        "pairs", type=Path, help="folder to write, with image/ and alpha/; must not exist"
    )
    verifying = commands.add_parser("verify", help="compare shards with their checksums")
    verifying.add_argument("shards", type=Path, help="folder of shards")
    return parser.parse_args(argv)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"expected a number above 0, received {text!r}")
    return value


if __name__ == "__main__":
    sys.exit(main())
