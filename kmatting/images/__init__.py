"""Reads any photo to upright 8-bit RGB and any matte to 8 bits; lists and writes image files.

This is the one reader for training, evaluation and prediction, so that a network sees the same
pixels everywhere. Nothing here imports TensorFlow.

- `formats`: one record for each format of files. `opening`: from any source to decoded pixels.
- `photos`, `mattes`: what the rest of kmatting reads. `levels`: numbers of any depth to 8 bits.
- `jpeg`, `tiff`, `sixteen_bit`, `nclx`: what Pillow does not do. `metadata`: EXIF and resolution.
- `writing`, with `png` and `tiff_file`. `folders`: lists files. `regions`, `panel`: on pictures.
"""

from kmatting.images.folders import Listing, list_images, scan_folder
from kmatting.images.formats import image_suffixes, written_suffixes
from kmatting.images.mattes import faint_set, read_alpha
from kmatting.images.opening import MAX_PIXELS, Source
from kmatting.images.photos import Photo, image_size, read_image, read_photo
from kmatting.images.writing import save_image, write_image

__all__ = [
    "MAX_PIXELS",
    "Listing",
    "Photo",
    "Source",
    "faint_set",
    "image_size",
    "image_suffixes",
    "list_images",
    "read_alpha",
    "read_image",
    "read_photo",
    "save_image",
    "scan_folder",
    "write_image",
    "written_suffixes",
]
