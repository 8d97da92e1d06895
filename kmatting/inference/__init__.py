"""Using a network: from photo to matte, cutout and composite."""

__all__: list[str] = []  # no API; see `kmatting`
