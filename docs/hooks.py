"""Hooks of MkDocs."""

from pathlib import Path
from typing import Any

MODEL_CARD = Path(__file__).resolve().parent.parent / "saved_models" / "README.md"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Shows the model card, which lies beside the model, as a page of the site."""
    if page.file.src_uri != "model-card.md":
        return markdown
    return MODEL_CARD.read_text(encoding="utf-8").replace("](../docs/", "](")
