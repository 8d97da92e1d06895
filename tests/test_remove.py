"""`kmatting.remove`, and what else the package shows."""

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from skimage import data

import kmatting
from kmatting.errors import ImageWarning


@pytest.fixture(scope="module")
def photo():
    return Image.fromarray(data.astronaut()).resize((128, 128))


@pytest.fixture(scope="module")
def expected(photo):
    return np.asarray(kmatting.Matter()(photo).cutout())


def test_the_cutout_comes_in_the_kind_of_the_photo(photo, expected, tmp_path):
    assert 0.1 < (expected[..., 3] > 200).mean() < 0.9  # the astronaut
    photo.save(tmp_path / "photo.png")
    encoded = (tmp_path / "photo.png").read_bytes()
    for source in (tmp_path / "photo.png", str(tmp_path / "photo.png"), photo):
        cutout = kmatting.remove(source)
        assert isinstance(cutout, Image.Image)
        np.testing.assert_array_equal(np.asarray(cutout), expected)
    array = kmatting.remove(np.asarray(photo))
    assert isinstance(array, np.ndarray)
    np.testing.assert_array_equal(array, expected)
    for source in (encoded, bytearray(encoded), memoryview(encoded), io.BytesIO(encoded)):
        png = kmatting.remove(source)
        assert isinstance(png, bytes)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), expected)


def test_threads_share_one_model(photo, expected, monkeypatch):
    from kmatting.inference import remove as module

    module._default_matter.cache_clear()
    loaded = []

    class Counting(kmatting.Matter):
        def __init__(self):
            loaded.append(self)
            super().__init__()

    monkeypatch.setattr(module, "Matter", Counting)
    with ThreadPoolExecutor(4) as pool:
        cutouts = list(pool.map(kmatting.remove, [photo] * 8))
    module._default_matter.cache_clear()
    assert len(loaded) == 1
    for cutout in cutouts:
        np.testing.assert_array_equal(np.asarray(cutout), expected)


def test_what_is_no_photo():
    with pytest.raises(TypeError, match="Expected a photo"):
        kmatting.remove([1, 2, 3])


def test_the_package_shows_its_public_names_only():
    code = "import kmatting, sys; print(*dir(kmatting)); assert 'numpy' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        *("Error", "Matte", "Matter", "Wanted", "__version__"),
        *("evaluate", "export", "load_model", "remove", "train"),
    ]
    for name in ("Matte", "Matter", "Wanted", "remove"):
        assert getattr(kmatting, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = kmatting.nothing


def test_an_animation_of_which_one_frame_is_cut_out_is_named(photo, tmp_path):
    path = tmp_path / "moving.gif"
    photo.save(path, save_all=True, append_images=[Image.new("RGB", photo.size)])
    with pytest.warns(ImageWarning, match="moving.gif: holds several frames"):
        kmatting.remove(path)
