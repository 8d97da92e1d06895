"""Training a network: losses, metrics, optimizer, callbacks, devices and the run's folder."""

__all__: list[str] = []  # no API; see `kmatting`
