"""The second look at a small subject: which part it takes, how it is joined, what it brings."""

import importlib
import pickle

import numpy as np
import pytest
import red_model
from demo_server import free_port
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kmatting import Matter
from kmatting.errors import UsageError
from kmatting.images import read_photo
from kmatting.inference.second_look import find_part, join


def alpha_of(shape, rows, columns):
    """A matte that is 1 in a rectangle."""
    alpha = np.zeros(shape, np.float32)
    alpha[rows, columns] = 1
    return alpha


def test_the_part_is_the_subject_with_a_margin():
    alpha = alpha_of((40, 80), slice(10, 20), slice(40, 60))
    # Ten times as large; the longer side is 200 pixels, a margin 30.
    assert find_part(alpha, 400, 800) == (slice(70, 230), slice(370, 630))


def test_the_part_ends_where_the_photo_does():
    alpha = alpha_of((40, 80), slice(0, 10), slice(70, 80))
    assert find_part(alpha, 400, 800) == (slice(0, 115), slice(685, 800))


@pytest.mark.parametrize("rows", [slice(0, 0), slice(0, 60)])
def test_no_part_without_a_subject_or_of_a_large_one(rows):
    assert find_part(alpha_of((80, 80), rows, slice(5, 75)), 300, 300) is None


def test_where_both_looks_agree_the_finer_one_counts():
    first = alpha_of((32, 32), slice(12, 20), slice(12, 20))
    part = find_part(first, 512, 512)
    height, width = (each.stop - each.start for each in part)
    second = np.zeros((height // 4, width // 4), np.float32)
    second[5:-5, 5:-5] = 0.9
    joined = join(first, second, part, 512, 512)
    assert joined.shape == (128, 128)  # as fine as the second look, a quarter of the photo
    np.testing.assert_allclose(joined[56:72, 56:72], 0.9, atol=0.01)
    assert not joined[:40].any()


def test_where_they_do_not_agree_the_first_one_stays():
    first = alpha_of((32, 32), slice(12, 20), slice(12, 20))
    part = find_part(first, 512, 512)
    second = np.zeros((40, 40), np.float32)
    second[10:20, 10:30] = 1  # half of the subject
    assert join(first, second, part, 512, 512) is first


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10_000),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
)
def test_any_sizes_give_a_matte_between_both_looks(seed, size, finer, photo):
    rng = np.random.default_rng(seed)
    first = rng.uniform(0.6, 0.7, size).astype(np.float32)
    second = rng.uniform(0.8, 0.9, finer).astype(np.float32)
    stops = [int(rng.integers(1, side + 1)) for side in photo]
    part = tuple(slice(int(rng.integers(stop)), stop) for stop in stops)
    joined = join(first, second, part, *photo)
    assert joined.dtype == np.float32
    assert 0.599 < joined.min() <= joined.max() < 0.901


@pytest.fixture(scope="module")
def photo():
    """A small striped subject: stripes that the network's 48x64 pixels cannot show."""
    photo = np.zeros((480, 640, 3), np.uint8)
    photo[200:280, 280:360, 0] = 180
    photo[200:280, 280:360:8, 0] = 255
    return photo


def matte(photo, quality):
    return Matter(red_model.folder() / "red.tflite", quality=quality).predict_small(photo)


def test_a_second_look_sees_what_the_first_could_not(photo):
    read = read_photo(photo)
    fast, normal = matte(read, "fast"), matte(read, "normal")
    assert normal.shape > fast.shape
    inner = normal[tuple(slice(int(0.46 * side), int(0.54 * side)) for side in normal.shape)]
    assert np.ptp(inner) > 0.08
    assert np.ptp(fast[22:26, 30:34]) < 0.03


@pytest.mark.parametrize(("quality", "runs"), [("fast", 1), ("normal", 2), ("high", 4)])
def test_a_quality_is_so_many_runs_of_the_network(photo, quality, runs, monkeypatch):
    matter = pickle.loads(pickle.dumps(Matter(red_model.folder() / "red.tflite", quality=quality)))
    network, batches = matter._network, []
    monkeypatch.setattr(matter, "_network", network)
    original = network.run
    monkeypatch.setattr(network, "run", lambda batch: batches.append(batch) or original(batch))
    assert matter(photo).alpha.shape == (480, 640)
    assert len(batches) == runs


def test_high_quality_is_the_mean_over_a_photo_and_its_mirror_image(monkeypatch):
    ramp = np.linspace(0.6, 1, 130, dtype=np.float32)  # a network that says less of the left

    def predict(self, image, name, size=None):
        return image[..., 0] / np.float32(255) * ramp

    monkeypatch.setattr(Matter, "_predict", predict)
    photo = np.random.default_rng(0).integers(230, 256, (90, 130, 3), dtype=np.uint8)
    expected = photo[..., 0] / 255 * (ramp + ramp[::-1]) / 2  # no part: it is all subject
    np.testing.assert_allclose(matte(read_photo(photo), "high"), expected, atol=1e-6)


def test_another_quality_is_refused():
    with pytest.raises(UsageError, match="expected fast, normal, high; received 'best'"):
        Matter(red_model.folder() / "red.tflite", quality="best")


@pytest.mark.parametrize(
    ("module", "needed", "arguments"),
    [
        ("kmatting.predict", "PIL", ["{photo}", "-o", "{out}.png"]),
        ("kmatting.evaluate", "PIL", ["--data", "{folder}", "{folder}"]),
        ("kmatting.video.__main__", "av", ["{clip}", "-o", "{out}.gif"]),
        ("kmatting.batch.__main__", "apache_beam", ["--input", "{photo}", "--output", "{out}"]),
        ("kmatting.demo.__main__", "gradio", ["--port", "{port}"]),
    ],
)
def test_every_command_hands_the_quality_on(module, needed, arguments, tmp_path, monkeypatch):
    pytest.importorskip(needed)
    received = []

    def stand_in(*arguments, **named):
        received.extend([*arguments, *named.values()])
        raise UsageError("that is all")

    photos = [Image.new("L", (32, 32), level) for level in (0, 255)]
    (tmp_path / "photos").mkdir()
    photos[0].save(tmp_path / "photos" / "photo.png")
    photos[0].save(tmp_path / "clip.gif", save_all=True, append_images=photos[1:])
    names = {
        "photo": tmp_path / "photos" / "photo.png",
        "folder": tmp_path / "photos",
        "clip": tmp_path / "clip.gif",
        "out": tmp_path / "out",
        "port": free_port(),
    }
    found = importlib.import_module(module)
    holder = {
        "kmatting.evaluate": "kmatting.inference.matter",
        "kmatting.batch.__main__": "kmatting.batch.pipeline",
    }.get(module, module)
    monkeypatch.setattr(importlib.import_module(holder), "Matter", stand_in)
    options = [each.format(**names) for each in arguments]
    assert found.main([*options, "--quality", "high"]) != 0
    assert "high" in received
