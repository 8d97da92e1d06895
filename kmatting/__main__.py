"""Runs `python -m kmatting`, the same as the console script `kmatting`."""

from kmatting.cli import run

if __name__ == "__main__":
    run()
