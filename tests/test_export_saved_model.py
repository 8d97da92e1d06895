import functools
import io
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import textwrap
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import skimage.data
from export_models import alpha_by_keras, error_after_steps, plain_model, tiny_model
from PIL import Image

from kmatting.export import main
from kmatting.exporting import saved_model as serving
from kmatting.exporting.graph import decode
from kmatting.exporting.graph.fitting import MAX_BATCH
from kmatting.images import read_image
from kmatting.inference.matter import Matter
from kmatting.inference.refine import refine
from kmatting.sizes import network_size

SHAPES = [(1, 1, 1), (1, 17, 1003), (3, 40, 50), (2, 64, 64)]
MAX_SIZE = 128


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.keras")


@pytest.fixture(scope="module")
def export(model, tmp_path_factory):
    """The tiny model, exported by the command as version 1 of `tiny`."""
    output = tmp_path_factory.mktemp("saved_models")
    command = ["--model", str(model.file), "--format", "saved_model", "--output", str(output)]
    assert main([*command, "--max-size", str(MAX_SIZE)]) == 0
    return output / "tiny" / "1"


@pytest.fixture(scope="module")
def signatures(export):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(export))
    yield loaded.signatures


def pixels(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def photo(height, width, seed=0):
    return np.asarray(Image.fromarray(pixels((6, 6), seed)).resize((width, height)))


def encode(image, suffix, **options):
    file = io.BytesIO()
    image.save(file, suffix, **options)
    return file.getvalue()


def decode_alpha(png):
    image = Image.open(io.BytesIO(png))
    assert image.mode == "L"
    return np.asarray(image)


# What is served


@pytest.mark.parametrize("shape", SHAPES)
def test_alpha_is_that_of_keras_at_any_size(model, signatures, shape):
    import tensorflow as tf

    images = pixels(shape)
    alpha = signatures["serving_default"](image=tf.constant(images))["alpha"]
    assert (alpha.dtype, alpha.shape) == (tf.float32, (*shape, 1))
    by_keras = Matter(model.file, size=MAX_SIZE)
    expected = [by_keras(image).prediction for image in images]
    np.testing.assert_allclose(alpha[..., 0], expected, atol=0.5 / 255)


def test_the_plain_network_is_that_of_keras(model, signatures):
    import tensorflow as tf

    images = pixels((2, 48, 64))
    alpha = signatures["network"](image=tf.constant(images))["alpha"]
    np.testing.assert_allclose(alpha, alpha_by_keras(model, images), atol=1e-5)


def test_signatures_are_named_for_clients(signatures):
    import tensorflow as tf

    def described(specs):
        return {name: (spec.dtype, spec.shape.as_list()) for name, spec in specs.items()}

    images = {"image": (tf.uint8, [None, None, None, 3])}
    mattes = {"alpha": (tf.float32, [None, None, None, 1])}
    # TF Serving's REST interface takes and gives base64 where a string's name ends in `_bytes`.
    files = {"image_bytes": (tf.string, [None])}
    assert {
        name: (
            described(each.structured_input_signature[1]),
            described(each.structured_outputs),
        )
        for name, each in signatures.items()
    } == {
        "serving_default": (images, mattes),
        "network": (images, mattes),
        "encoded": (files, {"alpha_png_bytes": (tf.string, [None])}),
        "encoded_cutout": (files, {"cutout_png_bytes": (tf.string, [None])}),
    }


def test_encoded_photos_of_all_kinds_and_sizes(signatures):
    import tensorflow as tf

    colour = Image.fromarray(photo(40, 50))
    grey16 = Image.fromarray(np.asarray(colour.convert("L")).astype(np.uint16) * 257)
    files = [
        encode(colour, "PNG"),
        encode(colour, "JPEG"),
        encode(Image.fromarray(photo(17, 103)), "JPEG", progressive=True, subsampling=2),
        encode(colour.convert("L"), "PNG"),
        encode(colour.convert("L"), "JPEG"),
        encode(colour.convert("1"), "PNG"),
        encode(colour.quantize(16), "PNG"),
        encode(grey16, "PNG"),
        encode(Image.fromarray(photo(1, 1)), "PNG"),
    ]
    results = signatures["encoded"](image_bytes=tf.constant(files))["alpha_png_bytes"].numpy()
    for file, result in zip(files, results, strict=True):
        image = read_image(file)
        alpha = signatures["serving_default"](image=tf.constant(image[None]))["alpha"].numpy()
        difference = decode_alpha(result) / 255 - alpha[0, ..., 0]
        assert np.abs(difference).max() < 1.5 / 255  # decoders of JPEG differ by a few levels


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["JPEG", "PNG"])
def test_photos_are_turned_upright(orientation, suffix):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "a camera's maker", orientation  # a long tag first
    file = encode(Image.fromarray(photo(30, 46)), suffix, exif=exif)
    image, opacity = decoded(file)
    expected = read_image(file)
    assert image.shape == expected.shape
    # Decoders of JPEG differ by a few levels.
    assert np.abs(image.astype(int) - expected).max() <= 3
    assert opacity.shape == (*expected.shape[:2], 1)


