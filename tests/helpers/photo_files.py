"""Photos on disk for the tests of commands that read folders."""

from pathlib import Path

from PIL import Image


def write_three(folder):
    """Writes two photos and, deeper down, a third; returns the folder."""
    for name, red in (("a.png", 255), ("b.jpg", 0), ("deep/c.png", 102)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), (red, 40, 200)).save(path, quality=100)
    return folder


def files(folder):
    """All files under a folder, hidden ones too."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return [path.relative_to(folder).as_posix() for path in paths]
