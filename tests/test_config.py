import difflib
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from kmatting.config import Config, load_config, save_config
from kmatting.errors import ConfigError

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
MINIMAL = {"data": {"train": [{"kind": "pairs", "images": "photos", "alphas": "mattes"}]}}


@pytest.fixture
def write(tmp_path):
    def write(values):
        path = tmp_path / "config.yaml"
        path.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
        return path

    return write


def error_of(path, overrides=()):
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def test_defaults_are_the_recipe(write):
    config = load_config(write(MINIMAL))
    training = config.training
    assert (training.learning_rate, training.beta_1, training.beta_2) == (1e-4, 0.5, 0.999)
    assert training.loss.model_dump() == {
        "l1": 1,
        "ssim": 1,
        "cross_entropy": 0,
        "iou": 0,
        "gradient": 0,
    }
    augmentation = config.data.augmentation
    assert augmentation.rotation_degrees == 30
    assert augmentation.horizontal_flip
    assert augmentation.vertical_flip


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_load(path):
    load_config(path)


@pytest.mark.parametrize(("name", "epochs"), [("model1", 50), ("model2", 80)])
def test_recipes_of_the_two_models(name, epochs):
    config = load_config(Path(__file__).parent.parent / "configs" / f"{name}.yaml")
    assert (config.model.name, config.training.epochs) == (name, epochs)
    assert (config.model.encoder, config.model.encoder_weights) == ("densenet201", "imagenet")
    assert config.training.model_dump(exclude={"epochs", "batch_size"}) == Config(
        data=MINIMAL["data"]
    ).training.model_dump(exclude={"epochs", "batch_size"})


def test_round_trip(write, tmp_path):
    config = load_config(write(MINIMAL), ["training.clip_norm=0.5", "data.size=[128, 256]"])
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == config


def test_overrides(write):
    config = load_config(
        write(MINIMAL),
        [
            "training.epochs=3",
            "training.learning_rate=2e-4",
            "training.schedule.kind=cosine",
            "data.train.0.images=others",
            "data.size=320",
            "data.validation=[{kind: synthetic, count: 8}]",
        ],
    )
    assert config.training.epochs == 3
    assert config.training.learning_rate == 2e-4
    assert config.training.schedule.kind == "cosine"
    assert config.data.train[0].images == Path("others")
    assert config.data.size == (320, 320)
    assert config.data.validation[0].count == 8


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epoch=3", "training.epoch: unknown key; did you mean `epochs`?"),
        ("modle.name=model1", "modle: unknown key; did you mean `model`?"),
        ("data.train.0.alpha=x", "data.train.0.alpha: unknown key; did you mean `alphas`?"),
        ("training.epochs=many", "training.epochs: Input should be a valid integer"),
        ("training.precision=float64", "received 'float64'"),
        ("data.size=250", "data.size: expected multiples of 16 up to 8192, received [250, 250]"),
        ("data.validation=1.5", "data.validation: expected a share from 0 to below 1"),
        ("data.augmentation.crop_scale=[0.9, 0.2]", "expected 0 < low <= high <= 1"),
        (
            "data.train.0={kind: composite, foregrounds: a, backgrounds: b, scale: [0.5, 0.2]}",
            "data.train.0.scale: expected 0 < low <= high <= 4, received [0.5, 0.2]",
        ),
        ("data.train.0.kind=folder", "'folder'"),
        ("training.epochs", "expected KEY=VALUE"),
        ("data.train.5.images=x", "there is no key data.train.5.images"),
        ("training.epochs={", "not valid YAML"),
        ("training.batch_size=1e12", "training.batch_size: Input should be less than or equal to"),
        ("data.size=1e9", "data.size: expected multiples of 16 up to 8192"),
        ("data.size=0x" + "F" * 6000, "data.size: "),
        ("seed=" + "9" * 6000, "--set seed: not valid YAML"),
        ("data.train.0.count=3", "data.train.0.count: unknown key"),
        ("data.train.0.kind=folder", "data.train.0.kind: expected 'pairs', 'shards', 'composite'"),
        ("data.train.0=[1, 2]", "data.train.0: "),
        ("data.train.0.images=[1]", "data.train.0.images: "),
        ("data.validation=[{images: a}]", "data.validation.0.alphas: missing"),
        ("data.validation=many", "data.validation: Input should be a valid number"),
        ("data.train.0.kind=synthetic", "data.train.0.images: unknown key"),
        ("training.epochs=true", "training.epochs: Input should be a valid integer"),
        ("training.loss.l1=yes", "training.loss.l1: Input should be a valid number"),
        ("training.clip_norm=on", "training.clip_norm: Input should be a valid number"),
        ("data.size=[true, 256]", "data.size.0: Input should be a valid integer"),
        ("data.validation=true", "data.validation: Input should be a valid number"),
        ("data.train.0.weight=true", "data.train.0.weight: Input should be a valid number"),
    ],
)
def test_wrong_values_are_named(write, override, message):
    assert message in error_of(write(MINIMAL), [override])