@functools.cache
def decoder():
    """The graph that decodes a file, traced once."""
    import tensorflow as tf

    return tf.function(decode.decode, input_signature=[tf.TensorSpec((), tf.string)])


def decoded(file):
    import tensorflow as tf

    image, opacity = decoder()(tf.constant(file))
    return decode.over_white(image, opacity).numpy(), opacity.numpy()


def exif_of(orientation, endian="<", offset=8, kind=3):
    """EXIF data with nothing but an orientation."""
    mark = b"II*\0" if endian == "<" else b"MM\0*"
    value = struct.pack(endian + ("HH" if kind == 3 else "I"), *(orientation, 0)[: 5 - kind])
    entry = struct.pack(endian + "HHI", 0x0112, kind, 1) + value
    return mark + struct.pack(endian + "I", offset) + struct.pack(endian + "H", 1) + entry


def with_segments(*segments):
    """A JPEG file (30 x 46) with segments of (marker, content) at its start."""
    file = encode(Image.fromarray(photo(30, 46)), "JPEG")
    added = b"".join(
        content  # fill bytes
        if marker == 0xFF
        else bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content
        for marker, content in segments
    )
    return file[:2] + added + file[2:]


PNG_CHUNK = bytes(4) + b"tEXt" + zlib.crc32(b"tEXt").to_bytes(4, "big")  # an empty one
START_OF_SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"
SIDEWAYS = {
    "big endian": [(0xE1, b"Exif\0\0" + exif_of(6, ">"))],
    "little endian": [(0xE1, b"Exif\0\0" + exif_of(6, "<"))],
    "long value": [(0xE1, b"Exif\0\0" + exif_of(6, ">", kind=4))],
    "after 20,000 fill bytes": [(0xFF, b"\xff" * 20_000), (0xE1, b"Exif\0\0" + exif_of(6))],
    "behind others": [
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"),
        (0xED, bytes(60000)),
        (0xE1, b"Exif\0\0" + exif_of(6)),
    ],
}
NOT_TURNED = {
    "empty": [(0xE1, b"Exif\0\0")],
    "offset behind the end": [(0xE1, b"Exif\0\0" + exif_of(6, offset=2**32 - 1))],
    "cut off": [(0xE1, b"Exif\0\0" + exif_of(6)[:-6])],
    "unknown orientation": [(0xE1, b"Exif\0\0" + exif_of(77))],
}


@pytest.mark.parametrize("name", [*SIDEWAYS, *NOT_TURNED])
def test_exif_is_read_wherever_it_is_and_ignored_where_it_is_broken(name):
    image, _ = decoded(with_segments(*{**SIDEWAYS, **NOT_TURNED}[name]))
    assert image.shape == ((46, 30, 3) if name in SIDEWAYS else (30, 46, 3))


def transparent_image(kind):
    image = Image.fromarray(photo(48, 48))
    if kind == "palette":
        image = image.quantize(16)
        image.info["transparency"] = bytes(range(0, 256, 17))
    else:
        image.putalpha(Image.linear_gradient("L").resize((48, 48)))
    return image


