"""Scoring mattes against true alphas."""

__all__: list[str] = []  # no API; see `kmatting`
