"""The predict command, as a user calls it, with a model whose alpha is the photo's red."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path, PurePath

import numpy as np
import pytest
import red_model
from photo_files import files, write_three
from PIL import Image

from kmatting import predict
from kmatting.images import read_alpha, read_image, read_photo
from kmatting.predict import find_photos, name_outputs

PLAIN = ["--foreground", "none"]


@pytest.fixture(scope="module")
def model():
    return str(red_model.folder() / "red.tflite")


@pytest.fixture
def run(model, capsys):
    """Returns a function that calls the command: exit status, lines of stdout and stderr."""

    def call(*arguments):
        status = predict.main(["--model", model, *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out.splitlines(), captured.err.splitlines()

    return call


@pytest.fixture
def photos(tmp_path):
    return write_three(tmp_path / "photos")


def colours(picture):
    """The set of colours in a picture."""
    pixels = np.asarray(picture)
    return set(map(tuple, pixels.reshape(picture.width * picture.height, -1).tolist()))


def test_cutouts_of_a_folder_by_default(run, photos, tmp_path):
    status, out, err = run(photos, "--output", tmp_path / "out", *PLAIN)
    assert (status, err) == (0, [])
    assert out == [f"2 of 2 photos done, written to {tmp_path / 'out'}"]
    assert files(tmp_path / "out") == ["a.png", "b.png"]
    picture = Image.open(tmp_path / "out/a.png")
    assert (picture.mode, picture.size) == ("RGBA", (30, 20))
    assert colours(picture) == {(255, 40, 200, 255)}
    assert not np.asarray(Image.open(tmp_path / "out/b.png")).any()


def test_foreground_colours_are_estimated(run, tmp_path):
    photo = np.zeros((24, 60, 3), np.uint8)
    photo[..., 0] = np.linspace(-80, 335, 60).clip(0, 255)  # red over black
    Image.fromarray(photo).save(tmp_path / "photo.png")
    assert run(tmp_path / "photo.png", "--output", tmp_path / "out")[0] == 0
    picture = np.asarray(Image.open(tmp_path / "out/photo.png"))
    soft = picture[(picture[..., 3] > 60) & (picture[..., 3] < 250)]
    assert len(soft) > 400
    assert soft[:, 0].min() > 240  # not the mixture with black, which is as red as it is opaque


def test_all_kinds_go_into_folders_of_their_own(run, photos, tmp_path):
    kinds = ["--alpha", "--cutout", "--composite", "lime", "--panel", *PLAIN]
    status, _, err = run(photos, "--recursive", "--output", tmp_path / "out", *kinds)
    assert (status, err) == (0, [])
    names = ("a.png", "b.png", "deep/c.png")
    folders = ("alpha", "composite", "cutout", "panel")
    assert files(tmp_path / "out") == [f"{kind}/{name}" for kind in folders for name in names]
    alpha = Image.open(tmp_path / "out/alpha/deep/c.png")
    assert (alpha.mode, colours(alpha)) == ("L", {(102,)})
    composite = Image.open(tmp_path / "out/composite/deep/c.png")
    # 0.4 of (102, 40, 200) over (0, 255, 0).
    assert (composite.mode, colours(composite)) == ("RGB", {(41, 169, 80)})


def test_sixteen_bits_and_webp(run, photos, tmp_path):
    path = photos / "deep/c.png"
    assert run(path, "--output", tmp_path / "a", "--alpha", "--alpha-bits", "16")[0] == 0
    alpha = Image.open(tmp_path / "a/c.png")
    assert alpha.mode == "I;16"
    np.testing.assert_allclose(np.asarray(alpha) / 65535, 0.4, atol=1e-4)
    assert run(path, "--output", tmp_path / "b", "--cutout-format", "webp", *PLAIN)[0] == 0
    picture = Image.open(tmp_path / "b/c.webp")
    assert (picture.format, picture.mode) == ("WEBP", "RGBA")
    assert colours(picture.getchannel("A")) == {(102,)}


def test_composite_over_an_image(run, photos, tmp_path):
    Image.new("RGB", (500, 9), "blue").save(tmp_path / "blue.png")
    background = ["--composite", tmp_path / "blue.png", *PLAIN]
    assert run(photos / "b.jpg", "--output", tmp_path / "out", *background)[0] == 0
    assert colours(Image.open(tmp_path / "out/b.png")) == {(0, 0, 255)}


def odd_photos():
    """Photos of each mode, turn and shape, with the options to save them."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    photo = small.resize((70, 50), Image.Resampling.BICUBIC)
    clear = photo.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(photo.size))
    sixteen = Image.fromarray(np.asarray(photo)[..., 1].astype(np.uint16) * 257)
    yield from [
        ("grey.png", photo.convert("L"), {}),
        ("bits.png", photo.convert("1", dither=0), {}),
    ]
    yield from [("palette.png", photo.convert("P"), {}), ("clear.png", clear, {})]
    yield from [
        ("cmyk.jpg", photo.convert("CMYK"), {}),
        ("grey_clear.png", clear.convert("LA"), {}),
    ]
    yield from [("sixteen.png", sixteen, {}), ("palette_clear.gif", clear.convert("P"), {})]
    yield from [("photo.webp", photo, {}), ("photo.bmp", photo, {}), ("lab.tif", photo, {})]
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        yield f"turn{turn}.jpg", photo, {"exif": exif}
    for size in ((1, 1), (1, 400), (400, 1), (2, 2), (17, 31), (900, 45)):
        yield f"size{size[0]}x{size[1]}.png", photo.resize(size), {}


