"""The extras of setup.py, by the packages that they install."""

from pathlib import Path

# The extra of setup.py that installs a package, by the name that is imported.
EXTRA_OF = {
    "ai_edge_quantizer": "quantize",
    "apache_beam": "beam",
    "av": "video",
    "cv2": "train",
    "filelock": "train",
    "fastapi": "server",
    "gradio": "demo",
    "keras": "train",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "pillow_heif": "heic",
    "pydantic": "train",
    "python_multipart": "server",
    "tensorboard": "train",
    "tensorflow": "train",
    "tensorflow_serving": "serving",
    "tf2onnx": "onnx",
    "uvicorn": "server",
    "yaml": "train",
}


def install_command(extra: str) -> str:
    """Returns the shell command that installs an extra, in a clone or for the installed package."""
    in_clone = (Path(__file__).resolve().parent.parent / "setup.py").is_file()
    return f'pip install -e ".[{extra}]"' if in_clone else f'pip install "kmatting[{extra}]"'
