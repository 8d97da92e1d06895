"""The predict command, as a user calls it, with a model whose alpha is the photo's red."""

import errno
import io
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import red_model
from photo_files import files, write_three
from PIL import Image

from kmatting import predict
from kmatting.errors import ImageError
from kmatting.images import read_alpha, read_photo
from kmatting.inference.matter import Matter
from kmatting.pictures.jobs import find_photos
from kmatting.pictures.names import Job, check_names, is_output, matte_stem, output_name

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


def test_verbose_names_the_model_and_its_terms(run, model, photos, tmp_path, capsys):
    photo = sorted(photos.iterdir())[0]
    _, _, err = run(photo, "-o", tmp_path / "one.png", "--verbose")
    stated = "Terms: the model does not state them."
    assert err[0] == f"model: {model}, at 48x64 pixels. {stated}"
    assert predict.main([str(photo), "-o", str(tmp_path / "two.png"), "--verbose"]) == 0
    first = capsys.readouterr().err.splitlines()[0]
    assert f"general.tflite, at 320x320 pixels. Terms: {Matter().licence}." in first


def test_cutouts_of_a_folder_by_default(run, photos, tmp_path):
    status, out, err = run(photos, "--output", tmp_path / "out", *PLAIN)
    assert status == 0
    assert err == [
        f"note: {photos}: did not search 1 folder in it (--recursive does)",
        f"warning: {photos / 'b.jpg'}: no subject found.",
    ]
    assert out == [f"2 of 2 photos done, written to {tmp_path / 'out'}"]
    assert files(tmp_path / "out") == ["a.cutout.png", "b.cutout.png"]
    picture = Image.open(tmp_path / "out/a.cutout.png")
    assert (picture.mode, picture.size) == ("RGBA", (30, 20))
    assert colours(picture) == {(255, 40, 200, 255)}
    assert not np.asarray(Image.open(tmp_path / "out/b.cutout.png")).any()


def test_foreground_colours_are_estimated(run, tmp_path):
    photo = np.zeros((24, 60, 3), np.uint8)
    photo[..., 0] = np.linspace(-80, 335, 60).clip(0, 255)  # red over black
    Image.fromarray(photo).save(tmp_path / "photo.png")
    assert run(tmp_path / "photo.png", "--output", tmp_path / "out")[0] == 0
    picture = np.asarray(Image.open(tmp_path / "out/photo.cutout.png"))
    soft = picture[(picture[..., 3] > 60) & (picture[..., 3] < 250)]
    assert len(soft) > 400
    assert soft[:, 0].min() > 240  # not the mixture with black, which is as red as it is opaque


def test_all_kinds_in_one_layout(run, photos, tmp_path):
    kinds = ["--alpha", "--cutout", "--composite", "lime", "--panel", *PLAIN]
    assert run(photos, "--recursive", "--output", tmp_path / "out", *kinds)[0] == 0
    names = ("a", "b", "deep/c")
    outputs = ("alpha", "composite", "cutout", "panel")
    assert files(tmp_path / "out") == [f"{name}.{kind}.png" for name in names for kind in outputs]
    alpha = Image.open(tmp_path / "out/deep/c.alpha.png")
    assert (alpha.mode, colours(alpha)) == ("L", {(102,)})
    composite = Image.open(tmp_path / "out/deep/c.composite.png")
    # 0.4 of (102, 40, 200) over (0, 255, 0).
    assert (composite.mode, colours(composite)) == ("RGB", {(41, 169, 80)})


def test_sixteen_bits_and_webp(run, photos, tmp_path):
    path = photos / "deep/c.png"
    assert run(path, "--output", tmp_path / "a", "--alpha", "--alpha-bits", "16")[0] == 0
    alpha = Image.open(tmp_path / "a/c.alpha.png")
    assert alpha.mode == "I;16"
    np.testing.assert_allclose(np.asarray(alpha) / 65535, 0.4, atol=1e-4)
    assert run(path, "--output", tmp_path / "b", "--cutout-format", "webp", *PLAIN)[0] == 0
    picture = Image.open(tmp_path / "b/c.cutout.webp")
    assert (picture.format, picture.mode) == ("WEBP", "RGBA")
    assert colours(picture.getchannel("A")) == {(102,)}