def test_odd_photos(run, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, photo, options in odd_photos():
        photo.save(folder / name, **options)
    names = [*files(folder), "palette_clear.gif"]
    inputs = [folder, folder / "palette_clear.gif"]  # .gif is no suffix of photos in a folder
    status, _, err = run(*inputs, "--alpha", "--cutout", "--output", tmp_path / "out", *PLAIN)
    assert (status, err) == (0, [])
    assert len(files(tmp_path / "out")) == 2 * len(set(names))
    keep_suffix = {"photo.bmp", "photo.webp"}
    for name in set(names):
        stem = name if name in keep_suffix else Path(name).stem
        photo = read_photo(folder / name)
        expected = photo.flatten()[..., 0] / 255.0
        if photo.opacity is not None:
            expected = expected * photo.opacity / 255
        alpha = read_alpha(tmp_path / "out/alpha" / f"{stem}.png") / 255
        assert alpha.shape == expected.shape, name
        # The network sees 48 x 64 pixels: detail of larger photos comes back by refinement, but
        # of the long one it sees 64 x 3 pixels.
        assert np.abs(alpha - expected).mean() < (0.1 if "900" in name else 0.03), name
        cutout = Image.open(tmp_path / "out/cutout" / f"{stem}.png")
        np.testing.assert_array_equal(np.asarray(cutout.getchannel("A")), np.rint(alpha * 255))


def bomb(path, side):
    """A PNG file that says it is huge."""

    def chunk(kind, data):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b""))


