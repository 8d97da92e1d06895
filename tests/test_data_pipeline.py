"""The pipeline: order, resume, weights, validation, and files that go bad."""

import itertools
import os
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from kmatting.config import DataConfig
from kmatting.data import pipeline
from kmatting.data.samples import stem_fraction
from kmatting.errors import DataError

STILL = {"rotation_degrees": 0, "horizontal_flip": False, "vertical_flip": False}


def write_pairs(root, count, size=(16, 16), first=0):
    """Writes pairs that their grey tells apart: number n has alpha 145 + n and image 110 - n."""
    for folder in ("image", "alpha"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        alpha = Image.new("L", size[::-1], 145 + number)
        alpha.save(root / "alpha" / f"{number:03d}.png")
        image = Image.new("RGB", size[::-1], (110 - number,) * 3)
        image.save(root / "image" / f"{number:03d}.png")
    return {"kind": "pairs", "images": root / "image", "alphas": root / "alpha"}


def build(train, batch_size=4, seed=7, **data):
    settings = {"size": 16, "validation": 0.0, "augmentation": STILL, **data}
    return pipeline.build(DataConfig(train=train, **settings), seed, batch_size)


def numbers(dataset, batches):
    """Returns which pairs the first batches hold."""
    found = []
    for image, alpha, *_ in itertools.islice(dataset, batches):
        np.testing.assert_array_equal(image[..., :1] + alpha, 255)
        found += (alpha[:, 0, 0, 0] - 145).tolist()
    return found


def taken(batches, count):
    return list(itertools.islice(batches, count))


def same(first, second):
    for one, other in zip(first, second, strict=True):
        for left, right in zip(one, other, strict=True):
            np.testing.assert_array_equal(left, right)


def test_batches_have_the_promised_shapes_and_ranges(tmp_path):
    data = build([write_pairs(tmp_path, 6, (40, 30))], size=(16, 32), augmentation={})
    image, alpha = next(iter(data.train()))
    assert image.shape == (4, 16, 32, 3)
    assert alpha.shape == (4, 16, 32, 1)
    assert (image.dtype, alpha.dtype) == (np.uint8, np.int16)
    assert 0 <= alpha.min() <= alpha.max() <= 255


def test_an_epoch_holds_every_sample_and_fills_up_its_last_batch(tmp_path):
    data = build([write_pairs(tmp_path, 10)])
    assert (data.train_samples, data.steps_per_epoch) == (10, 3)
    order = numbers(data.train(), 9)
    epochs = [order[:12], order[12:24], order[24:]]
    for epoch in epochs:
        assert sorted(epoch[:10]) == list(range(10))
        assert len(set(epoch[10:])) == 2
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_outlines_of_coarse_pairs_are_unknown_in_training_only(tmp_path):
    for folder in ("image", "alpha"):
        (tmp_path / folder).mkdir()
        half = np.zeros((100, 100), np.uint8)
        half[:, 50:] = 255
        Image.fromarray(half).save(tmp_path / folder / "half.png")
    source = {"kind": "pairs", "images": tmp_path / "image", "alphas": tmp_path / "alpha"}
    for coarse in (True, False):
        data = build([{**source, "coarse": coarse}], size=96, batch_size=1)
        _, alpha = next(iter(data.train()))
        assert (alpha == -1).any() == coarse
        assert data.panel_samples(1)[1].min() == 0


def test_a_batch_larger_than_the_set_is_full_too(tmp_path):
    data = build([write_pairs(tmp_path, 3)], batch_size=8)
    assert data.steps_per_epoch == 1
    assert sorted(Counter(numbers(data.train(), 1)).values()) == [2, 3, 3]


def test_the_same_seed_gives_the_same_batches_and_another_seed_others(tmp_path):
    source = write_pairs(tmp_path, 10)
    first, again = build([source], augmentation={}), build([source], augmentation={})
    same(taken(first.train(), 6), taken(again.train(), 6))
    assert numbers(build([source]).train(), 3) != numbers(build([source], seed=8).train(), 3)


def test_a_resumed_run_goes_on_as_the_uninterrupted_one(tmp_path):
    (tmp_path / "bg").mkdir()
    Image.radial_gradient("L").save(tmp_path / "bg" / "a.png")
    pairs = write_pairs(tmp_path, 7)
    composites = {
        "kind": "composite",
        "foregrounds": pairs["images"],
        "alphas": pairs["alphas"],
        "backgrounds": tmp_path / "bg",
    }
    train = [pairs, composites, {"kind": "synthetic", "count": 5, "weight": 0.5}]
    data = build(train, augmentation={"fit": "crop"})
    resumed = build(train, augmentation={"fit": "crop"}).train(2 * data.steps_per_epoch)
    whole = taken(data.train(), 2 * data.steps_per_epoch + 6)
    same(taken(resumed, 6), whole[-6:])


def test_weights_decide_how_often_samples_come(tmp_path):
    half = write_pairs(tmp_path / "half", 10) | {"weight": 0.5}
    more = write_pairs(tmp_path / "more", 4, first=100) | {"weight": 2.5}
    data = build([half, more], batch_size=5)
    assert data.train_samples == 15
    order = numbers(data.train(), 30)
    chosen = []
    for epoch in np.reshape(order, (10, 15)):
        counts = Counter(epoch.tolist())
        chosen.append(sorted(number for number in counts if number < 100))
        assert len(chosen[-1]) == 5
        assert all(counts[number] == 1 for number in chosen[-1])
        assert sorted(counts[number] for number in range(100, 104)) == [2, 2, 3, 3]
    # Another half each epoch, so that all come in the end.
    assert len(set(map(tuple, chosen))) > 5
    assert set().union(*chosen) == set(range(10))


def test_composites_and_synthetic_samples_are_new_in_each_epoch(tmp_path):
    source = write_pairs(tmp_path, 1, first=55)
    (tmp_path / "bg").mkdir()
    Image.radial_gradient("L").save(tmp_path / "bg" / "a.png")
    composites = {
        "kind": "composite",
        "foregrounds": source["images"],
        "alphas": source["alphas"],
        "backgrounds": tmp_path / "bg",
    }
    for train in (composites, {"kind": "synthetic", "count": 1}):
        images = [image for image, _ in taken(build([train], batch_size=1).train(), 4)]
        assert len({image.tobytes() for image in images}) == 4


def test_a_composite_has_the_size_that_its_source_names(tmp_path):
    for folder in ("fg", "bg"):
        (tmp_path / folder).mkdir()
    Image.new("LA", (40, 40), (200, 255)).crop((-20, -20, 60, 60)).save(tmp_path / "fg" / "a.png")
    Image.radial_gradient("L").save(tmp_path / "bg" / "a.png")
    source = {"kind": "composite", "foregrounds": tmp_path / "fg", "backgrounds": tmp_path / "bg"}
    data = build([source | {"scale": [0.25, 0.25]}], batch_size=1, augmentation={})
    for _, alpha in taken(data.train(), 3):
        assert (alpha > 127).mean() == pytest.approx(0.25**2, rel=0.1)


def test_validation_holds_every_sample_once_and_its_weights_make_the_mean(tmp_path):
    source = write_pairs(tmp_path, 10)
    data = build([source], validation=[source], augmentation={})
    assert (data.validation_samples, data.validation_steps) == (10, 3)
    batches = list(data.validation())
    assert [len(weight) for _, _, weight in batches] == [4, 4, 4]
    assert all(weight.dtype == np.float32 for _, _, weight in batches)
    weights = np.concatenate([weight for _, _, weight in batches])
    np.testing.assert_allclose(weights, [1.2] * 10 + [0] * 2, rtol=1e-6)
    assert numbers(data.validation(), 3) == [*range(10), 9, 9]
    same(batches, data.validation())


def test_a_share_held_out_by_hash_is_never_trained_on(tmp_path):
    source = write_pairs(tmp_path, 100)
    data = build([source], validation=0.2)
    held_out = numbers(data.validation(), data.validation_steps)[: data.validation_samples]
    expected = [number for number in range(100) if stem_fraction(f"{number:03d}") < 0.2]
    assert held_out == expected
    assert 10 < len(expected) < 30
    trained = set(numbers(data.train(), 2 * data.steps_per_epoch))
    assert trained == set(range(100)) - set(expected)


def test_of_few_files_at_least_one_is_held_out(tmp_path):
    data = build([write_pairs(tmp_path, 3)], validation=0.001)
    assert (data.train_samples, data.validation_samples) == (2, 1)


def test_a_source_is_never_held_out_whole_in_silence(tmp_path):
    stem = next(n for n in range(900) if stem_fraction(f"{n:03d}") < 0.1)
    lost = write_pairs(tmp_path / "lost", 1, first=stem % 100)
    (tmp_path / "lost/image" / f"{stem % 100:03d}.png").rename(
        tmp_path / "lost/image" / f"{stem:03d}.png"
    )
    (tmp_path / "lost/alpha" / f"{stem % 100:03d}.png").rename(
        tmp_path / "lost/alpha" / f"{stem:03d}.png"
    )
    with pytest.raises(DataError, match=r"holds out every sample of .*lost.image \(1 samples\)"):
        build([write_pairs(tmp_path, 40), lost], validation=0.1)


def test_a_source_that_is_not_validated_is_named(tmp_path):
    stem = next(n for n in range(100) if stem_fraction(f"{n:03d}") > 0.5)
    unseen = write_pairs(tmp_path / "unseen", 1, first=stem)
    with pytest.warns(UserWarning, match=r"no sample of .*unseen.image"):
        data = build([write_pairs(tmp_path, 40), unseen], validation=0.1)
    assert len(data.training_sets) == 2
    assert len(data.validation_sets) == 1


def test_backgrounds_are_photos_with_an_empty_alpha(tmp_path):
    images = write_pairs(tmp_path, 10, (100, 80))["images"]
    data = build([{"kind": "backgrounds", "images": images}], validation=0.2, batch_size=2)
    assert data.validation_samples == sum(stem_fraction(f"{n:03d}") < 0.2 for n in range(10))
    for dataset in (taken(data.train(), 4), data.validation()):
        for image, alpha, *_ in dataset:
            assert image.shape == (2, 16, 16, 3)
            assert image.min() > 76
            np.testing.assert_array_equal(alpha, 0)


def test_left_out_files_are_named_once(tmp_path):
    source = write_pairs(tmp_path, 3)
    for name in ("a.dng", "b.dng", "c.txt"):
        (tmp_path / "image" / name).write_bytes(b"")
    with pytest.warns(UserWarning, match=r"image: left out 2 \.dng, 1 \.txt: not photos") as caught:
        build([source, source | {"weight": 2}])
    assert len(caught) == 1
    assert str(caught[0].message).count("left out") == 1


def test_what_is_wrong_in_a_folder_is_said_once(tmp_path):
    source = write_pairs(tmp_path, 3)
    (tmp_path / "image" / "bad.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"^1 problem in the training data") as raised:
        build([source, source | {"weight": 2}])
    assert str(raised.value).count("bad.png") == 1


def test_a_single_file_cannot_be_split(tmp_path):
    with pytest.raises(DataError, match="validation"):
        build([write_pairs(tmp_path, 1)], validation=0.1)


def test_synthetic_validation_is_fixed_and_not_trained_on():
    data = build([{"kind": "synthetic", "count": 20}], validation=0.25, batch_size=5)
    assert (data.train_samples, data.validation_samples) == (20, 5)
    held_out = list(data.validation())
    same(held_out, data.validation())
    seen = {image.tobytes() for batch, _ in taken(data.train(), 12) for image in batch}
    assert len(seen) == 60
    assert not seen & {image.tobytes() for image in held_out[0][0]}


def test_without_validation_there_is_none(tmp_path):
    data = build([write_pairs(tmp_path, 3)])
    assert list(data.validation()) == []
    assert (data.validation_steps, data.validation_samples) == (0, 0)


@pytest.mark.parametrize("validation", [0.3, 0.0])
def test_panel_samples_are_fixed_and_spread(tmp_path, validation):
    data = build([write_pairs(tmp_path, 40)], validation=validation, augmentation={})
    images, alphas = data.panel_samples(4)
    assert images.shape == (4, 16, 16, 3)
    assert alphas.shape == (4, 16, 16, 1)
    assert images.dtype == alphas.dtype == np.float32
    same([data.panel_samples(4)], [(images, alphas)])
    assert len(np.unique(alphas)) == 4
    assert len(data.panel_samples(99)[0]) == (data.validation_samples or 40)


def test_large_photos_are_decoded_at_a_reduced_scale_with_their_alphas(tmp_path):
    y, x = np.mgrid[:301, :403]
    alpha = ((x // 40 + y // 40) % 2 * 255).astype(np.uint8)
    for folder in ("image", "alpha"):
        (tmp_path / folder).mkdir()
    Image.fromarray(alpha).save(tmp_path / "alpha" / "a.png")
    Image.fromarray(alpha).convert("RGB").save(tmp_path / "image" / "a.jpg", quality=95)
    source = {"kind": "pairs", "images": tmp_path / "image", "alphas": tmp_path / "alpha"}
    data = build([source], batch_size=1)
    image, levels = data.training_sets[0].load(0, (16, 16), (0, 0))
    assert image.shape == (38, 51, 3)  # by 8: no less than twice the size
    assert np.abs(image[..., 0].astype(int) - levels).max() < 12
    image, shrunk = next(iter(data.train()))
    assert np.abs(image[..., :1] - shrunk).max() < 12
    assert shrunk.mean() == pytest.approx(alpha.mean(), abs=5)


def test_all_problems_of_all_sources_are_raised_at_once(tmp_path):
    source = write_pairs(tmp_path, 3)
    (tmp_path / "image" / "001.png").write_bytes(b"")
    (tmp_path / "alpha" / "002.png").unlink()
    missing = {"kind": "pairs", "images": tmp_path / "nowhere", "alphas": tmp_path / "alpha"}
    with pytest.raises(DataError) as error:
        build([source], validation=[missing])
    assert "3 problems" in str(error.value)
    for words in ("001.png: empty file", "002.png: image without alpha", "nowhere"):
        assert words in str(error.value)


def test_bad_files_can_be_skipped(tmp_path):
    source = write_pairs(tmp_path, 4)
    (tmp_path / "image" / "001.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"1 problem:\s+.*001\.png: empty file"):
        data = build([source], on_bad_data="skip", batch_size=3)
    assert sorted(numbers(data.train(), 1)) == [0, 2, 3]


@pytest.mark.filterwarnings("ignore:Skipped")
def test_skipping_all_files_is_an_error(tmp_path):
    source = write_pairs(tmp_path, 1)
    (tmp_path / "image" / "000.png").write_bytes(b"")
    with pytest.raises(DataError, match="no usable file"):
        build([source], on_bad_data="skip")


@pytest.mark.parametrize("harm", ["remove", "cut", "replace"])
def test_a_file_that_goes_bad_in_training_is_named(tmp_path, harm):
    data = build([write_pairs(tmp_path, 4)])
    victim = tmp_path / "alpha" / "002.png"
    if harm == "remove":
        victim.unlink()
    elif harm == "cut":
        victim.write_bytes(victim.read_bytes()[:40])
    else:
        Image.new("L", (5, 5)).save(victim)
    with pytest.raises(DataError) as error:
        numbers(data.train(), 1)
    assert "002.png" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("processors", [1, 2, 7])
def test_threads_do_not_change_the_samples(tmp_path, monkeypatch, processors):
    source = write_pairs(tmp_path, 5, (40, 30))
    strong = {"colour": 0.3, "blur": 1.0, "noise": 0.05, "jpeg_quality": 40, "fit": "crop"}
    data = build([source], augmentation=strong)
    expected = [[data._train_sample(4 * step + place) for place in range(4)] for step in range(5)]
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    for (image, alpha), samples in zip(taken(data.train(), 5), expected, strict=True):
        np.testing.assert_array_equal(image, [image for image, _ in samples])
        np.testing.assert_array_equal(alpha, [alpha for _, alpha in samples])


@pytest.mark.parametrize(("turned", "least"), [(0, (32, 96)), (0.5, (96, 96))])
def test_what_may_be_turned_is_read_large_enough_for_it(tmp_path, monkeypatch, turned, least):
    asked = []
    loaded = pipeline._loaded
    monkeypatch.setattr(
        pipeline, "_loaded", lambda *given: asked.append(given[2]) or loaded(*given)
    )
    source = write_pairs(tmp_path, 5, (40, 30))
    data = build([source], size=(32, 96), augmentation={"turned": turned})
    image, alpha = data._train_sample(0)
    assert image.shape == (32, 96, 3)
    assert alpha.shape == (32, 96, 1)
    assert asked == [least]


def test_few_batches_are_made_ahead(tmp_path):
    made = []
    data = build([write_pairs(tmp_path, 5)])
    batches = data.train()
    batches.sample = lambda number: made.append(number) or data._train_sample(number)
    for step, _ in enumerate(itertools.islice(batches, 6)):
        assert len(made) <= 4 * (step + 4)
        time.sleep(0.01)


def test_a_script_that_leaves_the_data_ends(tmp_path):
    code = """
from kmatting.config import DataConfig
from kmatting.data.pipeline import build
config = DataConfig(train=[{"kind": "synthetic", "count": 50}], size=64, validation=0.0)
batches = iter(build(config, 0, 8).train())
print(next(batches)[0].shape)
"""
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert process.stdout == "(8, 64, 64, 3)\n"


def test_tensorflow_is_not_imported(tmp_path):
    code = "import sys, kmatting.data.pipeline; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