def test_composite_over_an_image(run, photos, tmp_path):
    Image.new("RGB", (500, 9), "blue").save(tmp_path / "blue.png")
    options = ["--recursive", "--output", tmp_path / "out", "--composite", tmp_path / "blue.png"]
    assert run(photos, *options, *PLAIN)[0] == 0
    # The subject alone; the background alone; 0.4 of (102, 40, 200) over the background.
    for name, expected in (("a", (255, 40, 200)), ("b", (0, 0, 255)), ("deep/c", (41, 16, 233))):
        assert colours(Image.open(tmp_path / f"out/{name}.composite.png")) == {expected}


def test_several_composites_in_one_run(run, photos, tmp_path):
    Image.new("RGB", (9, 9), "blue").save(tmp_path / "Blue sea.PNG")
    backgrounds = ["white", "#00ff00", tmp_path / "Blue sea.PNG"]
    options = [option for each in backgrounds for option in ("--composite", each)]
    options += ["--composite-format", "jpg", *PLAIN]
    out = tmp_path / "out"
    assert run(photos / "deep/c.png", "-o", out, *options)[0] == 0
    names = ["c.composite-00ff00.jpg", "c.composite-blue-sea.jpg", "c.composite-white.jpg"]
    assert files(out) == names
    assert all(is_output(name) for name in names)
    # 0.4 of (102, 40, 200) over each.
    for name, expected in zip(names, [(41, 169, 80), (41, 16, 233), (194, 169, 233)], strict=True):
        picture = Image.open(out / name)
        assert picture.format == "JPEG"
        assert np.abs(np.asarray(picture).astype(int) - expected).max() <= 3
    (out / names[1]).unlink()
    assert run(photos / "deep/c.png", "-o", out, *options, "--skip-existing")[0] == 0
    assert files(out) == names


def test_metadata_are_kept_on_demand(run, photos, tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x8298] = 6, "mine"  # lies on its side; copyright
    path = photos / "sea.jpg"
    Image.new("RGB", (40, 20), "red").save(path, exif=exif)
    options = ["--cutout", "--composite", "white", "--alpha", *PLAIN, "--overwrite"]
    for keep in ([], ["--keep-metadata"]):
        assert run(path, "-o", tmp_path, *options, *keep)[0] == 0
        for kind in ("cutout", "composite"):
            picture = Image.open(tmp_path / f"sea.{kind}.png")
            assert picture.size == (20, 40)
            assert dict(picture.getexif()) == ({0x8298: "mine"} if keep else {})


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
    names = files(folder)
    kinds = ["--alpha", "--cutout", "--keep-suffix"]
    assert run(folder, *kinds, "--output", tmp_path / "out", *PLAIN)[0] == 0
    assert len(files(tmp_path / "out")) == 2 * len(names)
    for name in names:
        photo = read_photo(folder / name)
        expected = photo.flatten()[..., 0] / 255.0
        if photo.opacity is not None:
            expected = expected * photo.opacity / 255
        alpha = read_alpha(tmp_path / "out" / f"{name}.alpha.png") / 255
        assert alpha.shape == expected.shape, name
        # The network sees 48 x 64 pixels: detail of larger photos comes back by refinement, but
        # of the long one it sees 64 x 3 pixels.
        assert np.abs(alpha - expected).mean() < (0.1 if "900" in name else 0.03), name
        cutout = Image.open(tmp_path / "out" / f"{name}.cutout.png")
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
    inputs = [*sorted(photos.glob("*.*")), photos / "none.jpg"]
    status, out, err = run(*inputs, "--output", tmp_path / "out", "--alpha")
    err = [line for line in err if not line.startswith("warning: ")]
    assert status == 1
    assert out == [f"2 of 7 photos done, written to {tmp_path / 'out'}"]
    assert len(err) == len(bad)
    for name, line in zip(bad, err, strict=True):
        assert line.startswith(f"error: {photos / name}: ")
    assert files(tmp_path / "out") == ["a.alpha.png", "b.alpha.png"]
    # All bad.
    assert run(photos / "text.jpg", "--output", tmp_path / "other", "--alpha")[0] == 1
    assert not (tmp_path / "other").exists()