def test_bad_files_are_named_and_the_others_go_on(run, photos, tmp_path):
    whole = (photos / "b.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "empty.png").touch()
    (photos / "text.jpg").write_text("Not a photo.")
    bomb(photos / "bomb.png", 60_000)
    bad = ["bomb.png", "cut.jpg", "empty.png", "text.jpg", "none.jpg"]
    status, out, err = run(photos, photos / "none.jpg", "--output", tmp_path / "out", "--alpha")
    assert status == 1
    assert out == [f"2 of 7 photos done, written to {tmp_path / 'out'}"]
    assert len(err) == len(bad)
    for name, line in zip(bad, err, strict=True):
        assert line.startswith(f"error: {photos / name}: ")
    assert files(tmp_path / "out") == ["a.png", "b.png"]
    # All bad.
    assert run(photos / "text.jpg", "--output", tmp_path / "other", "--alpha")[0] == 1
    assert not (tmp_path / "other").exists()


def test_a_file_that_cannot_be_written_is_named(run, photos, tmp_path):
    Image.new("RGB", (17_000, 2)).save(photos / "a_long.png")  # WebP ends at 16383 pixels
    options = ["--cutout-format", "webp", "--output", tmp_path / "out", *PLAIN]
    status, _, err = run(photos, *options)
    assert status == 1
    assert len(err) == 1
    assert str(photos / "a_long.png") in err[0]
    assert "cannot be written" in err[0]
    assert files(tmp_path / "out") == ["a.webp", "b.webp"]


def names(*paths):
    """Names of outputs for pairs (folder, path in it)."""
    found = [(Path(folder) / path, Path(folder)) for folder, path in paths]
    return [name.as_posix() for name in name_outputs(found)]


def test_names_are_kept_short():
    assert names(("/x", "a.jpg"), ("/x", "b.c.jpg"), ("/x", "d/a.jpg")) == ["a", "b.c", "d/a"]


def test_equal_names_keep_the_suffix():
    assert names(("/x", "a.jpg"), ("/x", "a.png"), ("/x", "b.png")) == ["a.jpg", "a.png", "b"]
    assert names(("/x", "a.jpg"), ("/x", "A.png")) == ["a.jpg", "A.png"]


def test_equal_files_of_two_folders_get_their_folders_names():
    assert names(("/x", "a.jpg"), ("/y", "a.jpg"), ("/y", "b.jpg")) == ["x/a", "y/a", "b"]
    assert names(("/x", "d/a.jpg"), ("/y", "d/a.jpg")) == ["x/d/a", "y/d/a"]


def test_what_is_equal_still_is_numbered():
    assert names(("/1/x", "a.jpg"), ("/2/x", "a.jpg")) == ["a-2", "a-3"]
    triple = names(("/x", "a.jpg"), ("/x", "a.png"), ("/x", "a.jpg.png"))
    assert len(set(triple)) == 3


def test_photos_of_equal_stem_do_not_collide(run, photos, tmp_path):
    Image.new("RGB", (8, 8), (51, 0, 0)).save(photos / "a.webp", lossless=True)
    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (8, 8), (153, 0, 0)).save(other / "b.jpg", quality=100)
    status, _, _ = run(photos, other, "--output", tmp_path / "out", "--alpha")
    assert status == 0
    levels = {name: read_alpha(tmp_path / "out" / name)[0, 0] for name in files(tmp_path / "out")}
    assert levels == pytest.approx(
        {"a.png.png": 255, "a.webp.png": 51, "photos/b.png": 0, "other/b.png": 153}, abs=2
    )


def test_each_photo_is_taken_once(photos, monkeypatch):
    monkeypatch.chdir(photos)
    found = find_photos(["a.png", ".", "deep/../a.png", str(photos)], False, Path("out"))
    assert [path.name for path, _ in found] == ["a.png", "b.jpg"]


def test_outputs_inside_the_input_folder_are_no_inputs(run, photos):
    options = [photos, "--recursive", "--output", photos / "out", "--alpha"]
    assert run(*options)[0] == 0
    status, out, _ = run(*options, "--overwrite")
    assert (status, out) == (0, [f"3 of 3 photos done, written to {photos / 'out'}"])


def test_nothing_is_overwritten_unless_asked(run, photos, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "b.png").write_text("mine")
    status, _, err = run(photos, "--output", out, "--alpha")
    assert status == 2
    assert err == [f"error: {out / 'b.png'}: exists already; --overwrite or --skip-existing?"]
    assert files(out) == ["b.png"]  # found before any work

    status, lines, _ = run(photos, "--output", out, "--alpha", "--skip-existing")
    assert (status, lines) == (0, [f"1 of 1 photos done, written to {out}"])
    assert (out / "b.png").read_text() == "mine"
    status, lines, _ = run(photos, "--output", out, "--alpha", "--skip-existing")
    assert (status, lines) == (0, ["nothing to do: all outputs are there already."])

    assert run(photos, "--output", out, "--alpha", "--overwrite")[0] == 0
    assert read_alpha(out / "b.png").shape == (20, 30)


def test_a_photo_is_never_replaced(run, photos):
    before = (photos / "a.png").read_bytes()
    status, _, err = run(photos, "--output", photos, "--alpha", "--overwrite")
    assert status == 2
    assert err == [f"error: {photos / 'a.png'}: would replace a photo; choose another --output."]
    assert (photos / "a.png").read_bytes() == before


