"""Tests that every network passes, and tests of what is special to one."""

import importlib
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import kmatting
from kmatting import models
from kmatting.config import ModelConfig, load_config
from kmatting.errors import ConfigError
from kmatting.layers import FusedBatchNormalization
from kmatting.models import densenet
from kmatting.models.encoder import build_encoder
from kmatting.models.names import ENCODERS
from kmatting.models.weights import explain, load_weights

ROOT = Path(__file__).resolve().parent.parent


def receptive_field(model, layer):
    """Changes a pixel, looks where a layer's output changes; returns the side of that square."""
    branch = keras.Model(model.input, model.get_layer(layer).output)
    image = np.full((1, 48, 48, 3), 0.4, "float32")
    touched = image.copy()
    touched[0, 24, 24] = 1.0
    change = np.abs(np.asarray(branch(touched) - branch(image))).max(axis=(0, 3))
    assert change.shape == (48, 48)  # no stride
    reach = max(abs(np.nonzero(change)[axis] - 24).max() for axis in (0, 1))
    rows, columns = np.nonzero(change)
    assert (rows.min(), rows.max()) == (columns.min(), columns.max()) == (24 - reach, 24 + reach)
    return 2 * reach + 1


class TestEveryModel:
    def test_any_multiple_of_16(self, small_model, photos):
        for height, width in ((16, 16), (48, 80), (112, 32)):
            alpha = np.asarray(small_model(photos(1, height, width), training=False))
            assert alpha.shape == (1, height, width, 1)
            assert alpha.dtype == np.float32
            assert alpha.min() >= 0
            assert alpha.max() <= 1

    def test_input_and_output_are_named(self, small_model):
        assert [tensor.name for tensor in small_model.inputs] == ["image"]
        assert small_model.inputs[0].shape == (None, None, None, 3)
        assert small_model.output_names == ["alpha"]
        assert small_model.outputs[0].dtype == "float32"

    def test_save_and_load(self, small_model, photos, tmp_path):
        small_model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        image = photos(2, 32, 48)
        np.testing.assert_array_equal(
            loaded(image, training=False), small_model(image, training=False)
        )

    def test_exported_graph_takes_any_size(self, small_model, photos, tmp_path):
        small_model.export(tmp_path / "export", verbose=False)
        exported = tf.saved_model.load(tmp_path / "export")
        for height, width in ((32, 48), (64, 16)):
            image = photos(2, height, width)
            np.testing.assert_allclose(
                exported.serve(image), small_model(image, training=False), atol=1e-5
            )

    def test_mixed_precision_ends_in_float32(
        self, small_model, small_config, photos, float32_afterwards
    ):
        keras.config.set_dtype_policy("mixed_bfloat16")
        mixed = models.build_model(small_config)
        mixed.set_weights(small_model.get_weights())
        image = photos(1, 32, 32)
        alpha = np.asarray(mixed(image, training=False))
        assert alpha.dtype == np.float32
        assert mixed.get_layer("fusion_1_conv").compute_dtype == "bfloat16"
        np.testing.assert_allclose(alpha, small_model(image, training=False), atol=0.05)

    def test_recomputed_blocks_give_the_same_gradients_and_files(
        self, small_model, small_config, photos, tmp_path
    ):
        if small_config.encoder != "densenet121":
            pytest.skip("has no dense blocks")
        image, weights = photos(2, 32, 48), small_model.get_weights()

        def gradients(model):
            model.set_weights(weights)
            with tf.GradientTape() as tape:
                alpha = model(image, training=True)
                cost = tf.reduce_mean(tf.square(alpha - image[..., :1]))
            return [alpha, *tape.gradient(cost, model.trainable_variables)]

        model = keras.models.clone_model(small_model)
        norm = model.get_layer("conv4_block24_1_bn")
        model.set_weights(weights)
        before = norm.moving_mean.numpy()
        expected = gradients(model)
        once = norm.moving_mean.numpy() - before
        models.recompute_dense_blocks(model)
        for received, right in zip(gradients(model), expected, strict=True):
            scale = float(tf.reduce_max(tf.abs(right)))
            np.testing.assert_allclose(received, right, atol=1e-4 * scale)
        # The averages show that a block was computed twice.
        twice = norm.moving_mean.numpy() - before
        np.testing.assert_allclose(twice, (1 + norm.momentum) * once, rtol=1e-3, atol=1e-6)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(loaded(image, training=False), model(image, training=False))

    def test_low_level_branch_is_local(self, small_model):
        last, field = ("s_wise", 11) if small_model.name == "model2" else ("low_level_4_relu", 9)
        assert receptive_field(small_model, last) == field

    def test_full_resolution_features_are_narrow(self, small_model):
        for layer in small_model.layers:
            if layer.name.startswith("low_level") and layer.name.endswith("_conv"):
                assert layer.filters <= 32
                assert layer.strides == (1, 1)


