import numpy as np
import pytest
from export_models import tiny_model

from kmatting.data.synthetic import sample
from kmatting.export import main
from kmatting.exporting import int8, tflite
from kmatting.networks.tflite import TFLiteNetwork

pytest.importorskip("ai_edge_quantizer", reason="needs the extra `quantize`")
litert = pytest.importorskip("ai_edge_litert.interpreter")

SIZE = (32, 48)


@pytest.fixture(scope="module")
def photos():
    return [sample(0, index, SIZE)[0] for index in range(6)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.keras")


def convolutions(kernel, photo_shape=SIZE):
    """A network of two 3x3 convolutions with 64 filters side by side, without biases."""
    import keras

    image = keras.Input((*photo_shape, 3), name="image")
    sides = [
        keras.layers.Conv2D(64, 3, padding="same", use_bias=False, name=name)(image)
        for name in ("left", "right")
    ]
    alpha = keras.layers.Concatenate(name="alpha")(sides)
    model = keras.Model(image, alpha)
    model.set_weights([kernel, -2 * kernel])
    return model


def outputs(content):
    """Returns the kind of each operation, the layer that its output is named for, its dtype."""
    interpreter = litert.Interpreter(model_content=content)
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    found = []
    for operation in interpreter._get_ops_details():
        if operation["op_name"] not in ("DELEGATE", "QUANTIZE", "DEQUANTIZE"):
            tensor = tensors[operation["outputs"][0]]
            layer = tensor["name"].partition("/")[0].removesuffix("_1")
            found.append((operation["op_name"], layer, np.dtype(tensor["dtype"]).name))
    return found


def test_what_would_suffer_most_stays_in_floats(model, photos):
    found = outputs(tflite.convert(model, SIZE, "int8", photos))
    assert {dtype for kind, _, dtype in found if kind == "LOGISTIC"} == {"float32"}
    assert {dtype for _, layer, dtype in found if layer in ("c_wise", "logit")} == {"float32"}
    convolutions = [dtype for kind, _, dtype in found if kind == "CONV_2D"]
    assert convolutions.count("int8") >= 8


def test_more_exact_than_integers_throughout(model, photos):
    others = [sample(1, index, SIZE)[0] for index in range(4)]
    expected = [np.asarray(model(photo[None] / np.float32(255))) for photo in others]

    def mean(variant):
        content = tflite.convert(model, SIZE, variant, photos)
        return tflite.compare(content, others, expected).mean

    assert mean("int8") < 0.9 * mean("integer")


def test_biases_make_up_for_the_rounding_of_weights(photos, monkeypatch):
    # All weights of a filter are a little below the middle of two codes but for one, which sets
    # the scale: rounding makes all of them smaller, and the sum over 27 of them far smaller.
    kernel = np.full((3, 3, 3, 64), 10.45 / 127, np.float32)
    kernel[0, 0, 0] = 1
    content = tflite.convert(convolutions(kernel), SIZE)

    def shift():
        quantized = TFLiteNetwork(int8.quantize(content, photos))
        differences = [
            quantized.run(photo[None]) - TFLiteNetwork(content).run(photo[None]) for photo in photos
        ]
        return np.abs(np.mean(differences, axis=(0, 1, 2, 3)))

    corrected = shift()
    monkeypatch.setattr(int8, "_correct_bias", lambda *arguments: None)
    uncorrected = shift()
    assert uncorrected.min() > 0.03
    # Both sides: their biases, all zero, are one constant in the converted file.
    assert corrected.max() < 0.2 * uncorrected.min()


def test_the_same_photos_give_the_same_file(model, photos):
    content = tflite.convert(model, SIZE)
    assert int8.quantize(content, photos) == int8.quantize(content, photos)


def test_replaced_constants_are_not_in_the_file(photos):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 64)).astype(np.float32)
    network = convolutions(kernel)
    floats = tflite.convert(network, SIZE, "float32")
    assert len(tflite.convert(network, SIZE, "int8", photos)) < len(floats)


def test_without_photos(model):
    with pytest.raises(ValueError, match="at least one photo"):
        tflite.convert(model, SIZE, "int8")


def test_calibrates_on_synthetic_photos_if_none_are_given(model, tmp_path, capsys):
    command = ["--model", str(model.file), "--format", "tflite", "--output", str(tmp_path / "out")]
    assert main([*command, "--size", "32x48", "--variant", "int8"]) == 0
    assert "note: int8: calibrated on synthetic photos" in capsys.readouterr().err
    assert (tmp_path / "out" / "tiny-32x48-int8.tflite").is_file()


def test_says_what_to_install(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "none.keras").touch()  # no network: it must not be asked for
    command = ["--model", str(tmp_path / "none.keras"), "--format", "tflite"]
    command += ["--output", str(tmp_path / "out")]
    assert main([*command, "--variant", "int8"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == 'error: ai_edge_quantizer is not installed: pip install -e ".[quantize]"'
    assert not (tmp_path / "out").exists()


def test_channels_with_hardly_any_weight_keep_their_bias(photos):
    import keras

    image = keras.Input((*SIZE, 3), name="image")
    alpha = keras.layers.Conv2D(64, 3, padding="same", name="alpha")(image)
    model = keras.Model(image, alpha)
    kernel = np.full((3, 3, 3, 64), 0.01, np.float32)
    kernel[..., 0] = 1e-12
    kernel[..., 1] = 0
    bias = np.full(64, 0.5, np.float32)
    model.set_weights([kernel, bias])
    quantized = TFLiteNetwork(int8.quantize(tflite.convert(model, SIZE), photos))
    alpha = quantized.run(photos[0][None])
    np.testing.assert_allclose(alpha[..., :2], 0.5, atol=0.01)
