"""What the page does with a photo, step by step.

`matte` predicts the alpha and makes the cutout; it is also the plain HTTP call "matte". `show`
makes the pictures to look at, `compose` lays the cutout over a background. They hand over files,
so that an open page holds no memory on the server.
"""

import contextlib
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image, ImageColor

from kmatting.demo.files import VisitorFiles
from kmatting.errors import ImageError
from kmatting.images import Photo, image_size, read_photo, write_image
from kmatting.inference.compose import Colour, composite
from kmatting.inference.foreground import FOREGROUND_METHODS
from kmatting.inference.matter import Matter
from kmatting.pictures.names import output_name

MAX_PIXELS = 50_000_000
SIZES = (128, 1024)  # smallest and largest size that a visitor may choose

_PREVIEW = 1280  # pixels of the longer side of a picture to look at; downloads have full size
_SQUARE = 16  # pixels a side, of the checkerboard

_BLOCKED = gr.update(value=None, interactive=False)  # a button that has nothing to save

_File = dict[str, Any] | None  # an uploaded file or a result, checked by `Page`


class Steps:
    """The steps, with the model and the visitors' files.

    Every image is read by `kmatting.images`, after its size was checked.

    Args:
        matter: the loaded model.
        folder: Gradio's folder for uploads and results.
    """

    def __init__(self, matter: Matter, folder: Path) -> None:
        self.files = VisitorFiles(folder)
        self._matter = matter
        self._folder = folder

    def begin(self, request: gr.Request) -> None:
        """Notes that a page was opened."""
        self.files.open_page(str(request.session_hash))

    def end(self, request: gr.Request) -> None:
        """Deletes the files of a page that was closed."""
        self.files.close_page(str(request.session_hash))

    def clear(self) -> list[Any]:
        """Empties the page, while the mattes of another photo are made.

        Returns:
            Three empty comparisons and three buttons that cannot be pressed.
        """
        return [None, None, None, _BLOCKED, _BLOCKED, _BLOCKED]

    def matte(
        self, request: gr.Request, photo: _File, edges: bool, size: int | None = None
    ) -> tuple[str, str] | tuple[None, None]:
        """Predicts the alpha of a photo and cuts out its subject.

        Args:
            request: names the session.
            photo: the uploaded file.
            edges: whether to estimate the colours of the cutout, without the old background.
            size: the network sees about size x size pixels.

        Returns:
            Paths of alpha and cutout, PNG files; (None, None) if the page's photo was removed.
        """
        session = str(request.session_hash)
        with self._messages():
            _check_options(edges, size)
            if photo is None:
                if not self.files.is_open(session):
                    raise ImageError("Expected an uploaded photo, received none.")
                self.files.keep(session, "photo", set())
                self.files.keep(session, "result", set())
                return None, None
            path = _path(photo)
            self.files.keep(session, "photo", {path})
            matte = self._matter(_read(path), None if size is None else int(size))
            # Nobody can guess the folder's name and fetch a stranger's result.
            folder = self._folder / secrets.token_hex(16)
            alpha, cutout = (folder / output_name(path.name, kind) for kind in ("alpha", "cutout"))
            write_image(alpha, matte.alpha_image())
            method = FOREGROUND_METHODS[0] if edges else "none"
            write_image(cutout, matte.cutout(method))
            _write_preview(folder / "photo.jpg", Image.fromarray(matte.photo.flatten()))
        self.files.keep(session, "result", {folder})
        for remark in matte.remarks():
            gr.Warning(f"{path.name}: {remark}.")
        return str(alpha), str(cutout)

    def show(self, alpha: _File, cutout: _File) -> list[Any]:
        """Makes the pictures of cutout and matte.

        Args:
            alpha: file of the alpha.
            cutout: file of the cutout.

        Returns:
            Two comparisons with the photo, and the states of the two buttons that save the files.
        """
        if alpha is None or cutout is None:
            return [None, None, _BLOCKED, _BLOCKED]
        with self._messages():
            alpha_path, path = _path(alpha), _path(cutout)
            photo = path.parent / "photo.jpg"
            if not all(each.is_file() for each in (photo, alpha_path, path)):
                return [gr.skip()] * 4  # the page was closed, or another photo chosen
            subject = _reduced(Image.fromarray(_rgba(_read(path))))
            board = _checkerboard(*subject.size)
            board.paste(subject, mask=subject.getchannel("A"))
            _write_preview(path.parent / "cutout.jpg", board)
            matte = Image.fromarray(_read(alpha_path).flatten())
            _write_preview(path.parent / "matte.jpg", matte)
        pairs = [(str(photo), str(path.parent / name)) for name in ("cutout.jpg", "matte.jpg")]
        return [*pairs, gr.update(interactive=True), gr.update(interactive=True)]

    def compose(
        self, request: gr.Request, cutout: _File, colour: str, background: _File
    ) -> list[Any]:
        """Lays the cutout over the background, or over the colour if there is none.

        Args:
            request: names the session.
            cutout: file of the cutout.
            colour: what Gradio's colour picker sends.
            background: the uploaded file.

        Returns:
            A comparison with the photo, and the state of the button that saves the composite.
        """
        session = str(request.session_hash)
        with self._messages():
            behind: Colour | np.ndarray
            if background is None:
                self.files.keep(session, "background", set())
                behind = _read_colour(colour)
            else:
                scene = _path(background)
                self.files.keep(session, "background", {scene})
                behind = _read(scene).flatten()
            if cutout is None:
                return [None, _BLOCKED]
            path = _path(cutout)
            photo = path.parent / "photo.jpg"
            if not (photo.is_file() and path.is_file()):
                return [gr.skip()] * 2  # as in `show`
            pixels = _rgba(_read(path))
            result = composite(pixels[..., :3], pixels[..., 3] / np.float32(255), behind)
            # A new address each time, or browsers show the picture that they know.
            folder = path.parent / secrets.token_hex(4)
            final = folder / path.name.replace(".cutout.png", ".composite.png")
            write_image(final, result)
            _write_preview(folder / "composite.jpg", result)
        self.files.keep(session, "composite", {folder})
        return [
            (str(photo), str(folder / "composite.jpg")),
            gr.update(value=str(final), interactive=True),
        ]

    @contextlib.contextmanager
    def _messages(self) -> Iterator[None]:
        """Turns errors into messages for the visitor, who knows a file by its name alone."""
        try:
            yield
        except ImageError as error:
            text = re.sub(re.escape(f"{self._folder}/") + r"[^/]*/", "", str(error))
            raise gr.Error(text, print_exception=False) from error
        except MemoryError as error:
            text = "Not enough memory for a photo of this size. Send a smaller one."
            raise gr.Error(text, print_exception=False) from error
        except OSError as error:
            text = f"The server cannot write the result: {error.strerror or error}."
            raise gr.Error(text, print_exception=False) from error
        except Exception as error:
            raise gr.Error("This failed on the server. Its log says why.") from error


