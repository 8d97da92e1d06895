"""The command `kmatting demo`: a page to try matting in the browser."""
