"""Runs `python -m kmatting`, the same as the console script `kmatting`."""

import sys

from kmatting.cli import main

if __name__ == "__main__":
    sys.exit(main())
