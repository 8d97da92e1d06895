"""Tiles cover an area once and show the same as the whole."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kmatting.images.tiles import enlarge_tile, tiles

SIDES = st.integers(1, 60)


@settings(deadline=None)
@given(height=SIDES, width=SIDES, side=st.integers(1, 25))
def test_tiles_cover_each_pixel_once(height, width, side):
    times = np.zeros((height, width), int)
    for rows, columns in tiles(height, width, side):
        assert times[rows, columns].size <= side**2
        times[rows, columns] += 1
    assert (times == 1).all()


@settings(deadline=None)
@given(small=st.tuples(st.integers(1, 9), st.integers(1, 9)), large=st.tuples(SIDES, SIDES))
def test_a_tile_is_a_part_of_the_whole_enlargement(small, large):
    picture = np.random.default_rng(0).random(small, np.float32)
    whole = np.asarray(Image.fromarray(picture).resize(large[::-1], Image.Resampling.BILINEAR))
    for tile in tiles(*large, 17):
        np.testing.assert_allclose(enlarge_tile(picture, large, *tile), whole[tile], atol=1e-4)
