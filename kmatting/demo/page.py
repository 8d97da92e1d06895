"""The page, built with Gradio: what is where, and which step follows which event."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from kmatting.demo.files import VisitorFiles
from kmatting.demo.steps import SIZES, Steps
from kmatting.inference.matter import Matter

_EXAMPLES = ("astronaut.png", "coffee.png", "chelsea.png")  # of scikit-image; free of rights


class Page(gr.Blocks):
    """A page whose calls take uploaded files only and answer wrong arguments with a message.

    Gradio checks paths only in a server that it has launched itself, downloads a photo whose web
    address is sent, and answers what it refuses with `{"error": null}` and a traceback in the log.

    Args:
        files: the visitors' files.
        **options: passed to Gradio.
    """

    def __init__(self, files: VisitorFiles, **options: Any) -> None:
        super().__init__(**options)
        self.files = files

    async def preprocess_data(self, block_fn: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Checks the arguments of a call, then lets Gradio convert them."""
        try:
            for path in _paths(inputs):
                self.files.check(path)
            return await super().preprocess_data(block_fn, inputs, *args, **kwargs)
        except gr.Error:
            raise
        except Exception as error:  # Gradio raises many types on what a stranger may send
            text = re.split(r" \[type=| Check if ", " ".join(str(error).split()))[0][:200]
            raise gr.Error(f"Wrong arguments: {text}", print_exception=False) from error


def build_page(matter: Matter, folder: Path, most_waiting: int) -> Page:
    """Builds the page.

    Args:
        matter: the loaded model.
        folder: where uploads and results are kept. The environment variable GRADIO_TEMP_DIR must
            have named it when Gradio was imported.
        most_waiting: number of photos that may wait; further calls are asked to try again later.

    Returns:
        The page. It belongs to one server.
    """
    steps = Steps(matter, folder)
    with Page(steps.files, title="kmatting", analytics_enabled=False) as page:
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
                steps.files.examples = set(folder.rglob("*"))
                edges = gr.Checkbox(
                    label="Clean edges",
                    info="Removes the old background's colour from soft edges.",
                    value=True,
                )
                options = [edges, *_size_slider(matter)]
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
                    alpha_file = _save_button("alpha")
                    cutout_file = _save_button("cutout")
                    composite_file = _save_button("composite")
        pairs = [cutout_pair, matte_pair, composite_pair]
        files = [alpha_file, cutout_file]

        step: dict[str, Any] = {
            "preprocess": False,  # or Gradio would open photos before, in its own way
            "concurrency_id": "photos",  # one step of one visitor at a time
            # A photo chosen meanwhile waits. "always_last" would forget it if this one fails.
            "trigger_mode": "multiple",
        }
        private = {**step, "api_visibility": "private"}
        last_counts = {**private, "trigger_mode": "always_last"}
        chosen = photo.change(
            steps.clear, None, [*pairs, *files, composite_file], queue=False,
            api_visibility="private",
        )  # fmt: skip
        mattes = [
            chosen.then(
                steps.matte, [photo, *options], files, show_progress_on=pairs, api_name="matte",
                api_description="Predicts the matte of a photo; returns alpha and cutout.", **step,
            ),
            gr.on(
                [edges.input, *(each.release for each in options[1:])],
                steps.matte, [photo, *options], files, show_progress_on=pairs, **last_counts,
            ),
        ]  # fmt: skip
        composing = [cutout_file, colour, background], [composite_pair, composite_file]
        for matte in mattes:
            shown = matte.success(steps.show, files, [*pairs[:2], *files], **private)
            shown.success(steps.compose, *composing, **private)
        gr.on([colour.change, background.change], steps.compose, *composing, **last_counts)
        page.load(steps.begin, queue=False, api_visibility="private")
        page.unload(steps.end)
    return page.queue(max_size=most_waiting, default_concurrency_limit=1, api_open=False)


def _paths(value: Any) -> Iterator[Any]:
    """Finds the paths of all files in the arguments of a call."""
    if isinstance(value, dict):
        if "path" in value:
            yield value["path"]
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _paths(each)


def _size_slider(matter: Matter) -> list[gr.Slider]:
    """A slider for the size, if the model takes more than one."""
    if matter.size is None:
        return []
    smallest, largest = SIZES
    return [
        gr.Slider(
            smallest,
            largest,
            min(max(matter.size, smallest), largest),
            step=32,
            label="Size",
            info="Pixels a side that the network sees. More: finer, slower.",
        )
    ]


def _comparison(label: str) -> gr.ImageSlider:
    return gr.ImageSlider(
        label=label,
        elem_classes="comparison",
        interactive=False,
        max_height=440,
        buttons=["fullscreen"],
    )


def _save_button(name: str) -> gr.DownloadButton:
    return gr.DownloadButton(f"Save {name}", size="md", min_width=90, interactive=False)


def _examples() -> list[str]:
    """Photos that scikit-image ships, if it is installed."""
    try:
        from skimage.data import data_dir
    except ImportError:
        return []
    return [str(path) for name in _EXAMPLES if (path := Path(data_dir) / name).exists()]
