"""Matting millions of photos with Apache Beam: `python -m kmatting.batch`."""

__all__: list[str] = []  # no API; see `kmatting`
