"""TIFF files that Pillow reads wrongly or coarsely: 16 and 32 bits, planes, white as 0.

Their tags say how the numbers are stored (TIFF 6.0; Adobe's technical notes for predictors).
"""

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from PIL import Image

from kmatting.errors import ImageError
from kmatting.images.faults import decoder_errors
from kmatting.images.levels import ROUNDED, strips
from kmatting.images.sixteen_bit import to_picture
from kmatting.images.tiff_file import write_tiff

# Tags.
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_FILL_ORDER, _OFFSETS, _CHANNELS, _ROWS, _COUNTS, _PLANAR = 266, 273, 277, 278, 279, 284
_PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS = 317, 322, 323, 324, 325
_EXTRA, _SAMPLE_FORMAT = 338, 339

_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3  # formats of numbers
_WHITE_IS_ZERO = 0
_COLOURS = {1: 1, 0: 1, 2: 3, 5: 4}  # channels of grey, RGB and CMYK, by photometric tag
_PREMULTIPLIED, _ALPHA = 1, 2  # kinds of a channel that is no colour
_REDUCED_OR_MASK = 5  # bits of pages that are no pictures
_MOST_PAGES = 50  # that are looked at
_PLAIN, _JPEG, _DEFLATE = 1, 7, (8, 32946)  # compressions
_BAND = 2**21  # numbers that Pillow decodes at a time
_MOST_NUMBERS = 80_000_000  # in one block: Pillow warns of pictures of so many pixels


def has_further_pages(image: Any) -> bool:
    """Returns whether a TIFF has further pages that are neither thumbnails nor masks."""
    found = False
    for page in range(1, _MOST_PAGES):
        try:
            image.seek(page)
        except EOFError:
            break
        found = not int(image.tag_v2.get(_SUBFILE, 0)) & _REDUCED_OR_MASK
        if found:
            break
    else:
        found = True  # nothing stores so many thumbnails
    image.seek(0)
    return found


def explain_tiff(file: IO[bytes]) -> str:
    """Returns how a TIFF stores its pixels, in words; "" if that cannot be read.

    Args:
        file: the file.
    """
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    try:
        file.seek(0)
        tags = ImageFileDirectory_v2(file.read(8))
        file.seek(tags.next)
        tags.load(file)
        bits, kind = tags[_BITS], tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0]
        colours = tags[_PHOTOMETRIC]
    except Exception:  # the decoder's, of a damaged file
        return ""
    numbers = {_UNSIGNED: "unsigned", _SIGNED: "signed", _FLOAT: "float"}.get(kind, "other")
    return f"{len(bits)} x {bits[0]} bits, {numbers} numbers, photometric interpretation {colours}"


def read_tiff(image: Any) -> Image.Image:
    """Decodes a TIFF.

    Args:
        image: the file, opened by Pillow and not yet decoded.

    Returns:
        PIL image of 8 bits a channel, or of a single channel of any depth, whose white is the
        highest number.

    Raises:
        ImageError: if the file is damaged, or its numbers have no meaning as levels.
    """
    tags = image.tag_v2
    if _is_deep(tags) or _has_planes(tags):
        picture = _read_colours(image.fp, tags)
        picture.info = image.info
        return picture
    with decoder_errors():
        image.load()
    return mend_levels(image, tags)


def mend_levels(image: Image.Image, tags: Any) -> Image.Image:
    """Brings the levels of a decoded grey TIFF to what its tags say, where Pillow does not.

    Args:
        image: the decoded image.
        tags: its tags, as Pillow reads them.

    Returns:
        The image, or another in its place.

    Raises:
        ImageError: if its numbers have no meaning as levels.
    """
    bits, kind = tags.get(_BITS, (1,))[0], tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0]
    inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    if kind == _FLOAT and inverted:
        raise ImageError("TIFF of float numbers whose white is 0: save it with black as 0.")
    if kind == _SIGNED and bits == 8:
        raise ImageError("TIFF of signed numbers of 8 bits: save it with unsigned ones.")
    if image.mode not in ("I", "I;16", "I;16B", "I;16L"):
        return image
    stored = np.asarray(image)
    if kind == _SIGNED:
        levels = _signed(stored, bits)
    elif bits == 32:
        levels = _unsigned_32(stored.view(np.uint32), inverted)
    elif bits == 12:
        levels = np.rint(stored * (65535 / 4095)).astype(np.uint16)
    else:
        levels = 65535 - stored if inverted else stored
    if levels is stored:
        return image
    mended = Image.fromarray(levels)
    mended.info = image.info
    return mended