@pytest.mark.parametrize("kind", ["RGBA", "palette"])
def test_transparent_parts_stay_transparent(signatures, kind):
    import tensorflow as tf

    image = transparent_image(kind)
    file = encode(image, "PNG")
    opacity = np.asarray(Image.open(io.BytesIO(file)).convert("RGBA").getchannel("A")) / 255
    assert opacity.min() < 0.1 and opacity.max() > 0.8
    result = signatures["encoded"](image_bytes=tf.constant([file]))["alpha_png_bytes"].numpy()[0]
    alpha = signatures["serving_default"](image=tf.constant(read_image(file)[None]))["alpha"]
    expected = alpha.numpy()[0, ..., 0] * opacity
    np.testing.assert_allclose(decode_alpha(result) / 255, expected, atol=1.5 / 255)


@pytest.mark.parametrize(
    ("shape", "seen"),
    # The network is to see 128 * 128 pixels, their shape brought nearer to a square by up to 2.
    [
        ((300, 430), (128, 128)),
        ((150, 860), (76, 217)),
        ((860, 150), (217, 76)),
        ((128, 131), (128, 128)),
        ((40, 50), (128, 128)),
    ],
)
def test_photo_is_resized_for_the_network(model, signatures, shape, seen):
    import tensorflow as tf

    image = photo(*shape)
    enlarged = shape[0] * shape[1] < seen[0] * seen[1]
    method = Image.Resampling.LANCZOS if enlarged else Image.Resampling.BILINEAR
    small = np.asarray(Image.fromarray(image).resize(seen[::-1], method))
    expected = refine(alpha_by_keras(model, small[None])[0, ..., 0], image)
    alpha = signatures["serving_default"](image=tf.constant(image[None]))["alpha"][0, ..., 0]
    np.testing.assert_allclose(alpha, expected, atol=0.5 / 255)


def bright_model(path):
    """Saves a network whose alpha is brightness: it has the edges of its photo."""
    import keras

    image = keras.Input((None, None, 3), dtype="float32", name="image")
    brightness = keras.layers.Conv2D(1, 1, kernel_initializer="ones", use_bias=False)(image)
    model = keras.Model(image, keras.layers.Rescaling(1 / 3)(brightness))
    model.save(path)
    return model


@pytest.fixture(scope="module")
def bright(tmp_path_factory):
    """A `Matter` of that network, its export, and what the export serves."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("bright")
    model = bright_model(folder / "bright.keras")
    export = serving.export_saved_model(model, folder, "bright", None, MAX_SIZE, warmup=False)
    matter = Matter(folder / "bright.keras", size=MAX_SIZE)
    return matter, Matter(export), tf.saved_model.load(str(export)).signatures


@pytest.mark.parametrize("crop", [np.s_[:, :], np.s_[:300, 100:], np.s_[200:264, :]])
def test_a_served_matte_is_the_predicted_one(bright, crop):
    import tensorflow as tf

    by_keras, by_export, served = bright
    image = skimage.data.astronaut()[crop]
    expected = by_keras(image).prediction
    seen = alpha_by_size(image, MAX_SIZE)
    assert np.abs(expected - seen).max() > 0.2  # by refinement
    np.testing.assert_allclose(by_export(image).prediction, expected, atol=1e-4)
    alpha = served["serving_default"](image=tf.constant(image[None]))["alpha"]
    np.testing.assert_allclose(alpha[0, ..., 0], expected, atol=0.5 / 255)
    for suffix in ("PNG", "JPEG"):
        file = encode(Image.fromarray(image), suffix)
        png = served["encoded"](image_bytes=tf.constant([file]))["alpha_png_bytes"].numpy()[0]
        expected = np.asarray(by_keras(file).alpha_image())
        assert np.abs(decode_alpha(png).astype(int) - expected).max() <= 2


def alpha_by_size(image, size):
    """Brightness of the photo at the network's size, enlarged bilinearly."""
    height, width = image.shape[:2]
    seen = network_size(height, width, size)[::-1]
    small = Image.fromarray(image).resize(seen, Image.Resampling.BILINEAR)
    grey = Image.fromarray(np.asarray(small).mean(-1).astype(np.float32) / 255)
    return np.asarray(grey.resize((width, height), Image.Resampling.BILINEAR))


