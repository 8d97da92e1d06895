"""Shipping a network: SavedModel, TFLite, and the check that they match the Keras model."""
