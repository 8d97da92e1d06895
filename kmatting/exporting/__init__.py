"""Shipping a network: one module per format, and the check that it matches the Keras model."""

__all__: list[str] = []  # no API; see `kmatting`