def test_a_served_cutout_is_the_predicted_one(bright):
    import tensorflow as tf

    by_keras, _, served = bright
    clear = Image.fromarray(skimage.data.astronaut())
    clear.putalpha(Image.radial_gradient("L").resize(clear.size).point(lambda level: 255 - level))
    files = [encode(clear, "PNG"), encode(clear.convert("RGB").crop((90, 0, 300, 80)), "JPEG")]
    results = served["encoded_cutout"](image_bytes=tf.constant(files))["cutout_png_bytes"].numpy()
    for file, result in zip(files, results, strict=True):
        received = Image.open(io.BytesIO(result))
        expected = by_keras(file).cutout()
        assert (received.mode, received.size) == ("RGBA", expected.size)
        levels, colours = (np.asarray(received).astype(int)[..., part] for part in (3, np.s_[:3]))
        assert np.abs(levels - np.asarray(expected)[..., 3]).max() <= 2
        visible = np.abs(colours - np.asarray(expected)[..., :3]) * (levels[..., None] / 255)
        assert visible.max() <= 4
        assert visible.mean() < 0.2
        assert not colours[levels == 0].any()


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    import keras
    import tensorflow as tf

    from kmatting.exporting.graph.serving import Server

    model = bright_model(tmp_path / "bright.keras")
    model.layers[1].set_weights([np.full((1, 1, 3, 1), np.nan)])
    assert keras.ops.any(keras.ops.isnan(model(np.ones((1, 16, 16, 3)))))
    serve = Server(model, 64).signatures()["serving_default"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="alpha is not finite"):
        serve(tf.zeros((1, 20, 20, 3), tf.uint8))


def test_predict_reads_the_export(model, export):
    image = photo(100, 90)
    by_keras = Matter(model.file, size=100)(image).prediction
    by_saved_model = Matter(export.parent, size=100)(image).prediction
    np.testing.assert_allclose(by_saved_model, by_keras, atol=1e-4)


def test_predict_runs_the_export_at_its_size(model, export):
    """At another size its graph would reduce the photo a second time, in silence."""
    matter, by_keras = Matter(export.parent), Matter(model.file, size=MAX_SIZE)
    assert matter.size == MAX_SIZE
    for shape in ((100, 90), (400, 300)):
        image = photo(*shape)
        expected = by_keras(image).prediction
        np.testing.assert_allclose(matter(image).prediction, expected, atol=1e-4)
    with pytest.raises(ValueError, match="Use at most"):
        Matter(export.parent, size=MAX_SIZE + 1)


def test_an_export_that_does_not_say_its_size_is_refused(export, tmp_path):
    shutil.copytree(export, tmp_path / "1")
    (tmp_path / "1" / "assets.extra" / "kmatting.json").unlink()
    with pytest.raises(ValueError, match="does not say its size; export it again"):
        Matter(tmp_path)


# Bad requests


