"""Foregrounds of composites: the old background does not shine through, and is estimated once."""

import os

import numpy as np
import pytest
from PIL import Image

from kmatting.data import foregrounds, synthetic
from kmatting.data.checking import FileChecker
from kmatting.data.composites import CompositeSource, Cutout
from kmatting.data.config import DataConfig
from kmatting.data.foregrounds import ForegroundCache

SIZE = (96, 96)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/kmatting/foregrounds"


@pytest.fixture
def estimates(monkeypatch):
    """Records the sizes of the photos that are estimated."""
    shapes = []
    estimate = foregrounds.estimate_foreground

    def recorded(image, alpha):
        shapes.append(alpha.shape)
        return estimate(image, alpha)

    monkeypatch.setattr(foregrounds, "estimate_foreground", recorded)
    return shapes


def write_samples(root, count, size=(192, 192)):
    """Writes synthetic photos and mattes; returns their cutouts and their true foregrounds."""
    for folder in ("image", "alpha", "backgrounds"):
        (root / folder).mkdir()
    cutouts, truths = [], []
    for index in range(count):
        image, alpha = synthetic.sample(3, index, size)
        cutout = Cutout(root / "image" / f"{index}.png", root / "alpha" / f"{index}.png")
        Image.fromarray(image).save(cutout.foreground)
        Image.fromarray(alpha).save(cutout.alpha)
        cutouts.append(cutout)
        truths.append(synthetic.layers(3, index, size)[0])
    Image.new("RGB", (64, 64)).save(root / "backgrounds" / "black.png")
    return cutouts, truths


def soft_error(colours, truth, alpha):
    """Mean absolute colour error at half-transparent pixels, in [0, 1]."""
    soft = (alpha > 12) & (alpha < 243)
    return np.abs(colours[soft] / 255 - truth[soft]).mean()


def test_the_old_background_does_not_shine_through(tmp_path):
    cutouts, truths = write_samples(tmp_path, 12)
    own, estimated = [], []
    for cutout, truth in zip(cutouts, truths, strict=True):
        image, alpha = cutout.read()
        foreground, kept_alpha = ForegroundCache().load(cutout, SIZE)
        np.testing.assert_array_equal(kept_alpha, alpha)
        own.append(soft_error(image, truth, alpha))
        estimated.append(soft_error(foreground, truth, alpha))
    assert np.nanmean(estimated) < 0.5 * np.nanmean(own)


@pytest.mark.parametrize("estimate", [True, False])
def test_composites_use_it_by_default(tmp_path, estimates, estimate):
    write_samples(tmp_path, 3)
    source = {"kind": "composite", "foregrounds": tmp_path / "image", "alphas": tmp_path / "alpha"}
    source |= {"backgrounds": tmp_path / "backgrounds"}
    if not estimate:
        source["estimate_foreground"] = False
    (section,) = DataConfig(train=[source]).train
    samples = section.open(FileChecker())
    for lap in range(3):
        for index in range(3):
            assert samples.load(index, SIZE, (lap, index))[0].shape == (*SIZE, 3)
    assert len(estimates) == (3 if estimate else 0)
    # The validation part estimates as well.
    parts = samples.split(0.5)
    assert all((part.estimates is not None) == estimate for part in parts)


def test_cutouts_with_transparency_keep_their_colours(tmp_path, estimates):
    write_samples(tmp_path, 1)
    rgba = np.full((40, 40, 4), 128, np.uint8)
    Image.fromarray(rgba).save(tmp_path / "image" / "0.png")
    source = CompositeSource(foregrounds=tmp_path / "image", backgrounds=tmp_path / "backgrounds")
    samples = source.open(FileChecker())
    assert samples.load(0, SIZE, (0, 0))[0].shape == (*SIZE, 3)
    assert estimates == []


def test_an_estimate_is_made_once_until_a_file_changes(tmp_path, estimates):
    (cutout,), _ = write_samples(tmp_path, 1)
    first = ForegroundCache().load(cutout, SIZE)
    for kept, loaded in zip(first, ForegroundCache().load(cutout, SIZE), strict=True):
        np.testing.assert_array_equal(kept, loaded)
    assert len(estimates) == 1
    status = cutout.alpha.stat()
    os.utime(cutout.alpha, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    ForegroundCache().load(cutout, SIZE)
    assert len(estimates) == 2
    ForegroundCache().load(cutout, (48, 48))
    assert len(estimates) == 3


def test_a_damaged_file_of_the_cache_is_made_anew(tmp_path, cache, estimates):
    (cutout,), _ = write_samples(tmp_path, 1)
    first, _ = ForegroundCache().load(cutout, SIZE)
    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    again, _ = ForegroundCache().load(cutout, SIZE)
    np.testing.assert_array_equal(again, first)
    ForegroundCache().load(cutout, SIZE)
    assert len(estimates) == 2


def test_a_full_cache_keeps_what_was_used_last(tmp_path, cache, estimates):
    cutouts, _ = write_samples(tmp_path, 4)
    store = ForegroundCache()
    for second, cutout in enumerate(cutouts):
        store.load(cutout, SIZE)
        for path in cache.iterdir():
            if path.stat().st_mtime > 1000:
                os.utime(path, (second, second))
    total = sum(path.stat().st_size for path in cache.iterdir())
    ForegroundCache().load(cutouts[0], SIZE)  # is the newest now
    full = ForegroundCache(total - 1)
    assert len(list(cache.iterdir())) == 2
    estimates.clear()
    full.load(cutouts[0], SIZE)
    full.load(cutouts[3], SIZE)
    assert estimates == []
    none = ForegroundCache(0)
    assert list(cache.iterdir()) == []
    none.load(cutouts[0], SIZE)
    assert list(cache.iterdir()) == []


def test_without_a_cache_folder_the_estimate_is_repeated(tmp_path, monkeypatch, estimates):
    (cutout,), _ = write_samples(tmp_path, 1)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        ForegroundCache().load(cutout, SIZE)
    assert len(estimates) == 2


def test_a_large_photo_keeps_twice_the_size_of_its_subject(tmp_path, estimates):
    (cutout,), _ = write_samples(tmp_path, 1)
    alpha = np.zeros((600, 800), np.uint8)
    alpha[100:300, 200:500] = 200
    Image.fromarray(alpha).save(cutout.alpha)
    Image.fromarray(alpha).convert("RGB").save(cutout.foreground)
    _, reduced = ForegroundCache().load(cutout, (48, 48))
    assert reduced.shape == (300, 400)  # by 2: the subject has 200 rows, twice 48 are needed