def test_a_file_that_cannot_be_written_is_named(run, photos, tmp_path):
    Image.new("RGB", (17_000, 2)).save(photos / "a_long.png")  # WebP ends at 16383 pixels
    options = ["--cutout-format", "webp", "--output", tmp_path / "out", *PLAIN]
    status, _, err = run(photos / "a_long.png", photos / "a.png", *options)
    assert status == 1
    assert len(err) == 1
    assert str(photos / "a_long.png") in err[0]
    assert "cannot be written" in err[0]
    assert files(tmp_path / "out") == ["a.cutout.webp"]


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
    (out / "b.alpha.png").write_text("mine")
    status, _, err = run(photos, "--output", out, "--alpha")
    assert status == 2
    assert err[-1] == (
        f"error: {out / 'b.alpha.png'} exists. Use --overwrite to replace it, or --skip-existing "
        "to keep it."
    )
    assert files(out) == ["b.alpha.png"]  # found before any work

    status, lines, _ = run(photos, "--output", out, "--alpha", "--skip-existing")
    assert (status, lines) == (0, [f"1 of 1 photos done, written to {out / 'a.alpha.png'}"])
    assert (out / "b.alpha.png").read_text() == "mine"
    status, lines, _ = run(photos, "--output", out, "--alpha", "--skip-existing")
    assert (status, lines) == (0, ["nothing to do: all outputs exist."])

    assert run(photos, "--output", out, "--alpha", "--overwrite")[0] == 0
    assert read_alpha(out / "b.alpha.png", exact=True).shape == (20, 30)


def test_a_photo_is_never_replaced(run, photos):
    before = (photos / "a.png").read_bytes()
    target = photos / "a.png"
    status, _, err = run(target, "--output", photos / "deep/../a.png", "--alpha", "--overwrite")
    assert status == 2
    assert err[0].endswith("a.png: would replace a photo; choose another --output.")
    assert (photos / "a.png").read_bytes() == before


def test_an_empty_folder(run, tmp_path):
    (tmp_path / "photos").mkdir()
    status, _, err = run(tmp_path / "photos", "--output", tmp_path / "out")
    assert status == 2
    assert err == [f"error: {tmp_path / 'photos'}: no photos in this folder."]
    (tmp_path / "photos/deep").mkdir()
    _, _, err = run(tmp_path / "photos", "--output", tmp_path / "out")
    assert err[0].endswith("did not search 1 folder in it (--recursive does).")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--composite", "grean"], "'grean': neither a colour"),
        (["--size", "512"], "runs at 48x64 pixels only"),
        (["--model", "none.tflite"], "none.tflite: no such file"),
    ],
)
def test_what_cannot_be_run_as_given(run, photos, tmp_path, options, message):
    status, _, err = run(photos / "a.png", "--output", tmp_path / "out", *PLAIN, *options)
    assert (status, len(err)) == (2, 1)
    assert err[0].startswith("error: ")
    assert message in err[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("- a.jpg", "standard input (-) cannot be combined with other inputs"),
        ("- -o out", "standard input (-) is written to standard output, or to --output FILE"),
        ("a.jpg b.jpg -o out.png", "out.png is one file; for several photos, name a folder"),
        ("tests -o out.png", "out.png is one file; for several photos, name a folder"),
        ("a.jpg -o out.png --alpha --cutout", "one file, but alpha and cutout were chosen"),
        ("a.jpg -o out.jpg", "expected .png, .webp, .tif, .tiff, .avif for the cutout"),
        ("a.jpg -o out.webp --alpha", "expected .png, .bmp, .tif, .tiff for the alpha"),
        ("a.jpg --composite white --composite WHITE", "would both be written to one file"),
        ("a.jpg -o out.jpg --composite white --composite black", "one file, but composite-white"),
        ("a.jpg --threads 0", "--threads: expected a whole number of at least 1, received '0'"),
        ("a.jpg --size 15", "--size: expected a size of at least 16"),
        ("a.jpg --threshold 0", "--threshold: expected a number above 0 and at most 1"),
        ("a.jpg --crop -1", "--crop: margin: expected a number from 0"),
        ("- --alpha --panel", "is one file, but alpha and panel were chosen"),
        ("a.jpg -o out --overwrite --skip-existing", "not allowed with argument --overwrite"),
        ("", "the following arguments are required: INPUT"),
    ],
)
def test_usage_errors(run, capsys, arguments, message):
    with pytest.raises(SystemExit) as leaving:
        run(*arguments.split())
    assert leaving.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_interrupted(run, photos, tmp_path, monkeypatch):
    def interrupt(matter, function, sources, catch):
        raise KeyboardInterrupt

    monkeypatch.setattr(predict.Matter, "map", interrupt)
    status, _, err = run(photos / "a.png", photos / "b.jpg", "-o", tmp_path / "out", *PLAIN)
    assert status == 130
    assert err == ["interrupted; 0 of 2 photos are done; rerun with --skip-existing to continue"]


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
    assert files(tmp_path / "out") == ["a.alpha.png", "b.alpha.png"]


