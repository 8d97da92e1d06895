"""TensorFlow's copies of what Python does around a network: decode, resize, refine, foreground."""
