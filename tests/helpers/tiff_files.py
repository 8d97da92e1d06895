"""Writes TIFF files of all kinds by the specification (TIFF 6.0), with nothing of kmatting."""

import itertools
import struct
import zlib

import numpy as np


def tiff_bytes(
    pixels,
    photometric=None,
    planar=False,
    compression="none",
    order="<",
    extra=None,
    rows=None,
    tile=None,
    predictor=False,
    sample_format=None,
    bits=None,
    pages=1,
    subfile=0,
):
    """Returns a TIFF file of pixels (H, W) or (H, W, C) in their dtype.

    `extra` is the kind of the last channel, `rows` the rows of a strip, `tile` the side of a tile.
    """
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    height, width, channels = pixels.shape
    kind = sample_format or {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    if photometric is None:
        photometric = 2 if channels >= 3 else 1
    planes = [pixels[..., [c]] for c in range(channels)] if planar else [pixels]
    blocks = [block for plane in planes for block in _cut(plane, rows or height, tile)]
    coded = [_coded(block, order, compression, predictor) for block in blocks]
    tags = {
        254: (4, [subfile]),
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits or 8 * pixels.dtype.itemsize] * channels),
        259: (3, [{"none": 1, "lzw": 5, "deflate": 8}[compression]]),
        262: (3, [photometric]),
        277: (3, [channels]),
        284: (3, [2 if planar else 1]),
        339: (3, [kind] * channels),
    }
    if predictor:
        tags[317] = (3, [2])
    if extra is not None:
        tags[338] = (3, [extra])
    if tile:
        tags.update({322: (3, [tile]), 323: (3, [tile])})
    else:
        tags[278] = (4, [rows or height])
    body, offsets = bytearray(), []
    for each in coded:
        offsets.append(8 + len(body))
        body += each + bytes(len(each) % 2)
    tags[324 if tile else 273] = (4, offsets)
    tags[325 if tile else 279] = (4, [len(each) for each in coded])
    start = 8 + len(body)
    directory = _directories(tags, start, order, pages)
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, directory[0])
    return bytes(head + body + directory[1])


def _directories(tags, start, order, pages):
    """Returns where the first directory is, and the bytes of all: `pages` of the same."""
    values, entries = b"", []
    for tag, (kind, numbers) in sorted(tags.items()):
        data = struct.pack(f"{order}{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        if len(data) > 4:
            place = struct.pack(f"{order}I", start + len(values))
            values += data + bytes(len(data) % 2)
            data = place
        entries.append(struct.pack(f"{order}HHI", tag, kind, len(numbers)) + data.ljust(4, b"\0"))
    plain = struct.pack(f"{order}H", len(entries)) + b"".join(entries)
    first, length = start + len(values), len(plain) + 4
    chain = [first + length * page for page in range(1, pages)] + [0]
    return first, values + b"".join(plain + struct.pack(f"{order}I", after) for after in chain)


def _cut(plane, rows, tile):
    if not tile:
        return [plane[top : top + rows] for top in range(0, len(plane), rows)]
    padded = np.pad(plane, [(0, -side % tile) for side in plane.shape[:2]] + [(0, 0)])
    return [
        padded[top : top + tile, left : left + tile]
        for top, left in itertools.product(*(range(0, side, tile) for side in padded.shape[:2]))
    ]


def _coded(block, order, compression, predictor):
    if predictor:
        block = np.concatenate([block[:, :1], block[:, 1:] - block[:, :-1]], axis=1)
    data = block.astype(block.dtype.newbyteorder(order)).tobytes()
    return {"none": bytes, "deflate": zlib.compress, "lzw": _lzw}[compression](data)


def _lzw(data):
    """LZW that never looks back: it clears its table before codes grow to ten bits."""
    codes = []
    for start in range(0, len(data), 250):
        codes += [256, *data[start : start + 250]]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")
