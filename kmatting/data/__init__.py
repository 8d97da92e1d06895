"""Training data: pairs on disk, compositing, synthetic samples, augmentation, the pipeline."""

__all__: list[str] = []  # no API; see `kmatting`