def _signed(stored: np.ndarray, bits: int) -> np.ndarray:
    if stored.min(initial=0) < 0:
        raise ImageError("TIFF of numbers below 0: save it with unsigned ones.")
    if bits == 16 and stored.max(initial=0) > 255:  # no mask, and no numbers of 8 bits
        return np.rint(stored * (65535 / 32767)).astype(np.uint16)
    return stored


def _unsigned_32(stored: np.ndarray, inverted: bool) -> np.ndarray:
    """Returns levels of 32 bits as Pillow's mode I holds them, or rounded to 16 bits."""
    levels = ~stored if inverted else stored
    if levels.max(initial=0) < 2**31:
        return levels.view(np.int32)
    rounded = np.empty(levels.shape, np.uint16)
    for rows in strips(*levels.shape):
        rounded[rows] = np.rint(levels[rows] / 65537)
    return rounded


# Colours of 16 bits, and in planes


def check_planes(tags: Any) -> None:
    """Refuses a TIFF that Pillow has decoded to noise.

    Args:
        tags: its tags, as Pillow reads them.

    Raises:
        ImageError: if it has 16 bits a channel in separate planes.
    """
    if _is_deep(tags) and tags.get(_PLANAR, 1) == 2:
        raise ImageError("TIFF of 16 bits a channel in planes: pass its path, not a PIL image.")


def _is_deep(tags: Any) -> bool:
    """Returns whether a file holds colours of 16 bits a channel."""
    return _has_colours(tags) and set(tags.get(_BITS, (1,))) == {16}


def _has_planes(tags: Any) -> bool:
    """Returns whether a file holds colours of 8 bits whose channels are stored one by one."""
    planes = set(tags.get(_BITS, (1,))) == {8} and tags.get(_PLANAR, 1) == 2
    return _has_colours(tags) and planes and tags.get(_COMPRESSION, 1) != _JPEG


def _has_colours(tags: Any) -> bool:
    unsigned = set(tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))) == {_UNSIGNED}
    return unsigned and tags.get(_CHANNELS, 1) > 1 and tags.get(_PHOTOMETRIC) in _COLOURS


def _read_colours(file: IO[bytes], tags: Any) -> Image.Image:
    """Reads colours of 8 bits a channel, or of 16, which are rounded to 8."""
    layout = _Layout.of(tags)
    colours = _COLOURS[tags[_PHOTOMETRIC]]
    # As Pillow does, a fourth channel is taken for transparency if the file does not name it.
    extra = tags.get(_EXTRA, (_ALPHA,))[0] if layout.channels > colours else 0
    has_alpha = extra != 0 and colours < 4
    pixels = np.empty((layout.height, layout.width, colours + has_alpha), np.uint8)
    top = 0
    for numbers in _bands(file, layout, used=pixels.shape[2]):
        rows = slice(top, top + len(numbers))
        if extra == _PREMULTIPLIED:
            pixels[rows] = _divided(numbers)
        else:
            pixels[rows] = ROUNDED[numbers] if numbers.dtype == np.uint16 else numbers
        top = rows.stop
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[colours] + ("A" if has_alpha else "")
    return to_picture(mode, pixels)