def test_native_libraries_are_quiet(photos, tmp_path):
    model = str(red_model.folder() / "red.keras")
    done = in_a_shell(model, str(photos / "a.png"), "--output", str(tmp_path / "out"), "--alpha")
    assert (done.returncode, done.stderr) == (0, b"")
    assert files(tmp_path / "out") == ["a.alpha.png"]


def test_beside_the_photo_by_default(run, photos):
    assert run(photos / "deep/c.png", "--alpha", "--cutout", *PLAIN)[0] == 0
    assert files(photos / "deep") == ["c.alpha.png", "c.cutout.png", "c.png"]
    # What was written is not taken for photos.
    status, out, err = run(photos / "deep", "--overwrite", *PLAIN)
    assert (status, out) == (0, [f"1 of 1 photos done, written to {photos / 'deep/c.cutout.png'}"])
    assert err[0] == f"note: {photos / 'deep'}: left out 2 outputs of kmatting"


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("x.png", [], ("PNG", "RGBA")),
        ("x.WEBP", [], ("WEBP", "RGB")),  # opaque all over
        ("x.tif", [], ("TIFF", "RGBA")),
        ("x.avif", [], ("AVIF", "RGB")),
        ("new/x.png", ["--alpha"], ("PNG", "L")),
        ("x.tiff", ["--alpha", "--alpha-format", "tif", "--bits", "16"], ("TIFF", "I;16")),
        ("x.jpg", ["--composite", "white"], ("JPEG", "RGB")),
        ("x.bmp", ["--composite", "white"], ("BMP", "RGB")),
        ("x.jpg", ["--panel"], ("JPEG", "RGB")),
    ],
)
def test_output_names_the_file(run, photos, tmp_path, name, kind, expected):
    target = tmp_path / name
    status, out, err = run(photos / "a.png", "-o", target, *kind, *PLAIN)
    assert (status, err) == (0, [])
    assert out == [f"1 of 1 photos done, written to {target}"]
    picture = Image.open(target)
    assert (picture.format, picture.mode) == expected
    assert run(photos / "a.png", "-o", target, *kind, *PLAIN)[0] == 2  # it exists


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("x.gif", [], "x.gif: .gif files cannot be written; expected .png, "),
        ("x.heic", [], "x.heic: .heic files cannot be written"),
        ("x.psd", ["--composite", "white"], "x.psd: .psd files cannot be written"),
        ("x.JP2", [], "x.JP2: .jp2 files cannot be written"),
        ("x.dng", [], "x.dng: .dng files cannot be written"),
        ("x.mp4", ["--alpha"], "x.mp4: .mp4 files cannot be written; expected .png, "),
        ("x.bmp", [], "for the cutout (or add --composite white)"),
        ("x.png", ["--cutout-format", "webp"], "x.png and --cutout-format webp contradict"),
        ("x.webp", ["--bits", "16"], "holds no 16 bits per channel"),
    ],
)
def test_a_file_that_cannot_be_written_so_is_refused_by_name(
    run, photos, tmp_path, capsys, name, options, message
):
    with pytest.raises(SystemExit) as leaving:
        run(photos / "a.png", "-o", tmp_path / name, *options)
    assert leaving.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / name).exists()


