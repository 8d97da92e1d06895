"""What `kmatting benchmark` measures, a module for each group of rows."""

__all__: list[str] = []  # no API; see `kmatting`
