"""Converts decoded frames: YUV of any depth and colour space to upright sRGB of 8 bits."""

from fractions import Fraction

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc

from kmatting.images import Photo

_UNSPECIFIED = 2  # in FFmpeg's list of colour spaces
_HD_HEIGHT = 720  # from here on a video without a tag means BT.709, below BT.601
_HDR = {ColorTrc.SMPTE2084: "PQ", ColorTrc.ARIB_STD_B67: "HLG"}
_WIDE = (ColorPrimaries.BT2020, ColorPrimaries.SMPTE431, ColorPrimaries.SMPTE432)


class Converter:
    """Converts the frames of one video to photos of one size.

    Args:
        first: the first frame.
        aspect: width of a pixel by its height. The frames are stretched so that it becomes 1.

    Attributes:
        notes: what is changed, one line each.
    """

    def __init__(self, first: av.VideoFrame, aspect: Fraction) -> None:
        self.notes: list[str] = []
        self._coded = first.width, first.height
        self._width, self._height = square_size(first.width, first.height, aspect)
        self._graph: av.filter.Graph | None = None
        self._graph_of: tuple[object, ...] = ()
        # Of the first frame only: PyAV's side data hold their frame until the garbage collector
        # runs, which would be hundreds of frames later.
        self._turn = _display_matrix(first)
        if aspect != 1:
            self._note(f"pixels that are not square: stretched to {self._width}x{self._height}")

    def __call__(self, picture: av.VideoFrame) -> Photo:
        """Converts a frame."""
        if picture.interlaced_frame:
            self._note("interlaced: the two fields of a frame are not separated")
        if (picture.width, picture.height) != self._coded:
            self._note(f"its size changes: all frames are scaled to {self._width}x{self._height}")
        if picture.color_trc in _HDR or picture.color_primaries in _WIDE:
            picture = self._in_srgb(picture)
        elif picture.colorspace == _UNSPECIFIED and picture.height >= _HD_HEIGHT:
            picture.colorspace = Colorspace.ITU709
        transparent = any(part.is_alpha for part in picture.format.components)
        pixels = picture.to_ndarray(
            width=self._width, height=self._height, format="rgba" if transparent else "rgb24"
        )
        pixels = _upright(pixels, self._turn)
        if not transparent:
            return Photo(pixels)
        opacity = np.ascontiguousarray(pixels[..., 3])
        rgb = np.ascontiguousarray(pixels[..., :3])
        return Photo(rgb, opacity)

    def _in_srgb(self, picture: av.VideoFrame) -> av.VideoFrame:
        """Converts colours beyond sRGB, by FFmpeg's filter."""
        if kind := _HDR.get(picture.color_trc):
            self._note(f"HDR ({kind}): converted to SDR; what is brighter than white is clipped")
        of = (picture.width, picture.height, picture.format.name)
        if self._graph is None or self._graph_of != of:
            self._graph, self._graph_of = _srgb_graph(picture), of
        self._graph.vpush(picture)
        return self._graph.vpull()

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def square_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Returns width and height of a frame once its pixels are square."""
    return max(1, round(width * aspect)), height


def _srgb_graph(picture: av.VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(
            width=picture.width,
            height=picture.height,
            format=picture.format,
            time_base=picture.time_base,
        ),
        graph.add("scale", "out_transfer=bt709:out_primaries=bt709"),
        graph.add("format", "pix_fmts=rgb24"),
        graph.add("buffersink"),
    ).configure()
    return graph


def _display_matrix(picture: av.VideoFrame) -> np.ndarray | None:
    """Returns how a frame is to be turned: [[a, b], [c, d]] with x' = ax + cy, y' = bx + dy."""
    for data in picture.side_data:
        if data.type == SideData.DISPLAYMATRIX:
            return np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2]
    return None


def _upright(pixels: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Turns a frame by a multiple of 90 degrees, and mirrors it, as its display matrix says."""
    if matrix is None:
        return pixels
    (a, b), (c, d) = matrix
    if abs(b) > abs(a):  # sideways
        pixels = pixels.transpose(1, 0, 2)
        a, d = c, b
    if a < 0:
        pixels = pixels[:, ::-1]
    if d < 0:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