def test_a_folder_may_have_a_full_stop_in_its_name(run, photos, tmp_path):
    assert run(photos / "a.png", "-o", tmp_path / "out.v2", *PLAIN)[0] == 0
    assert files(tmp_path / "out.v2") == ["a.cutout.png"]


def test_to_standard_output(model, photos, tmp_path):
    options = ["-o", "-", "--composite", "lime", "--composite-format", "jpg", *PLAIN]
    done = in_a_shell(model, str(photos / "a.png"), *options, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    picture = Image.open(io.BytesIO(done.stdout))
    assert (picture.format, picture.size) == ("JPEG", (30, 20))
    assert not (tmp_path / "-").exists()
    done = in_a_shell(model, str(photos / "a.png"), str(photos / "b.jpg"), "-o", "-", "--alpha")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--output - is one file; for several photos, name a folder." in done.stderr


def test_a_web_address_is_refused_as_it_was_typed(run, tmp_path):
    status, _, err = run("https://a.b/c.jpg", "-o", tmp_path)
    assert status == 2
    assert err == ["error: https://a.b/c.jpg: is a URL, expected a file; download it first."]


@pytest.mark.parametrize("place", ["refine", "foreground", "read"])
@pytest.mark.parametrize("kind", [ValueError, IndexError, OSError])
def test_a_bug_on_one_photo_is_no_error_of_the_photo(
    run, photos, tmp_path, monkeypatch, place, kind
):
    name = {
        "refine": "kmatting.inference.matter.refine",
        "foreground": "kmatting.pictures.matte.estimate_foreground",
        "read": "kmatting.inference.matter.read_photo",
    }[place]
    module, _, function = name.rpartition(".")
    whole = getattr(sys.modules[module], function)
    calls = []

    def planted(*arguments, **options):
        calls.append(None)
        if len(calls) == 1:
            raise kind("all input arrays must have the same shape")
        return whole(*arguments, **options)

    monkeypatch.setattr(name, planted)
    # The photos are worked on side by side, so that any of the two may be hit.
    inputs = [photos / "a.png", photos / "deep/c.png"]
    status, out, err = run(*inputs, "-o", tmp_path / "out")
    assert status == 70
    assert out[0].startswith("1 of 2 photos done")
    assert sum(line.startswith("Traceback") for line in err) == 1
    assert any("this is a bug of kmatting" in line for line in err)
    text = f"internal error ({kind.__name__}: all input arrays must have the same shape)"
    assert sum(line.startswith("error: ") and line.endswith(text) for line in err) == 1
    assert len(files(tmp_path / "out")) == 1
    # Of a single photo, too.
    calls.clear()
    status, out, err = run(inputs[0], "-o", tmp_path / "x.png")
    assert (status, out) == (70, ["0 of 1 photos done"])


def test_ten_bugs_in_a_row_end_the_run(run, tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(30):
        Image.new("RGB", (8, 8), "red").save(folder / f"{number}.png")

    def planted(*_):
        raise IndexError("too far")

    monkeypatch.setattr("kmatting.inference.matter.refine", planted)
    status, out, err = run(folder, "-o", tmp_path / "out")
    assert (status, out) == (70, [])
    assert sum(line.startswith("error: ") for line in err) == 9
    assert any("10 in a row failed" in line for line in err)


def test_shreds_are_told_once(run, two_squares, tmp_path):
    _, _, err = run(two_squares, "-o", tmp_path / "x.png", *PLAIN)
    text = "small parts lie apart from the subject; --only-largest removes them."
    assert err == [f"note: {two_squares}: {text}"]
    assert run(two_squares, "-o", tmp_path / "y.png", *PLAIN, "--only-largest")[2] == []
    other = tmp_path / "other.png"
    other.write_bytes(two_squares.read_bytes())
    _, _, err = run(two_squares, other, "-o", tmp_path / "out", *PLAIN)
    assert err == [f"note: in 2 photos, such as {two_squares}, {text}"]


def test_resolution_is_always_kept(run, tmp_path):
    path = tmp_path / "passport.jpg"
    Image.new("RGB", (60, 40), "red").save(path, dpi=(300, 300))
    for target, kind in [("x.png", []), ("x.jpg", ["--composite", "white"]), ("x.tif", [])]:
        assert run(path, "-o", tmp_path / target, *kind, *PLAIN)[0] == 0
        dpi = Image.open(tmp_path / target).info["dpi"]
        assert dpi == pytest.approx((300, 300), abs=0.01)


@pytest.fixture
def two_squares(tmp_path):
    """A photo with a red square of 10x10 at (4, 4) and one of 3x3, on black."""
    photo = np.zeros((48, 64, 3), np.uint8)
    photo[4:14, 4:14, 0] = 255
    photo[30:33, 40:43, 0] = 255
    Image.fromarray(photo).save(tmp_path / "squares.png")
    return tmp_path / "squares.png"


def test_options_edit_the_matte(run, two_squares, tmp_path):
    def alpha(*options):
        target = tmp_path / "alpha.png"
        assert run(two_squares, "-o", target, "--alpha", "--overwrite", *options)[0] == 0
        return read_alpha(target, exact=True)

    plain = alpha()
    assert plain.shape == (48, 64)
    assert plain[31, 41] > 200
    assert not alpha("--only-largest")[20:].any()
    assert set(np.unique(alpha("--threshold", "0.5"))) == {0, 255}
    hard = ["--threshold", "0.5", "--only-largest"]
    assert (alpha(*hard) == 255).sum() == 100
    assert (alpha(*hard, "--erode", "2") == 255).sum() == 36
    assert (alpha(*hard, "--erode", "-1") == 255).sum() == 144
    assert alpha(*hard, "--crop").shape == (10, 10)
    assert alpha(*hard, "--erode", "2", "--crop", "3").shape == (12, 12)


def test_nothing_to_crop_to_is_that_photos_error(run, photos, tmp_path):
    inputs = [photos / "a.png", photos / "b.jpg"]
    status, _, err = run(*inputs, "-o", tmp_path / "out", "--alpha", "--crop")
    assert status == 1
    assert any(line.startswith(f"error: {photos / 'b.jpg'}: The matte is empty") for line in err)
    assert files(tmp_path / "out") == ["a.alpha.png"]


def test_a_folder_whose_name_ends_like_a_file(run, photos, tmp_path):
    (tmp_path / "x.png").mkdir()
    assert run(photos / "a.png", "-o", tmp_path / "x.png", *PLAIN)[0] == 0
    assert files(tmp_path / "x.png") == ["a.cutout.png"]


def test_photos_that_would_be_written_to_one_file_are_refused(run, photos, tmp_path):
    """The output of a.png must never be taken for that of a.webp."""
    out = tmp_path / "out"
    assert run(photos, "-o", out, "--alpha")[0] == 0
    Image.new("RGB", (8, 8), (51, 0, 0)).save(photos / "a.webp", lossless=True)
    status, _, err = run(photos, "-o", out, "--alpha", "--skip-existing")
    assert status == 2
    assert err[-1] == (
        f"error: {photos / 'a.png'} and {photos / 'a.webp'} would both be written to "
        f"{out / 'a.alpha.png'}; --keep-suffix names the files so that they differ."
    )
    # Named alone, the new photo must not be skipped for the output of the other one either.
    status, _, err = run(photos / "a.webp", "-o", out, "--alpha", "--skip-existing")
    assert status == 2
    assert "would both be written to" in err[-1]
    assert run(photos, "-o", out, "--alpha", "--keep-suffix")[0] == 0
    assert read_alpha(out / "a.webp.alpha.png", exact=True)[0, 0] == 51
    assert read_alpha(out / "a.png.alpha.png", exact=True)[0, 0] == 255


def test_same_names_in_two_folders_are_refused(run, photos, tmp_path):
    options = ["-o", tmp_path / "out", "--alpha", "--keep-suffix"]
    other = write_three(tmp_path / "other")
    status, _, err = run(photos, other, *options)
    assert status == 2
    assert err[-1].endswith("(1 more photos clash.)")
    assert "rename one, or write them to different folders" in err[-1]
    # The folder above tells them apart.
    assert run(tmp_path, "--recursive", *options)[0] == 0
    assert "other/a.png.alpha.png" in files(tmp_path / "out")


def test_what_a_folder_holds_beside_photos_is_named_once(run, photos):
    for name in ("x.dng", "y.DNG", "z.txt", "._a.jpg", ".hidden/b.jpg"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).touch()
    Image.new("RGB", (8, 8), "red").save(photos / "d.JPG")
    status, out, err = run(photos, "--recursive", "--alpha")
    assert (status, len(out)) == (0, 1)
    assert err[0] == (f"note: {photos}: left out 2 .dng, 1 .txt: not photos that can be read")
    assert (photos / "d.alpha.png").exists()
    assert out[0].startswith("4 of 4 photos done")


def test_naming_is_linear():
    jobs = [Job(f"{n}.jpg", {"alpha": f"{n}.alpha.png"}) for n in range(100_000)]
    start = time.process_time()
    check_names(jobs)
    assert time.process_time() - start < 10  # 0.1 s; quadratic, it would take minutes


def test_a_folder_that_cannot_be_written_to_is_known_before_any_work(
    run, photos, tmp_path, monkeypatch
):
    def refuse(dir):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("kmatting.files.tempfile.TemporaryFile", refuse)
    monkeypatch.setattr(predict, "_load", lambda request: pytest.fail("the model was loaded"))
    status, _, err = run(photos / "a.png", photos / "b.jpg", "-o", tmp_path / "out")
    assert status == 2
    assert err == [f"error: {tmp_path / 'out'}: cannot be written to: Read-only file system."]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder nobody can write to")
def test_a_real_folder_that_cannot_be_written_to(run, photos):
    status, _, err = run(photos / "a.png", "-o", "/proc/self/out", *PLAIN)
    assert (status, len(err)) == (2, 1)
    assert err[0].startswith("error: /proc/self/out: cannot be written to: ")


def test_a_disk_that_fills_up_ends_the_run(run, photos, tmp_path, monkeypatch):
    def full(path, image, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("kmatting.pictures.maker.write_image", full)
    status, _, err = run(photos / "a.png", photos / "b.jpg", "-o", tmp_path / "out", *PLAIN)
    assert (status, len(err)) == (2, 1)  # not once a photo
    assert "No space left on device; 0 of 2 photos are done" in err[0]


def test_a_bad_matte_is_that_photos_error(run, photos, tmp_path, monkeypatch):
    predicted = Matter._predict

    def sometimes(self, image, name, size=None):
        if image[0, 0, 0] == 255:
            raise ImageError("the model returned numbers that are not finite.")
        return predicted(self, image, name, size)

    monkeypatch.setattr(Matter, "_predict", sometimes)
    status, out, err = run(photos / "a.png", photos / "deep/c.png", "-o", tmp_path / "out", *PLAIN)
    assert status == 1
    assert "not finite" in err[0]
    assert out == ["1 of 2 photos done, written to " + str(tmp_path / "out")]
    assert files(tmp_path / "out") == ["c.cutout.png"]


def test_names_at_the_limit_of_the_file_system(run, tmp_path):
    names = ["猫" * 83 + ".jpg", "猫" * 82 + "狗.jpg"]
    for name in names:
        Image.new("RGB", (8, 8), "red").save(tmp_path / name)
    assert run(tmp_path, "-o", tmp_path / "out", "--alpha")[0] == 0
    written = files(tmp_path / "out")
    assert len(written) == 2
    assert all(len(name.encode()) <= 255 and name.endswith(".alpha.png") for name in written)


def test_a_photo_from_a_pipe(model, photos, tmp_path):
    line = f"{sys.executable} -m kmatting predict --model {model} --alpha <(cat {photos / 'a.png'})"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert done.returncode == 2
    assert "is a pipe; name the file to write with --output FILE." in done.stderr
    done = subprocess.run(["bash", "-c", f"{line} -o {tmp_path}/x.png"], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert read_alpha(tmp_path / "x.png")[0, 0] == 255


def test_without_a_home_that_can_be_written(photos, tmp_path):
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), "/proc/none")
    command = [sys.executable, "-m", "kmatting", "predict", photos / "a.png", "-o", tmp_path]
    done = subprocess.run(command, env={**os.environ, **nowhere}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "a.cutout.png").exists()


def test_closed_streams(model, photos, tmp_path):
    command = f"{sys.executable} -m kmatting predict --model {model} --overwrite --alpha"
    photo, target = photos / "a.png", tmp_path / "x.png"
    for line, status in [
        (f"{command} {photo} -o {target} <&- >&- 2>&-", 0),
        (f"{command} {photo} -o {target} | true; exit ${{PIPESTATUS[0]}}", 0),
        (f"{command} - < {photo} >&-", 2),  # the matte would be lost
        (f"{command} - <&-", 1),
    ]:
        target.unlink(missing_ok=True)
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
        assert (done.returncode, "Traceback" in done.stderr) == (status, False), line
        assert len(done.stderr.splitlines()) == (status > 0), line
        assert target.exists() == (status == 0), line


def test_terminated(model, tmp_path):
    for number in range(40):
        Image.new("RGB", (1500, 1500), "red").save(tmp_path / f"{number}.png")
    command = [sys.executable, "-m", "kmatting", "predict", "--model", model]
    process = subprocess.Popen(
        [*command, str(tmp_path), "-o", str(tmp_path / "out")], stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "out").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err.startswith("terminated; ")
    assert "Traceback" not in err
    assert not [name for name in files(tmp_path / "out") if "partial" in name]


def test_alphas_have_the_names_of_the_photos(run, photos, tmp_path):
    """So that `kmatting evaluate --predictions` finds each one's true alpha by its stem."""
    assert run(photos, "--output", tmp_path / "out", "--alpha")[0] == 0
    stems = {matte_stem(Path(name)) for name in files(tmp_path / "out")}
    assert stems == {path.stem for path in photos.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("photo", "kind", "options", "expected"),
    [
        ("a.jpg", "cutout", {}, "a.cutout.png"),
        ("a.JPG", "alpha", {}, "a.alpha.png"),
        ("a.b.jpg", "alpha", {}, "a.b.alpha.png"),
        ("a.v2", "alpha", {}, "a.v2.alpha.png"),
        ("a.jpg", "cutout", {"suffix": ".webp"}, "a.cutout.webp"),
        ("a.jpg", "cutout", {"keep_suffix": True}, "a.jpg.cutout.png"),
    ],
)
def test_output_name(photo, kind, options, expected):
    assert output_name(photo, kind, **options) == expected
    assert is_output(expected)
    assert not is_output(photo)


@pytest.mark.parametrize(
    ("name", "more", "hint"),
    [
        ("moving.gif", "frames", "; kmatting video cuts out all of them"),
        ("moving.webp", "frames", "; kmatting video cuts out all of them"),
        ("moving.png", "frames", "; kmatting video cuts out all of them"),
        ("scan.tif", "pages", ""),
    ],
)
def test_the_first_of_several_frames_is_not_taken_silently(run, tmp_path, name, more, hint):
    pictures = [Image.new("RGB", (64, 48), colour) for colour in ("red", "blue")]
    photo = tmp_path / name
    pictures[0].save(photo, save_all=True, append_images=pictures[1:])
    status, _, err = run(photo, "-o", tmp_path / "out.png", *PLAIN)
    assert status == 0
    assert err == [f"warning: {photo}: holds several {more}, only the first is cut out{hint}."]
    pictures[0].save(tmp_path / f"still-{name}")
    assert run(tmp_path / f"still-{name}", "-o", tmp_path / "still.png", *PLAIN)[2] == []