def _divided(numbers: np.ndarray) -> np.ndarray:
    """Divides premultiplied colours by their opacity, the last channel; returns 8 bits."""
    opacity = numbers[..., -1:]
    scale = np.float32(255) / np.maximum(opacity, 1)
    levels = np.rint(numbers * scale).clip(0, 255) * (opacity > 0)
    levels[..., -1] = opacity[..., 0] if numbers.dtype == np.uint8 else ROUNDED[opacity[..., 0]]
    return levels


@dataclass(frozen=True)
class _Layout:
    """How a TIFF stores its numbers: in blocks, which are strips of rows, or tiles.

    Attributes:
        bits: of a number, 8 or 16.
        order: "<" or ">".
        width, height: of the stored picture.
        channels: of a pixel.
        planes: 1, or the number of channels if each is stored on its own.
        tiled: whether the blocks are tiles.
        block_width, block_height: of a block.
        offsets, counts: where each block begins in the file, and its bytes.
        compression: the tag.
        differences: whether each number is stored as its difference from the one on the left.
    """

    bits: int
    order: str
    width: int
    height: int
    channels: int
    planes: int
    tiled: bool
    block_width: int
    block_height: int
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    compression: int
    differences: bool

    @classmethod
    def of(cls, tags: Any) -> "_Layout":
        """Reads it from the tags of a file."""
        width, height, tiled = tags[_WIDTH], tags[_HEIGHT], _TILE_OFFSETS in tags
        predictor = tags.get(_PREDICTOR, 1)
        if tags.get(_FILL_ORDER, 1) != 1 or predictor not in (1, 2):
            raise ImageError("TIFF in an unusual order of bits, refused.")
        with decoder_errors():  # tags may be missing, or of any type
            block = (
                (int(tags[_TILE_WIDTH]), int(tags[_TILE_HEIGHT]))
                if tiled
                else (width, min(int(tags.get(_ROWS, height)), height))
            )
            layout = cls(
                bits=tags[_BITS][0],
                order="<" if tags.prefix == b"II" else ">",
                width=width,
                height=height,
                channels=tags[_CHANNELS],
                planes=tags[_CHANNELS] if tags.get(_PLANAR, 1) == 2 else 1,
                tiled=tiled,
                block_width=block[0],
                block_height=block[1],
                offsets=tuple(tags[_TILE_OFFSETS if tiled else _OFFSETS]),
                counts=tuple(tags[_TILE_COUNTS if tiled else _COUNTS]),
                compression=tags.get(_COMPRESSION, 1),
                differences=predictor == 2,
            )
            if min(block) < 1 or min(len(layout.offsets), len(layout.counts)) < layout.blocks:
                raise ValueError("blocks are missing")
        return layout

    @property
    def dtype(self) -> np.dtype:
        """The numbers, as the file orders their bytes."""
        return np.dtype(f"{self.order}u{self.bits // 8}")

    @property
    def interleaved(self) -> int:
        """Channels that are stored side by side."""
        return self.channels // self.planes

    @property
    def across(self) -> int:
        """Blocks side by side."""
        return -(-self.width // self.block_width)

    @property
    def down(self) -> int:
        """Blocks one above the other."""
        return -(-self.height // self.block_height)

    @property
    def blocks(self) -> int:
        """Blocks in all."""
        return self.planes * self.across * self.down


def _bands(file: IO[bytes], layout: _Layout, used: int) -> Iterator[np.ndarray]:
    """Yields the first channels of the picture from top to bottom: arrays (rows, W, used)."""
    if layout.tiled or layout.compression not in (_PLAIN, *_DEFLATE):
        read = _decoded_bands
    else:
        read = _streamed_bands
    planes = range(used if layout.planes > 1 else 1)
    for parts in zip(*(read(file, layout, plane) for plane in planes), strict=True):
        numbers = np.concatenate(parts, axis=2)[..., :used] if len(parts) > 1 else parts[0]
        yield numbers[..., :used]


def _streamed_bands(file: IO[bytes], layout: _Layout, plane: int) -> Iterator[np.ndarray]:
    """Yields rows of a plane whose strips are plain or deflated, a part of a strip at a time."""
    row = layout.width * layout.interleaved * layout.dtype.itemsize
    for strip in range(layout.down):
        number = plane * layout.down + strip
        rows = min(layout.block_height, layout.height - strip * layout.block_height)
        file.seek(layout.offsets[number])
        deflated = None if layout.compression == _PLAIN else file.read(layout.counts[number])
        inflate = None if deflated is None else _Inflated(deflated)
        for part in strips(rows, layout.width * layout.channels):
            size = (part.stop - part.start) * row
            if inflate:
                data = inflate.read(size)
            else:  # planes are read in turn from one file
                file.seek(layout.offsets[number] + part.start * row)
                data = file.read(size)
            if len(data) < size:
                raise ImageError("damaged or truncated image (pixels are missing).")
            numbers = np.frombuffer(data, layout.dtype).astype(layout.dtype.newbyteorder("="))
            yield _summed(numbers.reshape(-1, layout.width, layout.interleaved), layout)


class _Inflated:
    """Deflated bytes, read bit by bit."""

    def __init__(self, data: bytes) -> None:
        self._rest, self._inflate = data, zlib.decompressobj()

    def read(self, size: int) -> bytes:
        """Returns so many bytes, or fewer at the end."""
        with decoder_errors():
            data = self._inflate.decompress(self._rest, size)
        self._rest = self._inflate.unconsumed_tail
        return data


def _decoded_bands(file: IO[bytes], layout: _Layout, plane: int) -> Iterator[np.ndarray]:
    """Yields rows of a plane that Pillow decodes, some rows of blocks at a time.

    Pillow takes them for a grey file, of which it keeps 16 bits.
    """
    from PIL.TiffImagePlugin import TiffImageFile

    wide = layout.width * layout.interleaved
    together = max(1, _BAND // (layout.block_height * wide))  # rows of blocks
    if together * layout.block_height * wide > _MOST_NUMBERS:
        raise ImageError("TIFF whose strips are too large to be decoded one by one, refused.")
    for first in range(0, layout.down, together):
        last = min(first + together, layout.down)
        height = min(last * layout.block_height, layout.height) - first * layout.block_height
        start = plane * layout.down
        blocks = slice((start + first) * layout.across, (start + last) * layout.across)
        part = io.BytesIO(_grey_tiff(file, layout, height, blocks))
        with decoder_errors(), TiffImageFile(part, "") as image:
            image.load()
            numbers = np.asarray(image).astype(layout.dtype.newbyteorder("="))
        yield _summed(numbers.reshape(height, layout.width, layout.interleaved), layout)


def _grey_tiff(file: IO[bytes], layout: _Layout, height: int, blocks: slice) -> bytes:
    """Makes a grey TIFF of some blocks of a plane; its channels stand side by side."""
    data = []
    for offset, count in zip(layout.offsets[blocks], layout.counts[blocks], strict=True):
        file.seek(offset)
        data.append(file.read(count))
    tags = {
        _WIDTH: [layout.width * layout.interleaved],
        _HEIGHT: [height],
        _BITS: [layout.bits],
        _COMPRESSION: [layout.compression],
        _PHOTOMETRIC: [1],
        _CHANNELS: [1],
    }
    if layout.tiled:
        tags[_TILE_WIDTH] = [layout.block_width * layout.interleaved]
        tags[_TILE_HEIGHT] = [layout.block_height]
    else:
        tags[_ROWS] = [layout.block_height]
    part = io.BytesIO()
    write_tiff(part, tags, data, layout.order)
    return part.getvalue()


def _summed(numbers: np.ndarray, layout: _Layout) -> np.ndarray:
    """Sums the differences of rows (n, W, C) up, block by block; returns the numbers."""
    if not layout.differences:
        return numbers
    for left in range(0, layout.width, layout.block_width):
        block = numbers[:, left : left + layout.block_width]
        np.cumsum(block, axis=1, dtype=block.dtype, out=block)
    return numbers
