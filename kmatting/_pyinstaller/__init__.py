"""What PyInstaller has to pack into an app that uses kmatting (entry point `pyinstaller40`)."""

from pathlib import Path


def hook_folders() -> list[str]:
    """Lists the folders of hooks, for PyInstaller."""
    return [str(Path(__file__).parent)]