@pytest.fixture(scope="module")
def full_model():
    return models.model2(encoder_weights="none")


class TestDenseNet201:
    def test_is_cut_at_the_third_dense_block(self, full_model):
        cut = full_model.get_layer("conv4_block48_concat")
        assert cut.output.shape[-1] == 1792
        features = keras.Model(full_model.input, full_model.get_layer("pool4_relu").output)
        assert features.compute_output_shape((1, 256, 128, 3)) == (1, 16, 8, 1792)  # stride 16

    def test_nothing_behind_the_cut_is_in_the_model(self, full_model):
        names = [layer.name for layer in full_model.layers]
        assert not [name for name in names if name.startswith("conv5")]
        assert not {"pool4_conv", "pool4_pool", "bn", "avg_pool"} & set(names)

    def test_truncated_encoder_has_9_6_million_parameters(self, full_model):
        encoder = keras.Model(full_model.input, full_model.get_layer("pool4_relu").output)
        assert encoder.count_params() == pytest.approx(9.6e6, rel=0.01)

    def test_attention_is_where_the_paper_has_it(self, full_model):
        assert full_model.get_layer("c_wise").input.shape[-1] == 1792
        assert full_model.get_layer("s_wise").input.shape[-1] == 32

    def test_low_level_branch_sees_at_most_15_pixels(self, full_model):
        assert receptive_field(full_model, "s_wise") == 15


@pytest.fixture(scope="module")
def one_resolution(tmp_path_factory):
    """A network of one resolution, and its file."""
    model = models.model2("efficientnet_lite0", "none", skips=True)
    path = tmp_path_factory.mktemp("one_resolution") / "model.keras"
    model.save(path)
    return model, path


@pytest.fixture(scope="module")
def two_resolutions(one_resolution):
    """A network of two resolutions that starts from it."""
    return models.build_model(
        ModelConfig(
            name="model2",
            encoder="efficientnet_lite0",
            skips=True,
            high_level_size=32,
            weights=one_resolution[1],
        )
    )


class TestTwoResolutions:
    def test_details_reach_the_alpha_but_not_the_high_level_branch(self, two_resolutions, photos):
        image = 0.25 + photos(1, 64, 64) / 2
        checks = np.indices((64, 64)).sum(0)[..., None] % 2 - 0.5  # of mean 0 in each block
        high_level = keras.Model(
            two_resolutions.input,
            [two_resolutions.get_layer("reduced").output, two_resolutions.output],
        )
        reduced, alpha = high_level(image)
        reduced_too, other_alpha = high_level((image + 0.3 * checks).astype("float32"))
        assert reduced.shape == (1, 32, 32, 3)
        np.testing.assert_allclose(reduced, reduced_too, atol=1e-6)
        assert np.abs(other_alpha - alpha).max() > 1e-3

    def test_high_level_branch_starts_from_a_network_of_one_resolution(
        self, one_resolution, two_resolutions, photos
    ):
        image = photos(1, 32, 32)  # not reduced
        features = [
            keras.Model(network.input, network.get_layer("high_level_2_relu").output)(image)
            for network in (one_resolution[0], two_resolutions)
        ]
        np.testing.assert_array_equal(*features)
        for name in ("stem_conv", "block4_project_bn"):
            for weight, copy in zip(
                one_resolution[0].get_layer(name).weights,
                two_resolutions.get_layer(f"full_{name}").weights,
                strict=True,
            ):
                np.testing.assert_array_equal(weight, copy)

    def test_what_does_not_fit_is_named(self, one_resolution):
        config = ModelConfig(
            name="model2",
            encoder="efficientnet_lite0",
            high_level_size=32,
            weights=one_resolution[1],
        )
        with pytest.raises(ConfigError, match=r"does not fit .* high_level_8_conv: expected"):
            models.build_model(config)

    def test_without_skips(self, photos):
        model = models.model1("efficientnet_lite0", "none", high_level_size=32)
        assert model(photos(1, 64, 48)).shape == (1, 64, 48, 1)
        assert not [layer.name for layer in model.layers if layer.name.startswith("detail_")]


def test_encoder_layers_are_those_up_to_the_cut(small_model, small_config):
    names = {layer.name for layer in models.encoder_layers(small_model)}
    first_and_last = {
        "densenet121": {"conv1_conv", "conv4_block24_concat", "pool4_relu"},
        "efficientnet_lite0": {
            "stem_conv", "block15_project_bn", "features", "full_stem_conv",
            "full_block4_project_bn",
        },
    }  # fmt: skip
    assert first_and_last[small_config.encoder] <= names
    assert not [
        name for name in names if name.startswith(("low_level", "high_level", "detail", "fusion"))
    ]


