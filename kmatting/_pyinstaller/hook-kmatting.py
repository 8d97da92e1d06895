"""What PyInstaller cannot see: the shipped model, and modules that are imported by name."""

from importlib.util import find_spec

from kmatting import _HOMES
from kmatting.networks.formats import MODEL_FILES
from kmatting.networks.shipped import shipped_model

_model = shipped_model()
datas = [
    (str(_model), "kmatting/saved_models"),
    (str(_model.with_name("README.md")), "kmatting/saved_models"),  # the terms of its use
]
hiddenimports = [*_HOMES.values(), *MODEL_FILES.values()]
if find_spec("pillow_heif"):
    hiddenimports.append("pillow_heif")
