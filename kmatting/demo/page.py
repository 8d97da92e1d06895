"""The page of `kmatting.demo`, built with Gradio.

A photo passes three steps: `matte` makes alpha and cutout (and is the plain HTTP call "matte"),
`show` makes the pictures to look at, `compose` lays the cutout over a background. They hand over
files, so that an open page holds no memory on the server.
"""

import re
import secrets
import shutil
import threading
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image, ImageColor

from kmatting.images import ImageError, image_size, write_image
from kmatting.inference.cutout import (
    PNG_LEVEL,
    Colour,
    check_foreground,
    composite,
    read_background,
)
from kmatting.inference.matter import Matter

MAX_FILE_SIZE = "50mb"
MAX_PIXELS = 50_000_000
MAX_WAITING = 20  # photos in the queue; who comes next is asked to try again later
KEPT = 3600  # seconds until a file is deleted that no open page holds, such as those of HTTP calls

_SIZES = (128, 1024)
_PREVIEW = 1280  # pixels of the longer side of what is shown; downloads have the photo's own size
_SQUARE = 16  # pixels a side, of the checkerboard
_EXAMPLES = ("astronaut.png", "coffee.png", "chelsea.png")  # of scikit-image; free of rights

# Ctrl-V (Gradio pastes by a button, and only where browsers let it), and no sign of a broken
# picture where a browser cannot show what we can read, such as a TIFF.
_SCRIPT = """() => {
  document.addEventListener("paste", (event) => {
    const isPhoto = (file) => file.type.startsWith("image/");
    const photo = [...event.clipboardData.files].find(isPhoto);
    const input = document.querySelector("#photo input[type=file]");
    if (!photo || !input) return;
    const files = new DataTransfer();
    files.items.add(photo);
    input.files = files.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });
  for (const [event, visibility] of [["error", "hidden"], ["load", "visible"]])
    document.addEventListener(event, ({ target }) => {
      if (target.tagName === "IMG") target.style.visibility = visibility;
    }, true);
}"""

_BLOCKED = gr.update(value=None, interactive=False)  # a button that has nothing to save

_File = dict[str, Any] | None  # how Gradio hands over a file: {"path": ..., ...}


class Visits:
    """The files of each open page, deleted when it is closed or they are replaced.

    Gradio names uploads by their content, so visitors with one and the same file share it; it
    stays until the last of them has left.

    Attributes:
        examples: files that belong to no visitor and are never deleted.
    """

    def __init__(self) -> None:
        self.examples: set[Path] = set()
        self._files: dict[str, dict[str, set[Path]]] = {}
        self._closed: set[str] = set()
        self._lock = threading.Lock()

    def begin(self, request: gr.Request) -> None:
        """Notes that a page is open."""
        with self._lock:
            self._files[str(request.session_hash)] = {}

    def keep(self, request: gr.Request, what: str, files: set[Path]) -> None:
        """Says which files a page needs for something; the former ones for it are deleted."""
        session = str(request.session_hash)
        with self._lock:
            if session in self._files:
                held = self._files[session]
                former, held[what] = held.get(what, set()), files
                self._delete(former)
            elif session in self._closed:  # while this was made
                self._delete(files)
            # Else it is an HTTP call, whose files Gradio deletes when they are old.

    def end(self, request: gr.Request) -> None:
        """Deletes the files of a page that was closed."""
        session = str(request.session_hash)
        with self._lock:
            self._closed.add(session)
            for files in self._files.pop(session, {}).values():
                self._delete(files)

    def _delete(self, files: set[Path]) -> None:
        held = self.examples.union(
            *(each for page in self._files.values() for each in page.values())
        )
        for path in files - held:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


