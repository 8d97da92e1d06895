"""The page, built with Gradio: what is where, and which step follows which event."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from gradio.route_utils import FnIndexInferError

from kmatting.demo.files import VisitorFiles
from kmatting.demo.guard import MAX_BYTES
from kmatting.demo.steps import KINDS, Steps, Values
from kmatting.demo.studio import SIZES, Studio

_EXAMPLES = Path(__file__).parent / "examples"  # drawn by kmatting.data.synthetic

_TITLES = dict(zip(KINDS, ("Cutout", "Matte", "Composite"), strict=True))

# Lets visitors paste with Ctrl-V: Gradio has only a button for it, which not all browsers allow.
# Hides the sign of a broken picture where the browser cannot show a photo, such as a TIFF.
_SCRIPT = """<script>
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
</script>"""

# What Gradio raises on wrong names and numbers.
_WRONG_CALL = (TypeError, ValueError, KeyError, FnIndexInferError)

Components = dict[str, gr.components.Component]


class Page(gr.Blocks):
    """A page whose steps take uploaded files only, and answer wrong arguments with a message.

    Gradio checks paths only in a server that it has launched itself, downloads a photo whose web
    address is sent, and answers what it refuses with `{"error": null}` and a traceback in the log.
    """

    def __init__(self, files: VisitorFiles, **options: Any) -> None:
        super().__init__(**options)
        self.files = files

    async def preprocess_data(self, block_fn: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Checks the arguments of a step, then lets Gradio convert them."""
        try:
            for path in _paths(inputs):
                self.files.check(path)
            return await super().preprocess_data(block_fn, inputs, *args, **kwargs)
        except Exception as error:  # Gradio raises many types on what a stranger may send
            text = " ".join(str(error).partition("[type=")[0].split())[:200]
            raise gr.Error(f"Wrong arguments: {text}", print_exception=False) from error


def add_page(
    app: FastAPI, studio: Studio, files: VisitorFiles, folder: Path, most_waiting: int, prefix: str
) -> None:
    """Adds the page to an application.

    The environment variable GRADIO_TEMP_DIR must have named the folder when Gradio was imported.
    """
    gr.mount_gradio_app(
        app,
        build_page(studio, files, folder, most_waiting),
        "/",
        root_path=prefix,
        app_kwargs={"exception_handlers": dict.fromkeys(_WRONG_CALL, _wrong_call)},
        show_error=False,
        max_file_size=MAX_BYTES,
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        footer_links=[],
        head=_SCRIPT,
        theme=gr.themes.Default(
            primary_hue="blue",
            neutral_hue="slate",
            font=["system-ui", "sans-serif"],
            font_mono=["ui-monospace", "monospace"],
        ),
    )


def build_page(studio: Studio, files: VisitorFiles, folder: Path, most_waiting: int) -> Page:
    """Builds the page; it belongs to one server."""
    examples = [str(path) for path in sorted(_EXAMPLES.glob("*.jpg"))]
    with Page(files, title="kmatting", analytics_enabled=False) as page:
        gr.Markdown("## kmatting\nA photo goes in, its subject comes out.")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                photo = _photo_field("photo", "Photo", "Drop or paste a photo\nor click", 320)
                gr.Examples(examples, photo, label="Examples")
                files.examples = set(folder.rglob("*"))
                options = _options(studio)
            with gr.Column(scale=3, min_width=320):
                results: Components = {}
                for kind, title in _TITLES.items():
                    with gr.Tab(title):
                        results[kind] = _comparison(f"Photo and {title.lower()}")
                        if kind == "composite":
                            backgrounds = _backgrounds()
                with gr.Row():
                    results |= {
                        f"{kind}_file": _save_button(each) for kind, each in _TITLES.items()
                    }
        steps = Steps(studio, files, folder)
        _connect(steps, {"photo": photo}, options, backgrounds, results)
        gr.State()  # has every page hold a heartbeat, by which `Guard` knows that it is open
    return page.queue(max_size=most_waiting, default_concurrency_limit=1, api_open=False)


