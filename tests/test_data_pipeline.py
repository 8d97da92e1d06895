"""The pipeline: order, resume, weights, validation, and files that go bad."""

from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf
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
    for image, alpha, *_ in dataset.take(batches):
        np.testing.assert_allclose(image[..., :1] + alpha, 1, atol=1e-6)
        found += np.rint(alpha.numpy()[:, 0, 0, 0] * 255 - 145).astype(int).tolist()
    return found


def same(first, second):
    for one, other in zip(first, second, strict=True):
        for left, right in zip(one, other, strict=True):
            np.testing.assert_array_equal(left, right)


def test_batches_have_the_promised_shapes_and_ranges(tmp_path):
    data = build([write_pairs(tmp_path, 6, (40, 30))], size=(16, 32), augmentation={})
    image, alpha = next(iter(data.train()))
    assert image.shape == (4, 16, 32, 3)
    assert alpha.shape == (4, 16, 32, 1)
    assert image.dtype == alpha.dtype == tf.float32
    assert data.train().element_spec[0].shape == (4, 16, 32, 3)
    assert 0 <= image.numpy().min() <= image.numpy().max() <= 1


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
        assert (alpha.numpy() == -1).any() == coarse
        assert data.panel_samples(1)[1].min() == 0


def test_a_batch_larger_than_the_set_is_full_too(tmp_path):
    data = build([write_pairs(tmp_path, 3)], batch_size=8)
    assert data.steps_per_epoch == 1
    assert sorted(Counter(numbers(data.train(), 1)).values()) == [2, 3, 3]


def test_the_same_seed_gives_the_same_batches_and_another_seed_others(tmp_path):
    source = write_pairs(tmp_path, 10)
    first, again = build([source], augmentation={}), build([source], augmentation={})
    same(first.train().take(6), again.train().take(6))
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
    skipped = data.train().skip(2 * data.steps_per_epoch).take(6)
    same(build(train, augmentation={"fit": "crop"}).train(first_epoch=2).take(6), skipped)


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
        images = [image.numpy() for image, _ in build([train], batch_size=1).train().take(4)]
        assert len({image.tobytes() for image in images}) == 4


def test_validation_holds_every_sample_once_and_its_weights_make_the_mean(tmp_path):
    source = write_pairs(tmp_path, 10)
    data = build([source], validation=[source], augmentation={})
    assert (data.validation_samples, data.validation_steps) == (10, 3)
    batches = list(data.validation())
    assert [len(weight) for _, _, weight in batches] == [4, 4, 4]
    assert all(weight.dtype == tf.float32 for _, _, weight in batches)
    weights = np.concatenate([weight for _, _, weight in batches])
    np.testing.assert_allclose(weights, [1.2] * 10 + [0] * 2, rtol=1e-6)
    assert numbers(data.validation(), 3) == [*range(10), 9, 9]
    same(batches, data.validation())


def test_keras_evaluates_to_the_mean_over_the_real_samples(tmp_path):
    source = write_pairs(tmp_path, 10)
    data = build([source], validation=[source])

    def l1(alpha, predicted):
        return keras.ops.mean(abs(alpha - predicted), axis=(1, 2, 3))

    model = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Lambda(lambda x: x[..., :1])])
    model.compile(loss=l1, weighted_metrics=[l1])
    loss, metric = model.evaluate(data.validation(), verbose=0)
    expected = np.mean([(35 + 2 * number) / 255 for number in range(10)])
    assert loss == pytest.approx(expected, rel=1e-5)
    assert metric == pytest.approx(expected, rel=1e-5)


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
    for dataset in (data.train().take(4), data.validation()):
        for image, alpha, *_ in dataset:
            assert image.shape == (2, 16, 16, 3)
            assert image.numpy().min() > 0.3
            np.testing.assert_array_equal(alpha, 0)


def test_left_out_files_are_named_once(tmp_path):
    source = write_pairs(tmp_path, 3)
    for name in ("a.dng", "b.dng", "c.txt"):
        (tmp_path / "image" / name).write_bytes(b"")
    with pytest.warns(UserWarning, match=r"image: left out 2 \.dng, 1 \.txt: not photos") as caught:
        build([source])
    assert len(caught) == 1


def test_a_single_file_cannot_be_split(tmp_path):
    with pytest.raises(DataError, match="validation"):
        build([write_pairs(tmp_path, 1)], validation=0.1)


def test_synthetic_validation_is_fixed_and_not_trained_on():
    data = build([{"kind": "synthetic", "count": 20}], validation=0.25, batch_size=5)
    assert (data.train_samples, data.validation_samples) == (20, 5)
    held_out = list(data.validation())
    same(held_out, data.validation())
    seen = {image.numpy().tobytes() for batch, _ in data.train().take(12) for image in batch}
    assert len(seen) == 60
    assert not seen & {image.numpy().tobytes() for image in held_out[0][0]}


def test_without_validation_there_is_none(tmp_path):
    data = build([write_pairs(tmp_path, 3)])
    assert data.validation() is None
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


def test_large_photos_are_shrunk_alike_with_their_alphas(tmp_path):
    y, x = np.mgrid[:301, :403]
    alpha = ((x // 40 + y // 40) % 2 * 255).astype(np.uint8)
    for folder in ("image", "alpha"):
        (tmp_path / folder).mkdir()
    Image.fromarray(alpha).save(tmp_path / "alpha" / "a.png")
    Image.fromarray(alpha).convert("RGB").save(tmp_path / "image" / "a.png")
    source = {"kind": "pairs", "images": tmp_path / "image", "alphas": tmp_path / "alpha"}
    data = build([source])
    sample = data.training_sets[0].load(0, (16, 16), (0, 0))
    assert sample.shape == (34, 45, 4)  # by 9: no less than twice the size
    np.testing.assert_array_equal(sample[..., 0], sample[..., 3])
    image, shrunk = next(iter(build([source], batch_size=1).train()))
    np.testing.assert_allclose(image[..., :1], shrunk, atol=1e-6)
    assert shrunk.numpy().mean() == pytest.approx(alpha.mean() / 255, abs=0.02)


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
    with pytest.raises(DataError) as error, data.clear_errors():
        numbers(data.train(), 1)
    assert "002.png" in str(error.value)
    assert "\n" not in str(error.value)


def test_other_errors_pass_unchanged(tmp_path):
    data = build([write_pairs(tmp_path, 4)])
    with pytest.raises(tf.errors.InvalidArgumentError), data.clear_errors():
        tf.debugging.assert_equal(1, 2)
