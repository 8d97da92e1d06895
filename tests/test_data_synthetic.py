"""Synthetic samples: exact compositing, the same for the same seed, and not too easy."""

import numpy as np
import pytest

from kmatting import synthetic as command
from kmatting.data import synthetic
from kmatting.data.checking import FileChecker
from kmatting.data.pairs import find_pairs
from kmatting.images import read_alpha, read_image

SIZE = (96, 96)


@pytest.fixture(scope="module")
def many():
    return [synthetic.sample(0, index, SIZE) for index in range(120)]


@pytest.mark.parametrize("size", [(96, 96), (64, 112), (112, 64), (17, 33), (16, 16)])
def test_shapes_and_types(size):
    for index in range(12):
        image, alpha = synthetic.sample(1, index, size)
        assert image.shape == (*size, 3)
        assert alpha.shape == size
        assert image.dtype == alpha.dtype == np.uint8


def test_the_image_is_the_composite_of_its_layers():
    for index in range(20):
        image, alpha = synthetic.sample(2, index, SIZE)
        foreground, background, same_alpha = synthetic.layers(2, index, SIZE)
        np.testing.assert_array_equal(alpha, same_alpha)
        for layer in (foreground, background):
            assert layer.dtype == np.float32
            assert layer.min() >= 0
            assert layer.max() <= 1
        share = alpha.astype(np.float64)[..., None] / 255
        exact = 255 * (share * foreground + (1 - share) * background)
        # Half a level of rounding, and a little for single precision.
        assert np.abs(image - exact).max() <= 0.5 + 1e-3


def test_a_sample_depends_on_seed_and_index_only():
    first, alpha = synthetic.sample(3, 4, SIZE)
    synthetic.sample(9, 9, (32, 48))  # whatever was made before
    again, alpha_again = synthetic.sample(3, 4, SIZE)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(alpha, alpha_again)
    for other in (synthetic.sample(3, 5, SIZE), synthetic.sample(4, 4, SIZE)):
        assert np.abs(first.astype(int) - other[0]).mean() > 5


def test_every_alpha_holds_foreground_and_background(many):
    shares = np.array([alpha.mean() / 255 for _, alpha in many])
    assert shares.min() > 0.002
    assert shares.max() < 0.9
    assert 0.1 < shares.mean() < 0.4
    # Hard and half-transparent alphas are both common.
    between = np.array([np.mean((alpha > 20) & (alpha < 235)) for _, alpha in many])
    assert np.mean(between < 0.06) > 0.1
    assert np.mean(between > 0.15) > 0.1


def test_neither_brightness_nor_saturation_gives_the_alpha_away(many):
    """The best threshold of all on either must stay far from what a network can reach."""
    images = np.stack([image for image, _ in many]).astype(np.float32) / 255
    alphas = np.stack([alpha for _, alpha in many]).astype(np.float32) / 255
    high, low = images.max(axis=-1), images.min(axis=-1)
    nothing = alphas.mean()
    for feature in (images.mean(axis=-1), (high - low) / np.maximum(high, 0.01), high - low):
        thresholds = np.linspace(feature.min(), feature.max(), 40)
        errors = [np.abs((feature > level) - alphas).mean() for level in thresholds]
        errors += [np.abs((feature < level) - alphas).mean() for level in thresholds]
        assert min(errors) > 0.3 * nothing


def test_the_command_writes_pairs_that_can_be_read(tmp_path):
    code = command.main(["--output", str(tmp_path), "--count", "3", "--size", "48", "--seed", "5"])
    assert code == 0
    pairs, problems, _ = find_pairs(tmp_path / "image", tmp_path / "alpha")
    assert len(pairs) == 3
    assert not problems
    checker = FileChecker()
    assert checker.keep_good(pairs, "set") == pairs
    assert checker.problems == []
    image, alpha = synthetic.sample(5, 2, (48, 48))
    np.testing.assert_array_equal(read_image(pairs[2].image), image)
    np.testing.assert_array_equal(read_alpha(pairs[2].alpha), alpha)


def test_the_command_says_in_one_line_that_it_cannot_write(tmp_path, capsys):
    (tmp_path / "taken").write_text("a file")
    assert command.main(["--output", str(tmp_path / "taken"), "--count", "1"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1
    assert "taken" in lines[0]


@pytest.mark.parametrize("options", [["--count", "0"], ["--size", "8"], ["--seed", "-1"], []])
def test_the_command_refuses_bad_options(options, tmp_path):
    output = ["--output", str(tmp_path)] if options else []
    with pytest.raises(SystemExit) as stop:
        command.main(output + options)
    assert stop.value.code == 2
    assert not list(tmp_path.iterdir())
