"""A page to try matting in the browser: `python -m kmatting.demo`."""
