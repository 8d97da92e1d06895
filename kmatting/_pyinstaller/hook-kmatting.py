"""What PyInstaller cannot see: the shipped models, and modules that are imported by name."""

from importlib.util import find_spec

from kmatting import _HOMES
from kmatting.networks.formats import MODEL_FILES
from kmatting.networks.shipped import SHIPPED, shipped_model

_models = [shipped_model(name=name) for name in SHIPPED]
datas = [
    *((str(model), "kmatting/saved_models") for model in _models),
    (str(_models[0].with_name("README.md")), "kmatting/saved_models"),  # the terms of their use
]
hiddenimports = [*_HOMES.values(), *MODEL_FILES.values()]
if find_spec("pillow_heif"):
    hiddenimports.append("pillow_heif")
