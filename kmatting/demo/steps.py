"""What the page does with a photo: it makes the pictures, and files of them to look at and save.

Files are handed over, so that an open page holds no memory on the server.
"""

import re
import secrets
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from kmatting.bugs import is_expected, print_bug
from kmatting.demo.files import VisitorFiles
from kmatting.demo.studio import OPTIONS, Studio
from kmatting.errors import UsageError
from kmatting.images import write_image
from kmatting.pictures.names import output_name

KINDS = ("cutout", "alpha", "composite")

# Purpose of the files of a step, and of those whose place they take.
_REPLACES = {"result": ("result", "composite"), "composite": ("composite",)}

_PREVIEW = 1280  # pixels of the longer side of a picture to look at; downloads have full size
_SQUARE = 16  # pixels a side, of the checkerboard

Values = dict[str, Any]  # of the components of the page, by name


class Steps:
    """The steps: each takes what the page holds and returns what changes, both by name."""

    def __init__(self, studio: Studio, files: VisitorFiles, folder: Path) -> None:
        self._studio = studio
        self._files = files
        self._folder = folder

    def clear(self, session: str, values: Values) -> Values:
        """Empties the page, while the pictures of another photo are made."""
        return dict.fromkeys(KINDS) | {
            f"{kind}_file": gr.update(value=None, interactive=False) for kind in KINDS
        }

    def make(self, session: str, values: Values) -> Values:
        """Makes all pictures of a photo."""
        return self._said(session, values, KINDS, "result")

    def compose(self, session: str, values: Values) -> Values:
        """Makes the composite anew, over another background."""
        return self._said(session, values, ("composite",), "composite")

    def _said(self, session: str, values: Values, kinds: tuple[str, ...], purpose: str) -> Values:
        """Turns errors into messages for the visitor, who knows a file by its name alone."""
        try:
            return self._make(session, values, kinds, purpose)
        except Exception as error:
            if isinstance(error, MemoryError):
                text = "Not enough memory for a photo of this size. Send a smaller one."
            elif isinstance(error, OSError) and is_expected(error):
                text = f"The server cannot write the result: {error.strerror}."
            elif is_expected(error):
                text = re.sub(re.escape(f"{self._folder}/") + r"[^/]*/", "", str(error))
            else:
                print_bug(error)
                text = "Internal error, see the log of the server."
            raise gr.Error(text, print_exception=False) from error

    def _make(self, session: str, values: Values, kinds: tuple[str, ...], purpose: str) -> Values:
        sent = {name: values[name] for name in ("photo", "background")}
        paths = {name: _path(file) for name, file in sent.items() if file is not None}
        for name in sent:
            # Later, as the visitor may have chosen the former photo again by now.
            self._files.replace(session, [name], name, {paths[name]} if name in paths else set())
        if "photo" not in paths:
            for each in _REPLACES["result"]:
                self._files.keep(session, each, set())
            return self.clear(session, values)
        photo = paths["photo"]
        given = {name: values[name] for name in OPTIONS if name in values}
        options = {name: value for name, value in given.items() if value not in (None, "", 0)}
        options["foreground"] = "ml" if values["edges"] else "none"
        # Nobody can guess the folder's name and fetch a stranger's result. A new address each time,
        # or browsers show the picture that they know.
        folder = self._folder / secrets.token_hex(16)
        made = self._studio.make(
            photo,
            kinds,
            options,
            colour=values["colour"],
            background=paths.get("background"),
            size=values.get("size"),
        )
        before = _write_preview(folder / "photo.jpg", Image.fromarray(made.photo.flatten()))
        result: Values = {}
        for picture in made.pictures:
            path = folder / output_name(photo.name, picture.name)
            picture.write(path)
            after = _write_preview(folder / f"{picture.name}.jpg", picture.image)
            result[picture.name] = (before, after)
            result[f"{picture.name}_file"] = gr.update(value=str(path), interactive=True)
        self._files.replace(session, _REPLACES[purpose], purpose, {folder})
        for remark in made.remarks:
            gr.Warning(f"{photo.name}: {remark}.")
        return result


def _path(file: Any) -> Path:
    if not isinstance(file, dict) or not file.get("path"):
        raise UsageError("Expected an uploaded file.")
    return Path(file["path"])


def _write_preview(path: Path, image: Any) -> str:
    """Writes a small JPEG, with a checkerboard where the picture is transparent."""
    scale = min(1.0, _PREVIEW / max(image.size))
    small = image.resize([max(1, round(side * scale)) for side in image.size])
    if small.mode == "RGBA":
        rows, columns = np.indices(small.size[::-1]) // _SQUARE
        squares = np.where((rows + columns) % 2, 255, 208).astype(np.uint8)
        board = Image.fromarray(squares).convert("RGB")
        board.paste(small, mask=small.getchannel("A"))
        small = board
    write_image(path, small, quality=90)
    return str(path)