def test_normalisation_is_that_of_the_encoder(small_model, small_config, photos):
    image = photos(1, 16, 16)
    normalise = keras.Model(small_model.input, small_model.get_layer("normalisation").output)
    expected = {
        "densenet121": keras.applications.densenet.preprocess_input(image * 255),
        "efficientnet_lite0": (image * 255 - 127) / 128,
    }
    np.testing.assert_allclose(normalise(image), expected[small_config.encoder], atol=1e-5)


def test_model2_is_model1_with_attention():
    counts = {}
    for name in ("model1", "model2"):
        counts[name] = getattr(models, name)("densenet169", encoder_weights="none").count_params()
    c_wise = 2 * 1280 * (1280 // 16)
    s_wise = 7 * 7 * 2
    assert counts["model2"] - counts["model1"] == c_wise + s_wise


def test_skips_bring_the_encoders_features_into_the_decoder():
    plain = models.model1("densenet121", encoder_weights="none")
    model = models.model1("densenet121", encoder_weights="none", skips=True)
    for stride, channels in ((8, 512 + 64), (4, 256 + 32), (2, 64 + 16)):
        skip = model.get_layer(f"skip_{stride}_conv")
        assert skip.input.shape[-1] + skip.filters == channels
        skip_shape = keras.Model(model.input, skip.output).compute_output_shape((1, 64, 32, 3))
        assert skip_shape[1:3] == (64 // stride, 32 // stride)
    assert not [layer.name for layer in plain.layers if layer.name.startswith("skip_")]


def test_encoder_weights_are_loaded_from_a_file(tmp_path, photos):
    densenet = keras.applications.DenseNet121(include_top=False, weights=None)
    densenet.save_weights(tmp_path / "densenet.weights.h5")
    model = models.model1("densenet121", str(tmp_path / "densenet.weights.h5"))
    features = keras.Model(model.input, model.get_layer("pool4_relu").output)
    expected = keras.Model(densenet.input, densenet.get_layer("pool4_relu").output)
    image = photos(1, 32, 32)
    normalised = keras.applications.densenet.preprocess_input(image * 255)
    np.testing.assert_allclose(features(image), expected(normalised), atol=1e-4)


def test_downloaded_weights_are_those_of_the_network(monkeypatch):
    """Keras is told to download, by a builder that gives each variable a value of its own."""
    values = {}

    def download(include_top, weights, input_tensor):
        assert (include_top, weights) == (False, "imagenet")
        network = keras.applications.DenseNet121(
            include_top=False, weights=None, input_tensor=input_tensor
        )
        for index, variable in enumerate(network.weights):
            values[variable.path] = index / 1000
            variable.assign(keras.ops.full(variable.shape, index / 1000))
        return network

    monkeypatch.setitem(densenet._DENSENETS, "densenet121", download)
    model = models.model1("densenet121", "imagenet")
    encoder = [weight for layer in models.encoder_layers(model) for weight in layer.weights]
    assert len(encoder) > 400
    for variable in encoder:
        np.testing.assert_array_equal(variable, np.float32(values[variable.path]))


def test_batch_norm_follows_the_weights_closely(small_model):
    norms = [layer for layer in small_model.layers if isinstance(layer, FusedBatchNormalization)]
    assert len(norms) > 50
    assert {norm.momentum for norm in norms} == {0.97}
    assert not [
        layer
        for layer in small_model.layers
        if isinstance(layer, keras.layers.BatchNormalization) and layer not in norms
    ]


@pytest.fixture(scope="module")
def v2_model():
    return models.model2("efficientnet_v2b0", "none", skips=True)


class TestEfficientNetV2:
    def test_features_have_the_strides_that_the_decoder_expects(self):
        encoder = build_encoder("efficientnet_v2b0", "none")
        shapes = encoder.compute_output_shape((1, 80, 48, 3))
        assert [shape[1:] for shape in shapes] == [
            (5, 3, 112),
            (10, 6, 48),
            (20, 12, 32),
            (40, 24, 16),
        ]

    def test_weights_of_the_whole_network_are_loaded(self, tmp_path, photos):
        whole = keras.applications.EfficientNetV2B0(include_top=False, weights=None)
        whole.save_weights(tmp_path / "whole.weights.h5")
        encoder = build_encoder("efficientnet_v2b0", str(tmp_path / "whole.weights.h5"))
        expected = keras.Model(whole.input, whole.get_layer("block5e_add").output)
        image = photos(1, 32, 48)
        np.testing.assert_allclose(encoder(image)[0], expected(image * 255), atol=1e-4)

    def test_exported_graph_takes_any_size(self, v2_model, photos, tmp_path):
        v2_model.export(tmp_path / "export", verbose=False)
        exported = tf.saved_model.load(tmp_path / "export")
        image = photos(2, 32, 48)
        np.testing.assert_allclose(
            exported.serve(image), v2_model(image, training=False), atol=1e-5
        )

    def test_a_training_step_lowers_the_loss(self, v2_model, photos):
        image = photos(2, 32, 48)
        # Five steps do not pay for tracing them.
        v2_model.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=True)
        losses = [v2_model.train_on_batch(image, image[..., :1]) for _ in range(5)]
        assert losses[-1] < losses[0]


@pytest.mark.parametrize("weights", ["missing.h5", "broken.weights.h5"])
def test_wrong_encoder_weights_name_the_choices(weights, tmp_path):
    (tmp_path / "broken.weights.h5").write_bytes(b"not HDF5")
    with pytest.raises(ConfigError, match=r"Set model\.encoder_weights to imagenet, to the path"):
        models.model1("densenet121", str(tmp_path / weights))


def test_failed_download_names_the_choices(monkeypatch):
    def unreachable(*args, **kwargs):
        raise Exception("URL fetch failure")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", unreachable)
    with pytest.raises(ConfigError, match=r"could not be loaded: URL fetch failure\. Set .*none"):
        models.model1("densenet121", "imagenet")


def test_every_encoder_has_its_module():
    for module in ENCODERS.values():
        assert callable(importlib.import_module(f"kmatting.models.{module}").build)


def test_weights_of_a_larger_network_are_not_dropped_in_silence(tmp_path):
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(3, 3)(image)
    small = keras.Model(image, x)
    large = keras.Model(image, keras.layers.Conv2D(3, 3)(x))
    for name in ("large.keras", "large.weights.h5"):
        save = large.save if name.endswith(".keras") else large.save_weights
        save(tmp_path / name)
        with pytest.raises(ValueError, match="expected 2 weights, received 4"):
            load_weights(small, tmp_path / name)
        load_weights(large, tmp_path / name)


@pytest.mark.parametrize(
    ("message", "explanation"),
    [
        ("", "ValueError"),
        ("one line\nand another", "one line"),
        ("x " * 30_000, "x " * 97 + "x ..."),
        ("A total of 2 objects: example <Adam at 0x1>:\n\nSkipped.\n\nList", "Skipped."),
        (
            "object <Dense name=top, built=True>:\n\nLayer 'top' expected 2 variables, but "
            "received 0 variables during loading. Expected: ['kernel', 'bias']",
            "layer top: expected 2 variables, received 0",
        ),
    ],
)
def test_explanations_are_a_line(message, explanation):
    assert explain(ValueError(message)) == explanation


def test_unknown_encoder_is_refused():
    with pytest.raises(ConfigError, match="resnet50"):
        models.model1("resnet50")


def test_build_model_starts_from_a_trained_model(small_model, small_config, photos, tmp_path):
    path = tmp_path / "trained.keras"
    small_model.save(path)
    config = small_config.model_copy(update={"weights": path})
    image = photos(1, 32, 32)
    np.testing.assert_array_equal(
        models.build_model(config)(image, training=False), small_model(image, training=False)
    )
    wrong = config.model_copy(update={"encoder": "densenet169"})
    with pytest.raises(ConfigError, match="does not fit") as caught:
        models.build_model(wrong)
    assert re.search(r"with densenet169: layer \w+: expected .*, received", str(caught.value))
    assert len(str(caught.value)) < 300


def test_weights_of_two_resolutions_for_a_network_of_one_are_refused(tmp_path):
    path = tmp_path / "two.keras"
    config = ModelConfig(
        name="model2", encoder="efficientnet_lite0", encoder_weights="none", high_level_size=48
    )
    models.build_model(config).save(path)
    one = config.model_copy(update={"weights": path, "high_level_size": None})
    with pytest.raises(ConfigError, match=r"two resolutions; set model\.high_level_size=48\."):
        models.build_model(one)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("general", []),
        ("detail", ["model.weights=detail", "model.high_level_size=320"]),
        ("open", ["model.weights=open"]),
    ],
)
def test_the_shipped_weights_fit_the_config_that_fine_tunes_them(name, changes):
    config = load_config(ROOT / "configs" / "finetune.yaml", changes).model
    shipped = {layer.name: layer for layer in kmatting.load_model(name).layers}
    for layer in models.build_model(config).layers:
        for found, expected in zip(
            layer.get_weights(), shipped[layer.name].get_weights(), strict=True
        ):
            np.testing.assert_array_equal(found, expected)