def test_sources_are_pairs_by_default(write):
    source = {"images": "photos", "alphas": "mattes"}
    config = load_config(write({"data": {"train": [source], "validation": [source]}}))
    assert config.data.train == config.data.validation
    assert config.data.train[0].kind == "pairs"


def test_every_kind_of_source_can_be_named(write):
    sources = [
        {"kind": "pairs", "images": "a", "alphas": "b", "recursive": True},
        {"kind": "shards", "shards": "a"},
        {"kind": "composite", "foregrounds": "a", "backgrounds": "b"},
        {"kind": "backgrounds", "images": "a"},
        {"kind": "synthetic"},
    ]
    config = load_config(write({"data": {"train": sources}}))
    assert [source.kind for source in config.data.train] == [each["kind"] for each in sources]


ALIASES = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join(10 * [f'*a{n - 1}'])}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ALIASES, "more than 100,000 values; remove the aliases"),
        ("data: &a [*a]", "more than 100,000 values"),
        ("data: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("seed: " + "9" * 6000, "not valid YAML"),
        ("seed: 2020-13-45", "not valid YAML"),
        ("seed: 1\nseed: 2", "given more than once: seed"),
        ("data: {train: [{images: a, alphas: b, images: c}]}", "given more than once: images"),
        ("1: 2", "1: "),
        ("data: {train: [{images: a, alphas: b}], size: 0x" + "F" * 6000 + "}", "data.size: "),
    ],
)
def test_hostile_files_end_in_one_short_error(write, text, words):
    start = time.process_time()
    message = error_of(write(text))
    assert time.process_time() - start < 5
    assert words in message
    assert len(message) < 2000


def test_a_long_value_is_cut_in_the_message(write):
    message = error_of(write(MINIMAL), ["training.epochs=" + "many" * 5000])
    assert "received 'manymany" in message
    assert len(message) < 500


def test_missing_key_is_named(write):
    assert "data: missing" in error_of(write({"seed": 1}))


def test_everything_wrong_is_said_at_once(write):
    message = error_of(write(MINIMAL), ["sed=1", "training.jit=perhaps", "model.name=model3"])
    assert all(word in message for word in ("3 wrong", "`seed`", "perhaps", "model3"))


def test_recomputation_needs_dense_blocks(write):
    overrides = ["training.recompute=true", "model.encoder=efficientnet_lite0"]
    message = error_of(write(MINIMAL), overrides)
    assert "expected an encoder with dense blocks, received model.encoder eff" in message


def test_recomputation_needs_one_resolution(write):
    overrides = ["training.recompute=true", "model.high_level_size=320"]
    message = error_of(write(MINIMAL), overrides)
    assert "expected a network of one resolution, received model.high_level_size 320" in message


@pytest.mark.parametrize("size", ["0", "40", "16384", "-320"])
def test_high_level_size_is_checked(write, size):
    message = error_of(write(MINIMAL), [f"model.high_level_size={size}"])
    assert "model.high_level_size: " in message
    assert f"received {size}" in message


def test_devices_and_replicas_exclude_each_other(write):
    overrides = ["training.devices=[GPU:0]", "training.cpu_replicas=2"]
    assert "received both" in error_of(write(MINIMAL), overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "an empty file"), ("- 1", "received list"), ("a: [", "not valid YAML")],
)
def test_files_that_hold_no_config(write, text, message):
    assert message in error_of(write(text))


def test_a_config_is_read_without_tensorflow():
    code = "import sys, kmatting.config; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_missing_file(tmp_path):
    assert "cannot be read: No such file" in error_of(tmp_path / "none.yaml")


def test_a_config_of_many_wrong_keys_is_refused_soon(tmp_path, monkeypatch):
    """Only the keys that the message lists are compared with those that exist."""
    compared = []
    closest = difflib.get_close_matches

    def get_close_matches(word, *arguments, **options):
        compared.append(word)
        return closest(word, *arguments, **options)

    monkeypatch.setattr(difflib, "get_close_matches", get_close_matches)
    path = tmp_path / "config.yaml"
    path.write_text("\n".join(f"key{number}: 1" for number in range(20_000)))
    message = error_of(path)
    listed = re.findall(r"\bkey\d+(?=: unknown key)", message)
    assert 0 < len(listed) < 30
    assert compared == listed
    assert len(message.splitlines()) < 30
    assert "... and 19981 more" in message
