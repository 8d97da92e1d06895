"""Tells PyInstaller what an app needs that uses kmatting (entry point `pyinstaller40`)."""

from pathlib import Path


def hook_folders() -> list[str]:
    """Lists the folders of hooks, for PyInstaller."""
    return [str(Path(__file__).parent)]
