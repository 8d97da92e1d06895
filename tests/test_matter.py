"""Photo in, alpha out, with a model of each format whose right answer is known: the red channel."""

import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import export_models
import numpy as np
import pytest
import red_model
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from kmatting import Matter
from kmatting.errors import ImageError, ModelError
from kmatting.exporting import tflite
from kmatting.inference import matter as matter_module
from kmatting.networks.keras_model import load_model
from kmatting.networks.runtime import tensorflow_memory
from kmatting.networks.shipped import SHIPPED, find_model, shipped_model
from kmatting.sizes import DEFAULT_SIZE, network_size
from kmatting.training.run_folder import write_state

FORMATS = ("red.keras", "saved", "versions", "red.tflite", "integer.tflite", "red.onnx")


@pytest.fixture(scope="module")
def models():
    return red_model.folder()


@pytest.fixture(scope="module", params=FORMATS)
def matter(request, models):
    return Matter(models / request.param)


@pytest.fixture(scope="module")
def keras_matter(models):
    return Matter(models / "red.keras", size=64)


def shaded(height, width):
    """A photo whose red grows to the right, whose green grows downwards."""
    photo = np.zeros((height, width, 3), np.uint8)
    photo[..., 0] = np.linspace(0, 255, width) if width > 1 else 200
    photo[..., 1] = np.linspace(0, 255, height)[:, None]
    return photo


@pytest.mark.parametrize("shape", [red_model.FRAME, (30, 40), (48, 20), (16, 64)])
def test_the_alpha_is_what_the_network_says(matter, shape):
    photo = shaded(*shape)
    alpha = matter(photo).alpha
    assert alpha.dtype == np.float32
    # A model of fixed size sees the photo enlarged until it fits, and brought back: 1 % at ends.
    np.testing.assert_allclose(alpha, photo[..., 0] / 255, atol=0.02)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (7, 3000), (301, 203), (130, 130)])
def test_any_photo_gets_a_matte_of_its_size(matter, shape):
    photo = shaded(*shape)
    alpha = matter(photo).alpha
    assert alpha.shape == shape
    np.testing.assert_allclose(alpha, photo[..., 0] / 255, atol=0.02)


def test_a_photo_without_a_subject_gets_an_empty_matte(matter):
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    noise[..., 0] = 0
    assert not matter(noise).alpha.any()


@pytest.mark.parametrize("level", [3, 128, 255])
def test_a_prediction_is_not_stretched(matter, level):
    photo = np.full((90, 120, 3), level, np.uint8)
    np.testing.assert_allclose(matter(photo).alpha, level / 255, atol=0.003)


def test_large_photos_keep_their_edges(keras_matter):
    photo = np.full((640, 640, 3), 30, np.uint8)
    photo[..., 0] = 0
    photo[200:440, 203:437, 0] = 255
    alpha = keras_matter(photo).alpha
    # Ten times as large as what the network saw, where an edge lies in a pixel as wide as ten.
    assert np.abs(alpha - photo[..., 0] / 255).sum() / (4 * 237) < 1.5


