"""Colours named by code points: known pairs of values."""

import numpy as np
import pytest

from kmatting.images.nclx import is_other_than_srgb, to_srgb


def one(colour, primaries, transfer):
    return to_srgb(np.uint8([[colour]]), primaries, transfer)[0, 0].tolist()


@pytest.mark.parametrize(
    ("colour", "primaries", "transfer", "expected"),
    [
        ((234, 51, 35), 12, 13, (255, 0, 0)),  # sRGB's red in Display P3
        ((255, 0, 0), 12, 13, (255, 0, 0)),  # beyond sRGB: clipped
        ((117, 251, 76), 12, 13, (0, 255, 0)),
        ((128, 128, 128), 12, 13, (128, 128, 128)),
        ((148, 148, 148), 9, 16, (255, 255, 255)),  # PQ: 0.58 is 203 candela
        ((255, 255, 255), 9, 16, (255, 255, 255)),
        ((130, 130, 130), 9, 16, (185, 185, 185)),  # 100 candela, 0.49 of white
        ((191, 191, 191), 9, 18, (255, 255, 255)),  # HLG: 0.75 is 203 candela
        ((0, 0, 0), 9, 18, (0, 0, 0)),
    ],
)
def test_known_colours(colour, primaries, transfer, expected):
    assert one(colour, primaries, transfer) == pytest.approx(expected, abs=4)


def test_srgb_stays_as_it_is():
    levels = np.arange(256, dtype=np.uint8).reshape(1, -1, 1).repeat(3, axis=2)
    assert np.abs(to_srgb(levels, 1, 13).astype(int) - levels).max() <= 1
    assert not is_other_than_srgb(1, 13)
    assert is_other_than_srgb(1, 18) and is_other_than_srgb(12, 13)


def test_a_photo_of_many_rows_is_converted_whole():
    rows = np.full((700, 2, 3), 148, np.uint8)
    assert (to_srgb(rows, 9, 16) >= 251).all()
