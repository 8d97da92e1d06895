"""HEIC files by another encoder than pillow-heif's: HEVC by FFmpeg, boxes by ISO/IEC 23008-12.

pillow-heif writes neither rotations nor tiles nor depth, which phones do.
"""

import re
import struct
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np

_PARAMETER_SETS = (32, 33, 34)  # types of NAL units: video, sequence and picture


def box(kind, *content):
    content = b"".join(content)
    return struct.pack(">I4s", len(content) + 8, kind) + content


def full_box(kind, version, flags, *content):
    return box(kind, struct.pack(">I", version << 24 | flags), *content)


@dataclass
class Item:
    """A coded picture, or a grid of others, with its properties (boxes)."""

    kind: bytes
    data: bytes
    properties: list[bytes] = field(default_factory=list)
    hidden: bool = False


def picture(rgb, *properties, depth=8, hidden=False):
    """Codes a uint8 array (H, W, 3), sides even."""
    units = _encode(np.ascontiguousarray(rgb), "yuv420p10le" if depth == 10 else "yuv420p")
    height, width = rgb.shape[:2]
    slices = [unit for unit in units if _type(unit) < 32]
    data = b"".join(struct.pack(">I", len(unit)) + unit for unit in slices)
    own = [_configuration(units, depth), size(height, width)]
    return Item(b"hvc1", data, [*own, *properties], hidden)


def grid(rows, columns, height, width, *properties):
    """An item whose picture is that of the tiles that it refers to by `dimg`."""
    data = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)
    return Item(b"grid", data, [size(height, width), *properties])


def size(height, width):
    return full_box(b"ispe", 0, 0, struct.pack(">II", width, height))


def rotated(quarters):
    """Says that a picture is to be turned by 90 degrees to the left, so many times."""
    return box(b"irot", bytes([quarters]))


def mirrored(axis):
    """Says that a picture is to be mirrored: 0 top to bottom, 1 left to right."""
    return box(b"imir", bytes([axis]))


def colours(primaries, transfer):
    """Names the colours of a picture by code points (ITU-T H.273), with the matrix of BT.601."""
    return box(b"colr", b"nclx", struct.pack(">HHHB", primaries, transfer, 6, 0))


def auxiliary(kind):
    """Says what an auxiliary picture is, by its URN."""
    return full_box(b"auxC", 0, 0, kind + b"\0")


def write(path, items, references=()):
    """Writes a file. The first item is shown.

    References are (kind, from, to...) with indices of items.
    """
    properties = list(dict.fromkeys(each for item in items for each in item.properties))
    entries = []
    for number, item in enumerate(items, 1):
        indices = [properties.index(each) + 1 for each in item.properties]
        essential = [properties[index - 1][4:8] in (b"hvcC", b"irot", b"imir") for index in indices]
        flags = [0x80 * needed | index for index, needed in zip(indices, essential, strict=True)]
        entries.append(struct.pack(">HB", number, len(flags)) + bytes(flags))
    associations = full_box(b"ipma", 0, 0, struct.pack(">I", len(items)), *entries)
    information = [
        full_box(b"infe", 2, int(item.hidden), struct.pack(">HH", number, 0), item.kind, b"\0")
        for number, item in enumerate(items, 1)
    ]
    linked = [
        box(kind, struct.pack(f">HH{len(to)}H", start + 1, len(to), *(end + 1 for end in to)))
        for kind, start, *to in references
    ]

    def meta(start):
        places = []
        for number, item in enumerate(items, 1):
            places.append(struct.pack(">HHHII", number, 0, 1, start, len(item.data)))
            start += len(item.data)
        count = struct.pack(">H", len(items))
        return full_box(
            b"meta", 0, 0,
            full_box(b"hdlr", 0, 0, struct.pack(">I4s", 0, b"pict"), bytes(13)),
            full_box(b"pitm", 0, 0, struct.pack(">H", 1)),
            full_box(b"iloc", 0, 0, b"\x44\0", count, *places),
            full_box(b"iinf", 0, 0, count, *information),
            full_box(b"iref", 0, 0, *linked) if linked else b"",
            box(b"iprp", box(b"ipco", *properties), associations),
        )  # fmt: skip

    kind = box(b"ftyp", b"heic", struct.pack(">I", 0), b"mif1heic")
    start = len(kind) + len(meta(0)) + 8
    path.write_bytes(kind + meta(start) + box(b"mdat", *(item.data for item in items)))
    return path


def _encode(rgb, pixels):
    """Returns the NAL units of one picture."""
    encoder = av.CodecContext.create("libx265", "w")
    encoder.height, encoder.width = rgb.shape[:2]
    encoder.pix_fmt, encoder.time_base = pixels, Fraction(1)
    encoder.options = {"x265-params": "keyint=1:crf=10:log-level=none"}
    frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=pixels)
    stream = b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
    return [unit for unit in re.split(b"\0\0\0?\1", stream) if unit]


def _type(unit):
    return unit[0] >> 1 & 63


def _configuration(units, depth):
    """The box `hvcC` (ISO/IEC 14496-15, 8.3.3.1): profile, depths and parameter sets."""
    sets = {kind: [unit for unit in units if _type(unit) == kind] for kind in _PARAMETER_SETS}
    profile = sets[33][0].replace(b"\0\0\3", b"\0\0")[3:15]
    chroma = (0xF000, 0xFC, 0xFC | 1, 0xF8 | depth - 8, 0xF8 | depth - 8, 0, 0x0F)
    arrays = b""
    for kind, found in sets.items():
        arrays += struct.pack(">BH", 0x80 | kind, len(found))
        arrays += b"".join(struct.pack(">H", len(unit)) + unit for unit in found)
    return box(b"hvcC", b"\1", profile, struct.pack(">HBBBBHB", *chroma), b"\3", arrays)