def test_photos_are_upright_and_over_white(keras_matter, tmp_path):
    photo = Image.fromarray(shaded(20, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    photo.save(tmp_path / "turned.png", exif=exif)
    alpha = keras_matter(tmp_path / "turned.png").alpha
    np.testing.assert_allclose(alpha, np.rot90(shaded(20, 40)[..., 0], -1) / 255, atol=0.01)

    clear = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    assert keras_matter(clear).prediction.min() > 0.99  # the network saw white
    assert not keras_matter(clear).alpha.any()


def test_the_photos_own_transparency_stays():
    photo = np.full((16, 32, 4), 255, np.uint8)
    photo[:, :16, 3] = 102
    matte = Matter(red_model.folder() / "red.keras")(photo)
    expected = np.ones((16, 32))
    expected[:, :16] = 0.4
    np.testing.assert_allclose(matte.alpha, expected, atol=0.01)
    picture = np.asarray(matte.cutout("none"))
    np.testing.assert_array_equal(picture[..., 3], np.rint(expected * 255))
    assert (picture[..., :3] == 255).all()


def test_sources_of_all_kinds(keras_matter, tmp_path):
    photo = shaded(64, 64)  # the size that the network sees
    Image.fromarray(photo).save(tmp_path / "photo.png")
    path = tmp_path / "photo.png"
    for source in (path, str(path), path.read_bytes(), Image.fromarray(photo), photo):
        np.testing.assert_allclose(keras_matter(source).alpha, photo[..., 0] / 255, atol=1e-6)
    with pytest.raises(ImageError, match=r"none\.png: no such file"):
        keras_matter(tmp_path / "none.png")


def test_what_a_matte_makes(keras_matter, tmp_path):
    matte = keras_matter(shaded(60, 80))
    assert (matte.cutout().mode, matte.cutout().size) == ("RGBA", (80, 60))
    Image.new("RGB", (10, 10), "blue").save(tmp_path / "blue.png")
    for background in ("white", "#123456", tmp_path / "blue.png", np.zeros((5, 9, 3), np.uint8)):
        picture = matte.composite(background)
        assert (picture.mode, picture.size) == ("RGB", (80, 60))
    left = np.asarray(keras_matter(shaded(64, 64)).composite("blue", foreground="none"))[:, 0]
    assert (left == [0, 0, 255]).all()
    assert matte.panel("none").width > 5 * 80
    assert keras_matter(shaded(1, 900)).panel().height > 1


@settings(deadline=None)
@given(height=st.integers(1, 20000), width=st.integers(1, 20000))
def test_the_network_sees_a_bounded_size_nearer_to_a_square(height, width):
    small = network_size(height, width, 64)
    assert small[0] * small[1] <= 1.1 * 64**2
    assert max(small) <= 8 * 64
    shape = max(height, width) / min(height, width)
    if min(small) >= 16:
        assert max(small) / min(small) == pytest.approx(max(1, shape / 2), rel=0.05)
    if shape <= 32:
        assert small[0] * small[1] >= 0.9 * 64**2


def test_the_size_is_that_of_training_if_the_model_says(models, tmp_path):
    path = tmp_path / "red.keras"
    path.write_bytes((models / "red.keras").read_bytes())
    assert Matter(path).size == DEFAULT_SIZE
    write_state(path, epoch=1, best=0.5, size=(128, 288))
    assert Matter(path).size == 192
    assert Matter(path, size=64).size == 64


def test_many_photos_in_their_order_with_errors_between(keras_matter, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    sources = [shaded(20, 30), tmp_path / "broken.jpg", shaded(30, 20), tmp_path / "none.jpg"]
    results = list(keras_matter.stream(sources))
    assert [source is given for (source, _), given in zip(results, sources, strict=True)]
    assert [result.alpha.shape for _, result in results[::2]] == [(20, 30), (30, 20)]
    for (_, error), name in zip(results[1::2], ("broken.jpg", "none.jpg"), strict=True):
        assert isinstance(error, ImageError)
        assert name in str(error)


def test_reading_ahead_is_bounded(keras_matter):
    asked = 0

    def photos():
        nonlocal asked
        for _ in range(10):
            asked += 1
            yield shaded(20, 20)

    for done, _ in enumerate(keras_matter.stream(photos())):
        assert asked <= done + 2


def test_photos_are_worked_on_side_by_side(models, monkeypatch):
    monkeypatch.setattr(matter_module, "processors", lambda: 3)
    together = threading.Barrier(3, timeout=20)

    def function(source, matte):
        together.wait()
        return source.shape, matte.alpha.shape

    photos = [shaded(20, 20 + number) for number in range(6)]
    results = list(Matter(models / "red.tflite").map(function, photos))
    assert [result for _, result in results] == [(photo.shape, photo.shape[:2]) for photo in photos]
    assert all(source is photo for (source, _), photo in zip(results, photos, strict=True))


def test_copies_of_the_network_give_the_same_mattes(models):
    matter = Matter(models / "red.tflite")
    photos = [shaded(20, 20 + number) for number in range(6)]
    for photo, matte in matter.stream(photos):
        np.testing.assert_array_equal(matte.alpha, matter(photo).alpha)


def test_few_large_photos_at_a_time(models, tmp_path, monkeypatch):
    monkeypatch.setattr(matter_module, "_LARGE", 100)
    monkeypatch.setattr(matter_module, "processors", lambda: 6)
    lock, active, most = threading.Lock(), 0, 0

    def function(source, matte):
        nonlocal active, most
        with lock:
            active += 1
            most = max(most, active)
        time.sleep(0.05)
        with lock:
            active -= 1

    for number in range(8):
        Image.fromarray(shaded(20, 30)).save(tmp_path / f"{number}.png")
    results = list(Matter(models / "red.tflite").map(function, sorted(tmp_path.iterdir())))
    assert [result for _, result in results] == [None] * 8
    assert most == 2


def test_what_the_function_raises_ends_the_work(models):
    def function(source, matte):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        list(Matter(models / "red.tflite").map(function, [shaded(20, 20)] * 3))


@pytest.mark.parametrize("name", ["red.tflite", "red.onnx"])
def test_these_models_need_no_tensorflow(models, name):
    code = f"""
import sys
import numpy as np
from kmatting import Matter
matte = Matter({str(models / name)!r})(np.zeros((20, 20, 3), np.uint8))
matte.cutout("none"), matte.composite("red", "none"), matte.panel("none")
loaded = [name for name in ("tensorflow", "keras", "numba", "pymatting") if name in sys.modules]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_imports_next_to_nothing():
    code = "import kmatting, sys; assert not {'numpy', 'PIL', 'keras'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="Nothing"):
        import kmatting

        kmatting.Nothing  # noqa: B018


def test_without_litert_the_message_says_what_to_do(models, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ValueError, match=r"red\.tflite: .*pip install .*ai-edge-litert"):
        Matter(models / "red.tflite")


def test_the_highest_code_of_an_int8_model_is_opaque(tmp_path):
    red_model.convert(red_model.step(), tmp_path / "step.tflite", integer=True)
    matter = Matter(tmp_path / "step.tflite")
    white, black = (np.full((*red_model.FRAME, 3), level, np.uint8) for level in (255, 0))
    assert (matter(white).alpha == 1).all()
    assert (np.asarray(matter(white).alpha_image()) == 255).all()
    assert (matter(black).alpha == 0).all()
    assert matter(white).alpha.dtype == np.float32
    content = (tmp_path / "step.tflite").read_bytes()
    expected = [np.ones((1, *red_model.FRAME, 1)), np.zeros((1, *red_model.FRAME, 1))]
    assert tflite.compare(content, [white, black], expected).largest == 0


@pytest.mark.parametrize("kind", ["input", "output"])
def test_integers_without_quantization_parameters_are_refused(tmp_path, kind):
    import tensorflow as tf

    dtype = tf.uint8 if kind == "input" else tf.float32

    @tf.function(input_signature=[tf.TensorSpec((1, *red_model.FRAME, 3), dtype, "image")])
    def run(image):
        alpha = image[..., :1]
        return {"alpha": tf.cast(alpha, tf.float32 if kind == "input" else tf.uint8)}

    function = run.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    (tmp_path / "plain.tflite").write_bytes(converter.convert())
    message = rf"plain\.tflite: its {kind} is uint8 without quantization parameters"
    with pytest.raises(ValueError, match=message):
        Matter(tmp_path / "plain.tflite")


def test_without_onnx_runtime_the_message_names_the_extra(models, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"needs onnxruntime: pip install .*\[onnx\]"):
        Matter(models / "red.onnx")


@pytest.mark.parametrize("module", ["tensorflow", "keras"])
def test_without_tensorflow_the_message_names_the_extra(models, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    name = "saved" if module == "tensorflow" else "red.keras"
    with pytest.raises(ValueError, match=rf"needs {module}: pip install .*\[train\]"):
        Matter(models / name)


def test_a_photo_that_fails_does_not_stop_the_others(models, tmp_path, monkeypatch):
    matter = Matter(models / "red.keras", size=64)
    good = matter._network.run

    def run(batch):
        if batch[0, 0, 0, 0] == 1:
            raise MemoryError
        if batch[0, 0, 0, 0] == 3:
            raise RuntimeError("failed to invoke\nand many more lines")
        return good(batch) * (np.nan if batch[0, 0, 0, 0] == 2 else 1)

    monkeypatch.setattr(matter._network, "run", run)
    paths = [tmp_path / f"{level}.png" for level in range(5)]
    for level, path in enumerate(paths):
        Image.fromarray(np.full((20, 30, 3), level, np.uint8)).save(path)
    results = [result for _, result in matter.stream(paths)]
    assert [type(result).__name__ for result in results] == [
        "Matte", "PhotoError", "PhotoError", "PhotoError", "Matte",
    ]  # fmt: skip
    assert str(results[1]) == f"{paths[1]}: not enough memory for this photo."
    assert str(results[2]) == f"{paths[2]}: the model returned numbers that are not finite."
    assert str(results[3]) == f"{paths[3]}: the model cannot run on it (failed to invoke)."
    with pytest.raises(ImageError, match="image: not enough memory"):
        matter(np.full((20, 30, 3), 1, np.uint8))


def test_a_large_photo_that_fails_is_named(models, tmp_path, monkeypatch):
    monkeypatch.setattr(matter_module, "_LARGE", 100)
    matter = Matter(models / "red.keras", size=64)

    def run(batch):
        raise MemoryError

    monkeypatch.setattr(matter._network, "run", run)
    Image.fromarray(shaded(20, 30)).save(tmp_path / "large.png")
    ((_, error),) = matter.stream([tmp_path / "large.png"])
    assert str(error).startswith(f"{tmp_path / 'large.png'}: not enough memory")
    while error := error.__cause__:  # or the traceback would keep the photo's arrays
        assert error.__traceback__ is None


def test_tensorflows_memory_error_is_a_memory_error():
    import tensorflow as tf

    with pytest.raises(MemoryError, match="OOM"), tensorflow_memory():
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")


@pytest.mark.parametrize(
    "number",
    ["64", 64.0, True, [64] * 100_000, np.zeros(2, int), 10**400],
    ids=lambda number: type(number).__name__,
)
def test_numbers_of_wrong_types(models, keras_matter, number):
    for use in (
        lambda: Matter(models / "red.keras", size=number),
        lambda: Matter(models / "red.keras", threads=number),
        lambda: keras_matter(shaded(20, 20), size=number),
    ):
        with pytest.raises((TypeError, ValueError), match=r"^(size|threads): expected") as caught:
            use()
        assert len(str(caught.value)) < 100
    assert keras_matter(shaded(20, 20), size=np.int64(32)).alpha.shape == (20, 20)


def test_repr(models):
    assert repr(Matter(models / "red.keras", size=64)) == (
        f"Matter({str(models / 'red.keras')!r}, size=64)"
    )
    assert repr(Matter(models / "red.tflite")) == (
        f"Matter({str(models / 'red.tflite')!r}, fixed_size=(48, 64))"
    )


class TestSavedModelOfKnownSize:
    @pytest.fixture
    def folder(self, models, tmp_path):
        shutil.copytree(models / "saved", tmp_path / "saved")
        self.describe(tmp_path / "saved", '{"size": 64, "max_size": 96}')
        return tmp_path / "saved"

    def describe(self, folder, text):
        (folder / "9" / "assets.extra").mkdir(exist_ok=True)
        (folder / "9" / "assets.extra" / "kmatting.json").write_text(text)

    def test_runs_at_its_size(self, folder):
        matter = Matter(folder)
        assert matter.size == 96
        assert matter._predict(shaded(300, 300), "image").shape == (96, 96)
        assert Matter(folder, size=48).size == 48

    def test_refuses_a_larger_size(self, folder):
        with pytest.raises(ValueError, match=r"reduces photos to 96x96 .*size 97"):
            Matter(folder, size=97)
        with pytest.raises(ValueError, match="reduces photos to 96x96 pixels itself"):
            Matter(folder)(shaded(20, 20), size=512)

    @pytest.mark.parametrize("text", ["{", "[]", '{"max_size": "96"}', '{"max_size": -1}'])
    def test_damaged_metadata_is_refused(self, folder, text):
        self.describe(folder, text)
        with pytest.raises(ValueError, match=r"damaged kmatting\.json"):
            Matter(folder)


def test_sizes(models, keras_matter):
    with pytest.raises(ValueError, match="runs at 48x64 pixels only"):
        Matter(models / "red.tflite", size=512)
    with pytest.raises(ValueError, match="size: expected a number from 16 to 65536, received 8"):
        Matter(models / "red.keras", size=8)
    with pytest.raises(ValueError, match="threads: expected a number from 1 to 1024, received 0"):
        Matter(models / "red.tflite", threads=0)
    with pytest.raises(ValueError, match="runs at 48x64 pixels only"):
        Matter(models / "red.tflite", threads=2)(shaded(9, 9), size=64)
    with pytest.raises(ValueError, match="size: expected a number from 16 to 65536, received 8"):
        keras_matter(shaded(9, 9), size=8)
    keras_matter(shaded(9, 9))  # from here on TensorFlow runs
    with pytest.raises(ValueError, match="threads can no longer be set"):
        Matter(models / "red.keras", threads=3)


def test_a_size_for_one_photo(models, keras_matter):
    photo = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    np.testing.assert_array_equal(
        keras_matter(photo, size=32).alpha, Matter(models / "red.keras", size=32)(photo).alpha
    )
    assert keras_matter._predict(photo, "image", size=32).shape == (32, 32)
    assert keras_matter._predict(photo, "image").shape == (64, 64)  # its own size
    assert (keras_matter.fixed_size, keras_matter.size) == (None, 64)
    fixed = Matter(models / "red.tflite")
    assert (fixed.fixed_size, fixed.frame, fixed.size) == (red_model.FRAME, red_model.FRAME, None)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((48, 64), (48, 64)), ((100, 100), (48, 64)), ((100, 400), (32, 64)), ((400, 100), (48, 24))],
)
def test_a_photo_fills_the_frame_but_is_not_distorted_more_than_twice(models, shape, expected):
    assert Matter(models / "red.tflite")._predict(shaded(*shape), "image").shape == expected


def test_a_keras_model_of_fixed_size(tmp_path):
    red_model.channel(0, 32, 48).save(tmp_path / "fixed.keras")
    photo = shaded(100, 100)
    alpha = Matter(tmp_path / "fixed.keras")(photo).alpha
    np.testing.assert_allclose(alpha, photo[..., 0] / 255, atol=0.02)


class TestLoadModel:
    def test_returns_the_network_with_its_layers(self, tmp_path):
        """In a new process, where nothing else has registered kmatting's layers."""
        export_models.tiny_model(tmp_path / "tiny.keras")
        code = (
            "import sys, kmatting, numpy as np\n"
            "model = kmatting.load_model(sys.argv[1])\n"
            "print(model(np.zeros((1, 16, 32, 3), np.float32)).shape, model.compiled)\n"
        )
        command = [sys.executable, "-c", code, tmp_path / "tiny.keras"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == "(1, 16, 32, 1) False"

    def test_the_default_is_the_shipped_network(self, models, monkeypatch):
        monkeypatch.setattr(
            "kmatting.networks.shipped.shipped_model",
            lambda suffix: {".keras": models / "red.keras"}[suffix],
        )
        assert load_model().count_params() == 3

    def test_refuses_other_files(self, models, tmp_path):
        for path in (models / "red.tflite", models / "saved"):
            with pytest.raises(ValueError, match=r"expected a \.keras file"):
                load_model(path)
        with pytest.raises(ValueError, match=r"none\.keras: no such file"):
            load_model(tmp_path / "none.keras")
        (tmp_path / "bad.keras").write_bytes(b"no model")
        with pytest.raises(ValueError, match=r"bad\.keras: cannot be loaded as a Keras model"):
            load_model(str(tmp_path / "bad.keras"))


class TestShippedModel:
    """The file that `kmatting.predict` uses when none is named."""

    def test_is_small_and_needs_no_choice(self):
        assert all(shipped_model(name=name).stat().st_size <= 6.5e6 for name in SHIPPED)
        assert Matter().frame == Matter("general").frame == (320, 320)
        assert Matter("detail").frame == (640, 640)

    def test_a_file_counts_before_a_name(self, models, monkeypatch, tmp_path):
        assert find_model("detail") == shipped_model(name="detail")
        monkeypatch.chdir(tmp_path)
        shutil.copytree(models / "saved", "detail")
        assert find_model("detail") == Path("detail")
        assert Matter("detail").frame is None

    def test_another_name_is_refused_and_the_shipped_ones_are_named(self):
        with pytest.raises(
            ModelError, match=r"details: expected .*: general, detail or open, and there is"
        ):
            Matter("details")

    def test_finds_a_person(self):
        alpha = Matter()(data.astronaut()).alpha
        face, suit, flag = alpha[60:180, 180:270], alpha[260:380, 120:300], alpha[:60, :80]
        assert face.mean() > 0.9
        assert suit.mean() > 0.9
        assert flag.mean() < 0.1


def test_suffixes_in_capitals(models, tmp_path):
    (tmp_path / "RED.TFLITE").write_bytes((models / "red.tflite").read_bytes())
    assert Matter(tmp_path / "RED.TFLITE").frame == red_model.FRAME


@pytest.mark.parametrize("name", ["none.keras", "none.tflite", "none", "none.onnx"])
def test_models_that_do_not_exist(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name}: .*no such file"):
        Matter(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "kind"), [("bad.keras", "a Keras model"), ("bad.tflite", "a TFLite model")]
)
def test_files_that_are_no_models(tmp_path, name, kind):
    (tmp_path / name).write_bytes(b"no model at all")
    with pytest.raises(ValueError, match=rf"{name}: cannot be loaded as {kind} \(.+\)"):
        Matter(tmp_path / name)


def test_folders_that_are_no_models(tmp_path):
    with pytest.raises(ValueError, match=r"not a SavedModel: expected saved_model\.pb"):
        Matter(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"no model at all")
    with pytest.raises(ValueError, match="cannot be loaded as a SavedModel"):
        Matter(tmp_path)


def test_models_that_are_no_matting_models(tmp_path):
    import keras

    grey = keras.Input((None, None, 1))
    keras.Model(grey, keras.layers.Conv2D(1, 1)(grey)).save(tmp_path / "grey.keras")
    with pytest.raises(ValueError, match=r"grey\.keras: expected a model that takes an image"):
        Matter(tmp_path / "grey.keras")
    image = keras.Input((None, None, 3))
    keras.Model(image, keras.layers.Conv2D(2, 1)(image)).save(tmp_path / "two.keras")
    with pytest.raises(ValueError, match=r"two\.keras: expected an alpha of shape"):
        Matter(tmp_path / "two.keras")(shaded(20, 20))
    broken = red_model.channel(0)
    broken.set_weights([np.full((1, 1, 3, 1), np.inf, np.float32)])
    broken.save(tmp_path / "infinite.keras")
    with pytest.raises(ValueError, match="not finite"):
        Matter(tmp_path / "infinite.keras")(shaded(20, 20))


def test_a_long_photo_is_remarked_where_the_size_is_fixed(models, keras_matter):
    """A model of any size sees more of it, so the mattes differ."""
    fixed = Matter(models / "red.tflite")  # of 48 x 64 pixels
    (remark,) = fixed(shaded(100, 400)).remarks()
    assert remark.startswith("the network saw this long photo at 64x32 pixels")
    assert fixed(shaded(400, 90)).remarks()
    for shape in (red_model.FRAME, (100, 300), (300, 190)):
        assert not fixed(shaded(*shape)).remarks()
    assert not keras_matter(shaded(100, 900)).remarks()


@pytest.mark.parametrize(("factor", "offset"), [(255, 0), (-5, 0), (1, -0.5), (1, 0.5)])
def test_numbers_that_are_no_alphas_are_refused(models, monkeypatch, factor, offset):
    """Clipped, they would be a matte of all 1 or all 0."""
    matter = Matter(models / "red.onnx", size=32)
    run = matter._network.run
    monkeypatch.setattr(matter._network, "run", lambda batch: factor * run(batch) + offset)
    with pytest.raises(ModelError, match=r"red\.onnx: expected an alpha from 0 to 1 .* from "):
        matter(shaded(20, 30))


def test_codes_a_little_beyond_one_are_clipped(models, monkeypatch):
    matter = Matter(models / "red.onnx", size=32)
    run = matter._network.run
    monkeypatch.setattr(matter._network, "run", lambda batch: 1.06 * run(batch) - 0.02)
    for level, expected in ((0, 0), (255, 1)):
        assert (matter(np.full((20, 30, 3), level, np.uint8)).alpha == expected).all()