class Steps:
    """What the page does with a photo.

    Args:
        matter: the loaded model.
        folder: Gradio's folder for uploads and results.
    """

    def __init__(self, matter: Matter, folder: Path) -> None:
        self.visits = Visits()
        self._matter = matter
        self._folder = folder

    def matte(
        self, request: gr.Request, photo: _File, edges: bool, size: int | None = None
    ) -> tuple[str | None, str | None]:
        """Takes the matte of a photo.

        Args:
            request: who asks.
            photo: the uploaded file.
            edges: whether the cutout's colours are estimated, without the old background.
            size: the network sees about size x size pixels.

        Returns:
            Paths of the alpha and of the cutout, PNG files; of nothing, if there is no photo.
        """
        if size is not None and not _SIZES[0] <= size <= _SIZES[1]:
            raise gr.Error(
                f"Expected a size from {_SIZES[0]} to {_SIZES[1]}, received {size}.",
                print_exception=False,
            )
        path = None if photo is None else _uploaded(photo)
        self.visits.keep(request, "photo", {path} if path else set())
        if path is None:
            self.visits.keep(request, "result", set())
            return None, None
        try:
            height, width = image_size(path)
            if height * width > MAX_PIXELS:
                raise ImageError(
                    f"{path}: {height * width / 1e6:.0f} megapixels; "
                    f"this page takes up to {MAX_PIXELS / 1e6:.0f}."
                )
            matte = self._matter(path, size)
        except ImageError as error:
            raise _said(error, path) from error
        # Nobody can guess the name and fetch what belongs to another.
        folder = self._folder / secrets.token_hex(16)
        alpha, cut = folder / f"{path.stem}-alpha.png", folder / f"{path.stem}-cutout.png"
        write_image(alpha, np.rint(matte.alpha * 255).astype(np.uint8))
        write_image(cut, matte.cutout("ml" if edges else "none"), compress_level=PNG_LEVEL)
        _write_preview(folder / "photo.jpg", Image.fromarray(matte.photo.flatten()))
        self.visits.keep(request, "result", {folder})
        return str(alpha), str(cut)

    def show(self, alpha: _File, cut: _File) -> list[Any]:
        """Makes the pictures to compare with the photo.

        Returns:
            A pair of pictures for the cutout and one for the matte, and what becomes of the two
            buttons to save them.
        """
        if alpha is None or cut is None:
            return [None, None, _BLOCKED, _BLOCKED]
        folder = Path(cut["path"]).parent
        try:
            with Image.open(cut["path"]) as image:
                subject = _reduced(image)
            board = _checkerboard(*subject.size)
            board.paste(subject, mask=subject.getchannel("A"))
            _write_preview(folder / "cutout.jpg", board)
            with Image.open(alpha["path"]) as image:
                _write_preview(folder / "matte.jpg", image)
        except FileNotFoundError:  # the page was closed, or another photo chosen
            return [gr.skip()] * 4
        pairs = [
            (str(folder / "photo.jpg"), str(folder / f"{name}.jpg")) for name in ("cutout", "matte")
        ]
        return [*pairs, gr.update(interactive=True), gr.update(interactive=True)]

    def compose(self, request: gr.Request, cut: _File, colour: str, background: _File) -> list[Any]:
        """Lays the cutout over the background, or over the colour if there is none.

        Returns:
            A pair of pictures, and what becomes of the button for the download.
        """
        behind: Colour | np.ndarray = _read_colour(colour)
        path = None if background is None else _uploaded(background)
        self.visits.keep(request, "background", {path} if path else set())
        if path:
            try:
                behind = read_background(path)
            except ImageError as error:
                raise _said(error, path) from error
        if cut is None:
            return [None, _BLOCKED]
        path = Path(cut["path"])
        # A new address each time, or browsers show the picture that they know.
        folder = path.parent / secrets.token_hex(4)
        final = folder / path.name.replace("-cutout.png", "-composite.png")
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image)
            result = composite(pixels[..., :3], pixels[..., 3] / np.float32(255), behind)
            write_image(final, result, compress_level=PNG_LEVEL)
            _write_preview(folder / "composite.jpg", result)
        except FileNotFoundError:  # as in `show`
            return [gr.skip()] * 2
        self.visits.keep(request, "composite", {folder})
        return [
            (str(path.parent / "photo.jpg"), str(folder / "composite.jpg")),
            gr.update(value=str(final), interactive=True),
        ]