def _connect(
    steps: Steps,
    photo: Components,
    options: Components,
    backgrounds: Components,
    results: Components,
) -> None:
    """Says which step follows which event."""
    values = photo | options | backgrounds
    components = list(results.values())
    step: dict[str, Any] = {
        "inputs": list(values.values()),
        "outputs": components,
        "preprocess": False,  # or Gradio would open photos before, in its own way
        "concurrency_id": "photos",  # one step of one visitor at a time
        "api_visibility": "private",
    }
    clear, make, compose = (
        _by_name(each, values, results) for each in (steps.clear, steps.make, steps.compose)
    )
    # A photo chosen meanwhile waits. "always_last" would forget it if this one fails.
    chosen = photo["photo"].change(clear, None, components, queue=False, api_visibility="private")
    chosen.then(make, trigger_mode="multiple", **step)
    changed = [_event(each) for each in options.values()]
    gr.on(changed, make, trigger_mode="always_last", **step)
    changed = [each.change for each in backgrounds.values()]
    gr.on(changed, compose, trigger_mode="always_last", **step)


def _by_name(
    step: Callable[[str, Values], Values], values: Components, results: Components
) -> Callable[..., list[Any]]:
    """Lets Gradio, which knows values by their position, call a step."""

    def call(request: gr.Request, *given: Any) -> list[Any]:
        made = step(str(request.session_hash), dict(zip(values, given, strict=False)))
        return [made.get(name, gr.skip()) for name in results]

    return call


def _event(component: gr.components.Component) -> Any:
    """Returns the event of a component that its user has changed a value."""
    if isinstance(component, gr.Slider):
        return component.release
    return component.submit if isinstance(component, gr.Textbox) else component.input


def _options(studio: Studio) -> Components:
    """The options of the pictures; the names are those of `Wanted`, besides edges and size."""
    options: Components = {
        "edges": gr.Checkbox(
            True,
            label="Clean edges",
            info="Removes the old background's colour from soft edges.",
        )
    }
    if studio.matter.size is not None:  # the model takes any size
        smallest, largest = SIZES
        start = min(max(studio.matter.size, smallest), largest)
        info = "Pixels a side that the network sees. More: finer, slower."
        options["size"] = gr.Slider(smallest, largest, start, step=32, label="Size", info=info)
    with gr.Accordion("More", open=False):
        options["only_largest"] = gr.Checkbox(False, label="Largest part only")
        options["erode"] = gr.Slider(
            -20, 20, 0, step=1, label="Shrink", info="In pixels; below 0: grow."
        )
        info = "Alpha from which on the matte is opaque; 0: soft."
        options["threshold"] = gr.Slider(0, 1, 0, step=0.05, label="Threshold", info=info)
        info = "Margin around the subject: pixels, or per cent such as 10%. Press Enter."
        options["crop"] = gr.Textbox(label="Crop", info=info)
        info = "square, 4:5, or pixels a side such as 2000. Press Enter."
        options["canvas"] = gr.Textbox(label="Canvas", info=info)
        info = "0: none; 1: black."
        options["shadow"] = gr.Slider(0, 1, 0, step=0.05, label="Shadow", info=info)
    return options


def _backgrounds() -> Components:
    with gr.Row():
        colour = gr.ColorPicker("#2f855a", label="Colour", elem_id="colour", min_width=120)
        photo = _photo_field("background", "Or a photo", "Drop or click", 120)
    return {"colour": colour, "background": photo}


def _photo_field(name: str, label: str, text: str, height: int) -> gr.Image:
    return gr.Image(
        label=label,
        elem_id=name,
        placeholder=text,
        sources=["upload"],
        type="filepath",
        image_mode=None,
        height=height,
        buttons=[],
        min_width=160,
    )


def _comparison(label: str) -> gr.ImageSlider:
    return gr.ImageSlider(
        label=label,
        elem_classes="comparison",
        interactive=False,
        max_height=440,
        buttons=["fullscreen"],
    )


def _save_button(title: str) -> gr.DownloadButton:
    return gr.DownloadButton(f"Save {title.lower()}", size="md", min_width=90, interactive=False)


def _paths(value: Any) -> Iterator[Any]:
    """Finds the paths of all files in the arguments of a call."""
    if isinstance(value, dict):
        if "path" in value:
            yield value["path"]
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _paths(each)


def _wrong_call(request: Request, error: Exception) -> JSONResponse:
    """Answers a call that Gradio refuses; without this it would be an error of the server."""
    text = str(error).partition(" Please click")[0]
    return JSONResponse(
        {"error": f"{text}: no such call" if type(error) is KeyError else text}, 400
    )
