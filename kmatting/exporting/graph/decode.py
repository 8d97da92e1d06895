"""Decodes JPEG and PNG files in a TensorFlow graph, as `kmatting.images` does with Pillow.

TensorFlow reads neither a PNG's size nor the orientation that a camera notes in EXIF, so both are
parsed here. Each function takes a whole file as a string scalar.
"""

from typing import Any

import tensorflow as tf

MAX_PIXELS = 2**26  # of all photos in one request (67 megapixels)

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_PNG_HEADER = 33  # bytes; the first chunk of data may begin behind
_START_OF_SCAN, _APP1 = 0xDA, 0xE1  # JPEG markers
_EXIF = b"Exif\0\0"
_ORIENTATION, _LONG = 0x0112, 4  # a tag of EXIF and a type of value


def check_files(files: Any) -> Any:
    """Refuses a request that is too large or holds other files than photos.

    Sizes are read from the headers, so that nothing is decoded in vain.

    Args:
        files: string tensor (N,).

    Returns:
        The same tensor. Whatever uses it waits for the check.

    Raises:
        tf.errors.InvalidArgumentError: when the graph runs, for a file that is neither JPEG nor
            PNG, and for more than `MAX_PIXELS` in all.
    """
    sizes = tf.map_fn(_read_size, files, fn_output_signature=tf.TensorSpec((2,), tf.int64))
    check = tf.debugging.Assert(
        tf.reduce_sum(tf.reduce_prod(sizes, axis=1)) <= MAX_PIXELS,
        [
            f"image_bytes: expected at most {MAX_PIXELS} pixels in a request, received photos of "
            "(height, width)",
            sizes,
        ],
        summarize=32,
    )
    with tf.control_dependencies([check]):
        return tf.identity(files)


def decode(file: Any) -> tuple[Any, Any]:
    """Decodes a photo and turns it upright.

    Args:
        file: string tensor (), a JPEG or PNG file that `check_files` let through.

    Returns:
        The photo, uint8 (H, W, 3), with its own colours where it is transparent, and its opacity,
        uint8 (H, W, 1), 255 for opaque.
    """
    if _is_jpeg(file):
        image = tf.io.decode_jpeg(file, channels=3, dct_method="INTEGER_ACCURATE")
        opacity = tf.ones_like(image[..., :1]) * 255
        exif = _find_jpeg_exif(file)
    else:
        image, opacity = _decode_png(file)
        exif = _find_png_exif(file)
    orientation = _read_orientation(exif)
    image, opacity = _turn(image, orientation), _turn(opacity, orientation)
    image.set_shape((None, None, 3))
    opacity.set_shape((None, None, 1))
    return image, opacity


def over_white(image: Any, opacity: Any) -> Any:
    """Lays a photo over white, as `kmatting.images.Photo.flatten` does.

    Args:
        image: uint8 tensor (H, W, 3).
        opacity: uint8 tensor (H, W, 1).

    Returns:
        uint8 tensor (H, W, 3).
    """
    share = tf.cast(opacity, tf.int32)
    mixed = (tf.cast(image, tf.int32) * share + 255 * (255 - share) + 127) // 255
    return tf.cast(mixed, tf.uint8)


def _is_jpeg(file: Any) -> Any:
    return tf.strings.substr(file, 0, len(_JPEG)) == _JPEG


def _read_size(file: Any) -> Any:
    """Reads height and width, int64 (2,), from a file's header."""
    length = tf.strings.length(file)
    is_png = (tf.strings.substr(file, 0, len(_PNG)) == _PNG) & (length > _PNG_HEADER)
    check = tf.debugging.Assert(
        _is_jpeg(file) | is_png,
        ["image_bytes: expected a JPEG or PNG file, received other bytes, in number", length],
    )
    with tf.control_dependencies([check]):
        file = tf.identity(file)
    if _is_jpeg(file):
        size = tf.cast(tf.image.extract_jpeg_shape(file)[:2], tf.int64)
    else:
        size = tf.stack([_number(file, 20, 4), _number(file, 16, 4)])
    return size


