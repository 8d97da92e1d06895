"""Training data: pairs on disk, compositing, synthetic samples, augmentation, the pipeline."""
