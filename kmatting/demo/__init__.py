"""The command `kmatting demo`: a page to try matting in the browser, and a route for programs.

The page is Gradio's, which people of this field know. What Gradio does not guard stands before it:
`guard` is plain ASGI, and `route` needs no Gradio.
"""

__all__: list[str] = []  # no API; see `kmatting`
