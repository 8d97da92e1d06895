"""kmatting: trimap-free image matting for TensorFlow and Keras.

A photo goes in, an alpha matte comes out. Importing the package is cheap: TensorFlow is imported
only by the parts that need it (`kmatting.models`, `kmatting.train`, ...).

Example:
    >>> from kmatting import Matter
    >>> matte = Matter("model.tflite")("photo.jpg")
    >>> matte.cutout().save("cutout.png")
"""

__version__ = "0.1.0"