def _path(file: dict[str, Any]) -> Path:
    if not file.get("path"):
        raise ImageError("Expected an uploaded file.")
    return Path(file["path"])


def _check_options(edges: Any, size: Any) -> None:
    if not isinstance(edges, bool):
        raise ImageError(f"Expected edges true or false, received {str(edges)[:80]!r}.")
    smallest, largest = SIZES
    is_number = isinstance(size, int | float) and not isinstance(size, bool)
    if size is not None and not (is_number and smallest <= size <= largest):
        raise ImageError(
            f"Expected a size from {smallest} to {largest}, received {str(size)[:80]}."
        )


def _read(path: Path) -> Photo:
    """Reads an image that is not too large."""
    height, width = image_size(path)
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"{path}: {height * width / 1e6:.0f} megapixels; "
            f"this page takes up to {MAX_PIXELS / 1e6:.0f}."
        )
    return read_photo(path, warn=False)


def _rgba(photo: Photo) -> np.ndarray:
    """Joins colours and opacity: uint8 array (H, W, 4)."""
    opacity = np.full(photo.rgb.shape[:2], 255, np.uint8)
    return np.dstack([photo.rgb, opacity if photo.opacity is None else photo.opacity])


def _read_colour(text: Any) -> Colour:
    """Reads what Gradio's colour picker sends: "#rrggbb" or "rgba(...)" with fractions."""
    numbers = re.fullmatch(r"rgba?\((.*)\)", text) if isinstance(text, str) else None
    try:
        if numbers:
            red, green, blue, *_ = (round(float(each)) for each in numbers[1].split(","))
        else:
            red, green, blue, *_ = ImageColor.getrgb(text)
        if not all(0 <= level <= 255 for level in (red, green, blue)):
            raise ValueError
    except (ValueError, OverflowError, AttributeError, TypeError) as error:
        raise ImageError(
            f"Expected a colour such as #2f855a, received {str(text)[:80]!r}."
        ) from error
    return red, green, blue


def _reduced(image: Image.Image) -> Image.Image:
    scale = min(1.0, _PREVIEW / max(image.size))
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def _write_preview(path: Path, image: Image.Image) -> None:
    write_image(path, _reduced(image), quality=90)


def _checkerboard(width: int, height: int) -> Image.Image:
    rows, columns = np.indices((height, width)) // _SQUARE
    return Image.fromarray(np.where((rows + columns) % 2, 255, 208).astype(np.uint8)).convert("RGB")