def _decode_png(file: Any) -> tuple[Any, Any]:
    pixels = tf.io.decode_png(file, channels=4)
    # Of a PNG with fewer than 8 bits, TensorFlow 2.21 takes 2**bits - 1 for opaque, not 255.
    bits = tf.minimum(_number(file, 24, 1), 8)
    opaque = tf.cast(2**bits - 1, tf.uint8)
    opacity = pixels[..., 3:]
    opacity = tf.where(tf.reduce_all(opacity == opaque), tf.constant(255, tf.uint8), opacity)
    return pixels[..., :3], opacity


@tf.function(input_signature=[tf.TensorSpec((), tf.string)])
def _find_jpeg_exif(file: Any) -> Any:
    """Returns the EXIF data of a JPEG file, or an empty string."""
    exif = b""
    position = tf.constant(2, tf.int64)
    while position + 10 <= _length(file):
        marker, length = _number(file, position + 1, 1), _number(file, position + 2, 2)
        if _number(file, position, 1) != 0xFF or marker == _START_OF_SCAN:
            break
        if marker == _APP1 and _cut(file, position + 4, len(_EXIF)) == _EXIF:
            exif = _cut(file, position + 10, tf.maximum(length - 8, 0))
            break
        # The byte 0xFF may be repeated before a marker.
        position += tf.where(marker == 0xFF, tf.constant(1, tf.int64), 2 + length)
    return exif


@tf.function(input_signature=[tf.TensorSpec((), tf.string)])
def _find_png_exif(file: Any) -> Any:
    """Returns the EXIF data that a PNG file has before its pixels, or an empty string."""
    exif = b""
    position = tf.constant(_PNG_HEADER, tf.int64)
    while position + 8 <= _length(file):
        length, kind = _number(file, position, 4), _cut(file, position + 4, 4)
        if kind == b"IDAT":
            break
        if kind == b"eXIf":
            exif = _cut(file, position + 8, length)
            break
        position += 12 + length
    return exif


@tf.function(input_signature=[tf.TensorSpec((), tf.string)])
def _read_orientation(exif: Any) -> Any:
    """Reads the orientation, from 1 (upright) to 8, int64; 1 if the data does not say."""
    orientation = tf.constant(1, tf.int64)
    little_endian = _cut(exif, 0, 2) == b"II"
    if _length(exif) >= 8:
        start = _number(exif, 4, 4, little_endian)
        if start + 2 <= _length(exif):
            entry = start + 2
            end = entry + 12 * _number(exif, start, 2, little_endian)
            while entry < end and entry + 12 <= _length(exif):
                if _number(exif, entry, 2, little_endian) == _ORIENTATION:
                    is_long = _number(exif, entry + 2, 2, little_endian) == _LONG
                    size = tf.where(is_long, tf.constant(4, tf.int64), 2)
                    orientation = _number(exif, entry + 8, size, little_endian)
                    break
                entry += 12
    return orientation


def _turn(image: Any, orientation: Any) -> Any:
    """Turns an image (H, W, C) upright as its EXIF orientation says."""
    if tf.reduce_any(orientation == [5, 6, 7, 8]):
        image = tf.transpose(image, (1, 0, 2))
    if tf.reduce_any(orientation == [2, 3, 6, 7]):
        image = tf.reverse(image, [1])
    if tf.reduce_any(orientation == [3, 4, 7, 8]):
        image = tf.reverse(image, [0])
    return image


def _length(file: Any) -> Any:
    return tf.cast(tf.strings.length(file), tf.int64)


def _cut(file: Any, position: Any, length: Any) -> Any:
    return tf.strings.substr(file, tf.cast(position, tf.int64), tf.cast(length, tf.int64))


def _number(file: Any, position: Any, length: Any, little_endian: Any = False) -> Any:
    """Reads an unsigned number of a few bytes as int64."""
    digits = tf.cast(tf.io.decode_raw(_cut(file, position, length), tf.uint8), tf.int64)
    digits = tf.where(little_endian, digits, tf.reverse(digits, [0]))
    return tf.reduce_sum(digits * 256 ** tf.range(tf.size(digits, tf.int64)))
