"""Model files: what loads each format, their metadata, and the shipped ones."""

__all__: list[str] = []  # no API; see `kmatting`
