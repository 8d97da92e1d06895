import numpy as np
import pytest

from kmatting.errors import UsageError
from kmatting.images.panel import draw_panel


def test_pictures_stand_in_rows_and_columns():
    red, green = np.zeros((2, 20, 20, 3), np.uint8)
    red[..., 0], green[..., 1] = 255, 255
    panel = draw_panel([[red, green], [green, red]], cell=40)
    height, width = panel.shape[:2]
    assert panel.dtype == np.uint8
    for (row, column), colour in {
        (0.25, 0.25): (255, 0, 0),
        (0.25, 0.75): (0, 255, 0),
        (0.75, 0.25): (0, 255, 0),
        (0.75, 0.75): (255, 0, 0),
    }.items():
        assert tuple(panel[int(row * height), int(column * width)]) == colour


def test_floats_and_greys_become_levels():
    alpha = np.full((16, 16, 1), 0.5, "float32")
    panel = draw_panel([[alpha, alpha[..., 0], np.full((16, 16), 128, np.uint8)]], cell=16)
    middle = panel[panel.shape[0] // 2]
    assert (middle == 128).all(axis=1).sum() == 3 * 16


def test_shape_is_kept():
    white = np.full((10, 40), 255, np.uint8)
    rows, columns = np.nonzero((draw_panel([[white]], cell=80) == 255).all(axis=2))
    assert np.ptp(columns) + 1 == 80
    assert np.ptp(rows) + 1 == 20


def test_one_pixel_wide_picture_does_not_vanish():
    assert (draw_panel([[np.full((900, 1), 255, np.uint8)]], cell=64) == 255).all(axis=2).any()


def test_captions_take_room():
    picture = np.zeros((16, 16), np.uint8)
    plain = draw_panel([[picture]])
    captioned = draw_panel([[picture]], captions=("image",), row_captions=("first",))
    assert captioned.shape[0] > plain.shape[0]
    assert captioned.shape[1] == plain.shape[1]


@pytest.mark.parametrize("rows", [[], [[]], [[np.zeros((4, 4))], []]])
def test_uneven_rows_are_refused(rows):
    with pytest.raises(ValueError, match="rows of one common length"):
        draw_panel(rows)


@pytest.mark.parametrize("cell", [-1, 0, 15, 4097])
def test_a_cell_has_a_side(cell):
    with pytest.raises(UsageError, match=f"cell: expected .* received {cell}"):
        draw_panel([[np.zeros((4, 4), np.uint8)]], cell=cell)