def test_an_empty_folder(run, tmp_path):
    (tmp_path / "photos").mkdir()
    status, _, err = run(tmp_path / "photos", "--output", tmp_path / "out")
    assert status == 2
    assert "no photos in this folder; --recursive" in err[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--composite", "grean"], "'grean': neither a colour"),
        (["--size", "512"], "runs at 48x64 pixels only"),
        (["--threads", "0"], "at least 1 thread"),
        (["--model", "none.tflite"], "none.tflite: no such file"),
    ],
)
def test_what_cannot_be_run_as_given(run, photos, tmp_path, options, message):
    status, _, err = run(photos, "--output", tmp_path / "out", *PLAIN, *options)
    assert (status, len(err)) == (2, 1)
    assert err[0].startswith("error: ")
    assert message in err[0]
    assert not (tmp_path / "out").exists()


def test_without_pymatting(run, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymatting", None)
    status, _, err = run(photos, "--output", tmp_path / "out")
    assert (status, len(err)) == (2, 1)
    assert "kmatting[foreground]" in err[0]
    assert "--foreground none" in err[0]
    assert run(photos, "--output", tmp_path / "out", *PLAIN)[0] == 0
    assert run(photos, "--output", tmp_path / "alphas", "--alpha")[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["a.jpg"],
        ["-", "a.jpg"],
        ["-", "--output", "out"],
        ["-", "--alpha", "--panel"],
        ["a.jpg", "--output", "out", "--overwrite", "--skip-existing"],
        [],
    ],
)
def test_usage_errors(run, arguments):
    with pytest.raises(SystemExit) as leaving:
        run(*arguments)
    assert leaving.value.code == 2


def test_interrupted(run, photos, tmp_path, monkeypatch):
    def interrupt(matter, sources):
        raise KeyboardInterrupt

    monkeypatch.setattr(predict.Matter, "stream", interrupt)
    status, _, err = run(photos, "--output", tmp_path / "out", *PLAIN)
    assert (status, len(err)) == (130, 1)


def in_a_shell(model, *arguments, **options):
    command = [sys.executable, "-m", "kmatting.predict", "--model", model, *arguments]
    return subprocess.run(command, capture_output=True, check=False, **options)


def test_from_standard_input_to_standard_output(model, photos):
    done = in_a_shell(model, "-", *PLAIN, input=(photos / "a.png").read_bytes())
    assert (done.returncode, done.stderr) == (0, b"")
    picture = Image.open(io.BytesIO(done.stdout))
    assert (picture.format, picture.mode, picture.size) == ("PNG", "RGBA", (30, 20))

    done = in_a_shell(model, "-", "--alpha", input=b"no photo")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"error: standard input: not an image")
    assert done.stderr.count(b"\n") == 1


def test_a_reader_that_leaves_early(model, photos):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as nobody:
        command = [sys.executable, "-m", "kmatting.predict", "--model", model, "-", "--alpha"]
        photo = (photos / "a.png").read_bytes()
        done = subprocess.run(
            command, input=photo, stdout=nobody, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: ")
    assert done.stderr.count(b"\n") == 1


def test_help_is_quick_and_a_tflite_model_needs_no_tensorflow(model, photos, tmp_path):
    code = f"""
import contextlib, sys
from kmatting.predict import main
with contextlib.suppress(SystemExit):
    main(["--help"])
assert "ai_edge_litert" not in sys.modules
main(["--model", {model!r}, {str(photos)!r}, "--output", {str(tmp_path / "out")!r}, "--alpha"])
loaded = [name for name in ("tensorflow", "keras", "numba") if name in sys.modules]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert files(tmp_path / "out") == ["a.png", "b.png"]


def test_native_libraries_are_quiet(photos, tmp_path):
    model = str(red_model.folder() / "red.keras")
    done = in_a_shell(model, str(photos), "--output", str(tmp_path / "out"), "--alpha")
    assert (done.returncode, done.stderr) == (0, b"")
    assert files(tmp_path / "out") == ["a.png", "b.png"]


def test_alphas_have_the_names_of_the_photos(run, photos, tmp_path):
    """So that `kmatting.evaluate --predictions` finds each one's true alpha by its stem."""
    assert run(photos, "--output", tmp_path / "out", "--alpha")[0] == 0
    stems = {PurePath(name).stem for name in files(tmp_path / "out")}
    assert stems == {path.stem for path in photos.iterdir() if path.is_file()}
    assert read_image(photos / "a.png").shape[:2] == read_alpha(tmp_path / "out/a.png").shape