def build_page(matter: Matter, folder: Path) -> gr.Blocks:
    """Builds the page; it is served by its method `launch`.

    Args:
        matter: the loaded model.
        folder: where uploads and results are kept: what the environment variable GRADIO_TEMP_DIR
            said when Gradio was imported.

    Returns:
        The page. It belongs to one server.
    """
    steps = Steps(matter, folder)
    with gr.Blocks(title="kmatting", analytics_enabled=False, delete_cache=(60, KEPT)) as page:
        gr.Markdown("## kmatting\nA photo goes in, its subject comes out.")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                photo = gr.Image(
                    label="Photo",
                    elem_id="photo",
                    placeholder="Drop or paste a photo\nor click to choose one",
                    sources=["upload"],
                    type="filepath",
                    image_mode=None,
                    height=320,
                    buttons=["fullscreen"],
                )
                gr.Examples(_examples(), photo, label="Examples")
                steps.visits.examples = set(folder.rglob("*"))
                edges = gr.Checkbox(
                    label="Clean edges",
                    info="Takes the old background's colour out of soft edges.",
                    value=_can_clean_edges(),
                    interactive=_can_clean_edges(),
                )
                sizes = []
                if matter.frame is None:
                    size = gr.Slider(
                        *_SIZES,
                        min(max(matter.size, _SIZES[0]), _SIZES[1]),
                        step=32,
                        label="Size",
                        info="Pixels a side that the network sees. More: finer, slower.",
                    )
                    sizes.append(size)
            with gr.Column(scale=3, min_width=320):
                with gr.Tab("Cutout"):
                    cutout_pair = _comparison("Photo and cutout")
                with gr.Tab("Matte"):
                    matte_pair = _comparison("Photo and matte")
                with gr.Tab("Composite"):
                    composite_pair = _comparison("Photo and composite")
                    with gr.Row():
                        colour = gr.ColorPicker(
                            "#2f855a", label="Colour", elem_id="colour", min_width=120
                        )
                        background = gr.Image(
                            label="Or a photo",
                            elem_id="background",
                            placeholder="Drop or click",
                            sources=["upload"],
                            type="filepath",
                            image_mode=None,
                            height=120,
                            buttons=[],
                            min_width=160,
                        )
                with gr.Row():
                    names = ("alpha", "cutout", "composite")
                    alpha_file, cutout_file, composite_file = (
                        gr.DownloadButton(
                            f"Save {name}", size="md", min_width=90, interactive=False
                        )
                        for name in names
                    )
        pairs = [cutout_pair, matte_pair, composite_pair]
        files = [alpha_file, cutout_file, composite_file]
        inputs = [photo, edges, *sizes]

        step: dict[str, Any] = {
            "preprocess": False,  # or Gradio would open photos before, its own way
            "concurrency_id": "photos",  # one step of one visitor at a time
            # A photo chosen meanwhile waits. "always_last" would forget it if this one fails.
            "trigger_mode": "multiple",
        }
        private = {**step, "api_visibility": "private"}
        chosen = photo.change(
            lambda: [None, None, None, _BLOCKED, _BLOCKED, _BLOCKED],
            None,
            [*pairs, *files],
            queue=False,
            api_visibility="private",
        )
        mattes = [
            chosen.then(
                steps.matte,
                inputs,
                files[:2],
                api_name="matte",
                api_description="Takes the matte of a photo; returns alpha and cutout.",
                show_progress_on=pairs,
                **step,
            ),
            gr.on(
                [edges.input, *(each.release for each in sizes)],
                steps.matte,
                inputs,
                files[:2],
                show_progress_on=pairs,
                **{**private, "trigger_mode": "always_last"},
            ),
        ]
        over = [cutout_file, colour, background], [composite_pair, composite_file]
        for matte in mattes:
            shown = matte.success(steps.show, files[:2], [*pairs[:2], *files[:2]], **private)
            shown.success(steps.compose, *over, **private)
        gr.on(
            [colour.change, background.change],
            steps.compose,
            *over,
            **{**private, "trigger_mode": "always_last"},
        )
        page.load(steps.visits.begin, queue=False, api_visibility="private")
        page.unload(steps.visits.end)
    return page.queue(max_size=MAX_WAITING, default_concurrency_limit=1, api_open=False)


def serve(page: gr.Blocks, host: str, port: int) -> None:
    """Starts the server in a thread of its own; `page.close()` stops it.

    Nothing is asked of other hosts and nothing is offered but the page and its call.

    Args:
        page: what `build_page` returned.
        host: address to listen at.
        port: port to listen at.
    """
    page.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        inbrowser=False,
        max_file_size=MAX_FILE_SIZE,
        state_session_capacity=100,
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        footer_links=[],
        js=_SCRIPT,
        theme=gr.themes.Default(
            primary_hue="blue",
            neutral_hue="slate",
            font=["system-ui", "sans-serif"],
            font_mono=["ui-monospace", "monospace"],
        ),
    )


def _comparison(label: str) -> gr.ImageSlider:
    return gr.ImageSlider(
        label=label,
        elem_classes="comparison",
        interactive=False,
        max_height=440,
        buttons=["fullscreen"],
    )


def _examples() -> list[str]:
    """Photos that scikit-image ships, if it is installed."""
    try:
        from skimage.data import data_dir
    except ImportError:
        return []
    return [str(path) for name in _EXAMPLES if (path := Path(data_dir) / name).exists()]


def _can_clean_edges() -> bool:
    try:
        check_foreground("ml")
    except ValueError:  # pymatting is not installed
        return False
    return True


def _uploaded(file: dict[str, Any]) -> Path:
    """The path of a file that the page or an HTTP call names; Gradio checked that it may."""
    path = Path(file.get("path") or "")
    if not path.is_file():
        raise gr.Error("The file is no longer here. Choose it again.", print_exception=False)
    return path


def _said(error: ImageError, path: Path) -> gr.Error:
    """An error to show, with the photo's name as the visitor knows it."""
    return gr.Error(str(error).replace(str(path), path.name), print_exception=False)


def _read_colour(text: str) -> Colour:
    """Reads what Gradio's colour picker returns: "#rrggbb" or "rgba(...)" with fractions."""
    if text.startswith("#"):
        red, green, blue, *_ = ImageColor.getrgb(text)
    else:
        red, green, blue, *_ = (round(float(number)) for number in re.findall(r"[\d.]+", text))
    return red, green, blue


def _reduced(image: Image.Image) -> Image.Image:
    scale = min(1.0, _PREVIEW / max(image.size))
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def _write_preview(path: Path, image: Image.Image) -> None:
    write_image(path, _reduced(image), quality=90)


def _checkerboard(width: int, height: int) -> Image.Image:
    rows, columns = np.indices((height, width)) // _SQUARE
    return Image.fromarray(np.where((rows + columns) % 2, 255, 208).astype(np.uint8)).convert("RGB")