def broken_files():
    png = encode(Image.fromarray(photo(40, 50)), "PNG")
    jpeg = encode(Image.fromarray(photo(40, 50)), "JPEG")
    huge = png[:16] + (40000).to_bytes(4, "big") * 2 + png[24:]
    return {
        "empty": (b"", "expected a JPEG or PNG"),
        "text": (b"hello", "expected a JPEG or PNG"),
        "gif": (encode(Image.fromarray(photo(40, 50)), "GIF"), "expected a JPEG or PNG"),
        "png signature only": (png[:8], "expected a JPEG or PNG"),
        "half a png": (png[: len(png) // 2], "Invalid PNG"),
        "half a jpeg": (jpeg[: len(jpeg) // 2], "Invalid JPEG"),
        "start of a jpeg": (jpeg[:20], "JPEG"),
        "header of 40000x40000": (huge, "expected at most .* pixels"),
        # Their product is negative in 64 bits.
        "header of 2^32-1 a side": (
            png[:16] + b"\xff" * 8 + png[24:],
            "expected at most .* pixels",
        ),
        "1001 segments": (with_segments(*[(0xED, b"")] * 1001), "at most 1000 segments"),
        "1001 chunks": (png[:33] + PNG_CHUNK * 1001 + png[33:], "at most 1000 segments"),
        "300 scans": (jpeg + START_OF_SCAN * 300, "at most 200 scans"),
    }


@pytest.mark.parametrize("name", broken_files())
def test_malformed_file_fails_its_request_and_no_other(signatures, name):
    import tensorflow as tf

    file, message = broken_files()[name]
    good = encode(Image.fromarray(photo(20, 20)), "PNG")
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        signatures["encoded"](image_bytes=tf.constant([good, file]))
    signatures["encoded"](image_bytes=tf.constant([good]))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((0, 32, 32), "at least one image"),
        ((1, 0, 32), "at least 1x1"),
        ((MAX_BATCH + 5, MAX_SIZE, MAX_SIZE), "at most 16 images of 128x128"),
        ((1500, 1, 1), "at most 16 images"),  # each padded to 16x16
        ((1, 8193, 8193), f"at most {decode.MAX_PIXELS} pixels"),
    ],
)
def test_request_that_is_too_much_is_refused(signatures, shape, message):
    import tensorflow as tf

    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        signatures["serving_default"](image=tf.zeros((*shape, 3), tf.uint8))


def test_all_photos_of_a_request_count(signatures):
    """Headers that promise a third of the limit each; their pixels do not exist."""
    import tensorflow as tf

    png = encode(Image.fromarray(photo(40, 50)), "PNG")
    side = int((decode.MAX_PIXELS / 3) ** 0.5)
    large = png[:16] + side.to_bytes(4, "big") * 2 + png[24:]
    with pytest.raises(tf.errors.InvalidArgumentError, match="Invalid PNG"):  # it tries to decode
        signatures["encoded"](image_bytes=tf.constant([large] * 3))
    endless = png[:16] + b"\xff" * 8 + png[24:]  # of a negative number of pixels in 64 bits
    for files in ([large] * 4, [large, large, large, endless]):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"at most \d+ pixels in a req"):
            signatures["encoded"](image_bytes=tf.constant(files))


# Other loaders and clients


def test_saved_model_cli_runs_it(export, signatures, tmp_path):
    import tensorflow as tf

    images = pixels((2, 33, 20))
    np.save(tmp_path / "image.npy", images)
    cli = "from tensorflow.python.tools.saved_model_cli import main; main()"
    options = ["--dir", export, "--tag_set", "serve", "--signature_def", "serving_default"]
    options += ["--inputs", f"image={tmp_path / 'image.npy'}", "--outdir", tmp_path]
    subprocess.run([sys.executable, "-c", cli, "run", *options], check=True, capture_output=True)
    expected = signatures["serving_default"](image=tf.constant(images))["alpha"]
    np.testing.assert_allclose(np.load(tmp_path / "alpha.npy"), expected, atol=1e-5)


# Runs a SavedModel with nothing but TensorFlow's C interface, which loads it as TF Serving does.
C_CLIENT = """
import ctypes, sys
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_void_p
import numpy as np

libraries, folder, output, image, alpha, *encoded = sys.argv[1:]
ctypes.CDLL(libraries + "/libtensorflow_framework.so.2", mode=ctypes.RTLD_GLOBAL)
tf = ctypes.CDLL(libraries + "/libtensorflow_cc.so.2")
for name in ("NewStatus", "NewGraph", "NewSessionOptions", "LoadSessionFromSavedModel",
             "AllocateTensor", "TensorData", "GraphOperationByName", "StringGetDataPointer"):
    getattr(tf, "TF_" + name).restype = c_void_p
tf.TF_Message.restype = c_char_p
tf.TF_Dim.restype = c_int64
tf.TF_StringGetSize.restype = tf.TF_TensorByteSize.restype = c_size_t
UINT8, STRING = 4, 7

class Output(ctypes.Structure):
    _fields_ = [("operation", c_void_p), ("index", c_int)]

status = c_void_p(tf.TF_NewStatus())
graph = c_void_p(tf.TF_NewGraph())

def check():
    if tf.TF_GetCode(status):
        sys.exit(tf.TF_Message(status).decode())

session = c_void_p(tf.TF_LoadSessionFromSavedModel(
    c_void_p(tf.TF_NewSessionOptions()), None, folder.encode(),
    (c_char_p * 1)(b"serve"), 1, graph, None, status))
check()

def tensor(dtype, shape, size):
    dims = (c_int64 * len(shape))(*shape)
    made = c_void_p(tf.TF_AllocateTensor(dtype, dims, len(shape), c_size_t(size)))
    return made, c_void_p(tf.TF_TensorData(made))

def endpoint(name):
    operation, index = name.split(":")
    found = c_void_p(tf.TF_GraphOperationByName(graph, operation.encode()))
    assert found, name
    return Output(found, int(index))

def run(feed, value, fetch):
    result = (c_void_p * 1)()
    tf.TF_SessionRun(session, None, (Output * 1)(endpoint(feed)), (c_void_p * 1)(value), 1,
                     (Output * 1)(endpoint(fetch)), result, 1, None, 0, None, status)
    check()
    return c_void_p(result[0])

pixels = np.load(output + "/image.npy")
value, data = tensor(UINT8, pixels.shape, pixels.nbytes)
ctypes.memmove(data, pixels.tobytes(), pixels.nbytes)
result = run(image, value, alpha)
shape = [tf.TF_Dim(result, axis) for axis in range(4)]
floats = ctypes.string_at(c_void_p(tf.TF_TensorData(result)), tf.TF_TensorByteSize(result))
np.save(output + "/alpha.npy", np.frombuffer(floats, np.float32).reshape(shape))

for name, image_bytes, result in zip(*[iter(encoded)] * 3):
    png = open(output + "/photo.png", "rb").read()
    value, data = tensor(STRING, [1], 24)
    tf.TF_StringInit(data)
    tf.TF_StringCopy(data, png, c_size_t(len(png)))
    data = c_void_p(tf.TF_TensorData(run(image_bytes, value, result)))
    text = ctypes.string_at(c_void_p(tf.TF_StringGetDataPointer(data)), tf.TF_StringGetSize(data))
    open(f"{output}/{name}.png", "wb").write(text)
assert "tensorflow" not in sys.modules
"""


def run_by_c(export, folder, image, alpha, *encoded):
    """Runs an export on `image.npy`, and on `photo.png`; returns the alpha of the first.

    Args:
        export: the folder of the version.
        folder: where the files are, and where `NAME.png` of the others go.
        image: signature and name of an input.
        alpha: signature and name of an output.
        encoded: of each file to write: its name, signature, and names of input and output.
    """
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    described = saved_model_pb2.SavedModel()
    described.ParseFromString((export / "saved_model.pb").read_bytes())
    signatures = described.meta_graphs[0].signature_def
    tensors = [signatures[image[0]].inputs[image[1]], signatures[alpha[0]].outputs[alpha[1]]]
    arguments = [export, folder, *(tensor.name for tensor in tensors)]
    for name, signature, given, made in encoded:
        inputs, outputs = signatures[signature].inputs, signatures[signature].outputs
        arguments += [name, inputs[given].name, outputs[made].name]
    script = [sys.executable, "-c", C_CLIENT, tf.sysconfig.get_lib(), *map(str, arguments)]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return np.load(folder / "alpha.npy")


by_linux = pytest.mark.skipif(sys.platform != "linux", reason="names of Linux's libraries")


@by_linux
def test_c_interface_serves_it(export, signatures, tmp_path):
    import tensorflow as tf

    images = np.stack([photo(33, 50), photo(33, 50, seed=1)])
    np.save(tmp_path / "image.npy", images)
    (tmp_path / "photo.png").write_bytes(encode(Image.fromarray(images[0]), "PNG"))
    alpha = run_by_c(
        export,
        tmp_path,
        ("serving_default", "image"),
        ("serving_default", "alpha"),
        ("alpha", "encoded", "image_bytes", "alpha_png_bytes"),
        ("cutout", "encoded_cutout", "image_bytes", "cutout_png_bytes"),
    )
    expected = signatures["serving_default"](image=tf.constant(images))["alpha"].numpy()
    np.testing.assert_allclose(alpha, expected, atol=1e-5)
    png = decode_alpha((tmp_path / "alpha.png").read_bytes())
    np.testing.assert_allclose(png, expected[0, ..., 0] * 255, atol=0.51)
    np.testing.assert_array_equal(Image.open(tmp_path / "cutout.png").getchannel("A"), png)


@by_linux
def test_c_interface_runs_whole_networks(small_model, network_alone, tmp_path):
    """Model 1 and Model 2 with real encoders: it finds all of their variables."""
    export = serving.export_saved_model(small_model, tmp_path, "whole", warmup=False)
    images = np.stack([photo(32, 48), photo(32, 48, seed=1)])
    np.save(tmp_path / "image.npy", images)
    alpha = run_by_c(export, tmp_path, ("network", "image"), ("network", "alpha"))
    np.testing.assert_allclose(alpha, alpha_by_keras(small_model, images), atol=1e-5)


@pytest.fixture
def grpc_stub(signatures):
    """A client of a server that answers TF Serving's Predict with the loaded SavedModel."""
    pytest.importorskip("tensorflow_serving", reason="needs the extra `serving`")
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            signature = signatures[request.model_spec.signature_name or "serving_default"]
            inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
            response = predict_pb2.PredictResponse(model_spec=request.model_spec)
            try:
                outputs = signature(**{key: tf.constant(value) for key, value in inputs.items()})
            except tf.errors.InvalidArgumentError as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
            for key, value in outputs.items():
                response.outputs[key].CopyFrom(tf.make_tensor_proto(value.numpy()))
            return response

    server = grpc.server(ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)
    server.stop(None)


def test_grpc_round_trip(signatures, grpc_stub):
    """The client builds its request from raw bytes and reads raw bytes, without TensorFlow."""
    import grpc
    import tensorflow as tf
    from tensorflow.core.framework import types_pb2
    from tensorflow_serving.apis import predict_pb2

    images = pixels((2, 17, 23))
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    tensor = request.inputs["image"]
    tensor.dtype = types_pb2.DT_UINT8
    tensor.tensor_content = images.tobytes()
    for side in images.shape:
        tensor.tensor_shape.dim.add(size=side)
    alpha = grpc_stub.Predict(request, timeout=60).outputs["alpha"]
    shape = [dim.size for dim in alpha.tensor_shape.dim]
    received = np.frombuffer(alpha.tensor_content, np.float32).reshape(shape)
    expected = signatures["serving_default"](image=tf.constant(images))["alpha"]
    np.testing.assert_allclose(received, expected, atol=1e-5)

    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = "encoded"
    tensor = request.inputs["image_bytes"]
    tensor.dtype = types_pb2.DT_STRING
    tensor.tensor_shape.dim.add(size=1)
    tensor.string_val.append(encode(Image.fromarray(images[0]), "PNG"))
    png = grpc_stub.Predict(request, timeout=60).outputs["alpha_png_bytes"].string_val[0]
    np.testing.assert_allclose(decode_alpha(png), received[0, ..., 0] * 255, atol=0.51)

    tensor.string_val[0] = b"no image"
    with pytest.raises(grpc.RpcError) as caught:
        grpc_stub.Predict(request, timeout=60)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "expected a JPEG or PNG file" in caught.value.details()


def test_warmup_requests_run(export, signatures):
    import tensorflow as tf

    apis = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    path = export / "assets.extra" / "tf_serving_warmup_requests"
    seen = []
    for record in tf.data.TFRecordDataset(str(path)):
        request = apis.PredictionLog.FromString(record.numpy()).predict_log.request
        inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
        signature = request.model_spec.signature_name
        signatures[signature](**{key: tf.constant(value) for key, value in inputs.items()})
        seen.append((request.model_spec.name, signature))
    signatures = ("serving_default", "encoded", "encoded_cutout")
    assert seen == [("tiny", name) for name in signatures]


# Where it is written


def test_next_version_is_one_more_than_the_highest(tmp_path):
    assert serving.next_version(tmp_path / "none") == 1
    for name in ("1", "3", "10", ".partial", "notes"):
        (tmp_path / name).mkdir()
    assert serving.next_version(tmp_path) == 11


def test_each_export_is_a_new_version(model, network_alone, tmp_path):
    first = serving.export_saved_model(model, tmp_path, "tiny", warmup=False)
    second = serving.export_saved_model(model, tmp_path, "tiny", warmup=False)
    assert [each.name for each in (first, second)] == ["1", "2"]
    assert {each.name for each in (tmp_path / "tiny").iterdir()} == {"1", "2"}


def test_the_export_says_what_it_is(export, model, network_alone, tmp_path):
    def metadata(folder):
        return json.loads((folder / "assets.extra" / "kmatting.json").read_text())

    assert metadata(export) == {
        "name": "tiny", "version": 1, "size": None, "max_size": MAX_SIZE,
        "licence": None,
    }  # fmt: skip
    other = serving.export_saved_model(model, tmp_path, "a", 7, 320, size=288, warmup=False)
    assert metadata(other) == {
        "name": "a", "version": 7, "size": 288, "max_size": 320, "licence": None,
    }  # fmt: skip


def test_existing_version_is_left_alone(export, model, capsys):
    before = (export / "saved_model.pb").stat()
    output = str(export.parent.parent)
    command = ["--model", str(model.file), "--format", "saved_model", "--output", output]
    assert main([*command, "--version", "1"]) == 2
    assert "this version exists" in capsys.readouterr().err
    assert (export / "saved_model.pb").stat() == before


def test_saved_model_that_differs_is_not_kept(model, network_alone, tmp_path, monkeypatch):
    monkeypatch.setattr("keras.ops.convert_to_numpy", lambda alpha: np.asarray(alpha) + 0.01)
    with pytest.raises(ValueError, match="differs from the Keras model"):
        serving.export_saved_model(model, tmp_path, "tiny", photos=[photo(32, 32)], warmup=False)
    assert not list(tmp_path.iterdir())


def test_full_disk_leaves_nothing(model, network_alone, tmp_path, capsys):
    command = ["--model", str(model.file), "--format", "saved_model", "--output", str(tmp_path)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        assert main(command) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    message = error_after_steps(capsys.readouterr().err)
    assert "cannot be written" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("output", ["file", "file/deeper"])
def test_output_that_is_a_file(model, tmp_path, capsys, output):
    (tmp_path / "file").write_text("mine")
    command = ["--model", str(model.file), "--format", "saved_model"]
    assert main([*command, "--output", str(tmp_path / output)]) == 2
    assert "is a file" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_output_that_may_not_be_written(model, tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    command = ["--model", str(model.file), "--format", "saved_model"]
    assert main([*command, "--output", str(tmp_path / "locked")]) == 2
    assert "cannot be written to: Permission denied" in capsys.readouterr().err


# What is exported


def test_run_gives_its_best_model_and_its_name(model, network_alone, tmp_path, capsys):
    run = tmp_path / "my run"
    run.mkdir()
    (run / "best.keras").write_bytes(model.file.read_bytes())
    (run / "last.keras").write_bytes(b"broken")
    command = ["--model", str(run), "--format", "saved_model", "--output", str(tmp_path / "out")]
    assert main([*command, "--version", "5"]) == 0
    assert (tmp_path / "out" / "my-run" / "5" / "saved_model.pb").is_file()
    assert str(tmp_path / "out" / "my-run" / "5") in capsys.readouterr().out


def test_mixed_precision_model_is_exported_in_float32(tmp_path, float32_afterwards):
    import keras

    from kmatting.exporting.checkpoint import load_checkpoint

    keras.config.set_dtype_policy("mixed_bfloat16")
    trained = tiny_model(tmp_path / "mixed.keras")
    keras.config.set_dtype_policy("float32")
    loaded = load_checkpoint(trained.file)
    assert {layer.compute_dtype for layer in loaded.layers} == {"float32"}
    for kept, weights in zip(loaded.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, weights)


def write_text(path):
    path.write_text("no model")


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("missing.keras", lambda path: None, "no such file"),
        ("text.keras", write_text, "cannot be loaded as a Keras model"),
        ("weights.h5", write_text, "expected the folder of a run or a .keras file"),
        ("plain.keras", plain_model, "not a kmatting model"),
        ("run", lambda path: path.mkdir(), "holds no best.keras"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(tmp_path, capsys, name, make, message):
    make(tmp_path / name)
    output = tmp_path / "out"
    command = ["--model", str(tmp_path / name), "--format", "saved_model", "--output", str(output)]
    assert main(command) == 2
    error = error_after_steps(capsys.readouterr().err)
    assert message in error
    assert not output.exists()


def test_help_does_not_wait_for_tensorflow():
    script = """
        import sys
        from kmatting.export import main
        try:
            main(["--help"])
        finally:
            assert "tensorflow" not in sys.modules and "keras" not in sys.modules
    """
    script = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert "examples:" in done.stdout
