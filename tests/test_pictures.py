"""The one maker of pictures: what is wanted, edits, formats, metadata, options of commands."""

import argparse
import io
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from kmatting.errors import ImageError, UsageError
from kmatting.images import Photo, read_photo, written_suffixes
from kmatting.images.formats import format_written
from kmatting.pictures.kinds import KINDS
from kmatting.pictures.maker import make_pictures
from kmatting.pictures.matte import Matte
from kmatting.pictures.names import is_output, output_name
from kmatting.pictures.shadow import soft_shadow
from kmatting.pictures.wanted import Wanted, add_picture_options, wanted_from


@pytest.fixture
def matte():
    """A soft disc of radius 10 in the middle of 60x80 pixels, orange, on grey."""
    rows, columns = np.mgrid[:60, :80]
    alpha = np.clip(10 - np.hypot(rows - 30, columns - 40), 0, 1).astype(np.float32)
    rgb = np.where(alpha[..., None] > 0, (230, 120, 20), (90, 90, 90)).astype(np.uint8)
    return Matte(Photo(rgb, dpi=(300, 200)), alpha)


def made(matte, **fields):
    (picture,) = make_pictures(matte, Wanted(**fields))
    return picture


# What is wanted


def parsed(*options, **how):
    parser = argparse.ArgumentParser()
    add_picture_options(parser, **how)
    return wanted_from(parser.parse_args(options))


def test_options_become_what_is_wanted():
    assert parsed() == Wanted()
    assert parsed("--alpha", "--panel").kinds == ("alpha", "panel")
    wanted = parsed(
        *("--composite", "white", "--composite", "beach.jpg", "--composite-format", "jpg"),
        *("--crop", "10%", "--canvas", "4:5", "--shadow", "--erode", "-2", "--threshold", "0.5"),
        *("--only-largest", "--keep-metadata", "--foreground", "fast"),
    )
    assert list(wanted.outputs) == ["composite-white", "composite-beach"]
    assert wanted.suffix("composite-white") == ".jpg"
    assert (wanted.crop, wanted.canvas, wanted.shadow, wanted.erode) == ("10%", "4:5", 0.5, -2)
    assert (wanted.threshold, wanted.only_largest, wanted.foreground) == (0.5, True, "fast")
    assert parsed("--crop").crop == 0
    assert parsed("--crop", "20").crop == 20
    assert parsed("--canvas").canvas == "1:1"
    assert parsed("--alpha", "--alpha-bits", "16").bits == 16  # the former name


def test_a_command_may_lack_options():
    with pytest.raises(SystemExit):
        parsed("--crop", without=("crop",))
    with pytest.raises(SystemExit):
        parsed("--cutout-format", "png", without=("formats",))
    assert parsed(without=("crop", "formats", "panel"), foreground="fast").foreground == "fast"


@pytest.mark.parametrize(
    "options",
    [
        ["--threshold", "0"],
        ["--threshold", "nan"],
        ["--crop", "-1"],
        ["--crop", "1.5"],
        ["--crop", "x%"],
        ["--canvas", "0"],
        ["--canvas", "0:1"],
        ["--canvas", "100:1"],
        ["--canvas", "20000"],
        ["--shadow", "0"],
        ["--shadow", "1.1"],
        ["--bits", "12"],
        ["--foreground", "best"],
        ["--erode", "1.5"],
        ["--cutout-format", "jpg"],
        ["--alpha-format", "webp"],
    ],
)
def test_options_out_of_range(options, capsys):
    with pytest.raises(SystemExit):
        parsed(*options)
    assert f"argument {options[0]}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kinds": ("alpha", "mask")}, "'mask'"),
        ({"kinds": ("composite",)}, "backgrounds"),
        ({"kinds": ("alpha",), "backgrounds": ("white",)}, "backgrounds"),
        ({"backgrounds": ("white", "WHITE")}, "one file"),
        ({"formats": {"cutout": ".jpg"}}, "for the cutout"),
        ({"kinds": ("alpha",), "formats": {"alpha": ".webp"}}, "for the alpha"),
        ({"bits": 16, "formats": {"cutout": ".webp"}}, "16 bits"),
        ({"bits": 16, "backgrounds": ("white",)}, "cannot have 16"),
        ({"shadow": 2}, "at most 1"),
        ({"canvas": "wide"}, "canvas: expected square"),
        ({"crop": "lots"}, None),
    ],
)
def test_what_contradicts_itself_is_refused(fields, message):
    with pytest.raises((UsageError, TypeError), match=message):
        Wanted(**fields)


def test_a_format_of_what_is_not_made_is_refused():
    with pytest.raises(UsageError, match="--alpha-format: no alpha is made"):
        parsed("--alpha-format", "tif")


def test_every_kind_has_a_name_that_is_known_again():
    for kind, record in KINDS.items():
        for suffix in record.suffixes:
            assert is_output(output_name("a.jpg", kind, suffix))
        assert not is_output(f"a.{kind}.gif")
    assert is_output("a.composite-white.avif")


# Files


@pytest.mark.parametrize("suffix", written_suffixes())
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_in_every_format(matte, tmp_path, kind, suffix):
    backgrounds = ("teal",) if kind == "composite" else ()
    if suffix not in KINDS[kind].suffixes:
        with pytest.raises(UsageError, match=f"for the {kind}"):
            Wanted((kind,), backgrounds, {kind: suffix})
        return
    picture = made(matte, kinds=(kind,), backgrounds=backgrounds, formats={kind: suffix})
    picture.write(tmp_path / f"x{suffix}")
    with (
        Image.open(io.BytesIO(picture.encode())) as encoded,
        Image.open(tmp_path / f"x{suffix}") as written,
    ):
        for image in (encoded, written):
            assert image.mode == {"alpha": "L", "cutout": "RGBA"}.get(kind, "RGB")
            seen, expected = (np.asarray(each).astype(int) for each in (image, picture.image))
            if kind == "cutout":  # colours of transparent pixels do not count
                seen, expected = (each * (each[..., 3:] > 0) for each in (seen, expected))
            assert np.abs(seen - expected).mean() <= (0 if format_written(suffix).lossless else 4)
            if suffix in (".webp", ".avif"):
                assert image.getexif()[ExifTags.Base.XResolution] == 300
            else:
                assert image.info["dpi"] == pytest.approx((300, 200), abs=0.02)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_cutouts_of_sixteen_bits(matte, tmp_path, suffix):
    picture = made(matte, bits=16, formats={"cutout": suffix})
    picture.write(tmp_path / f"x{suffix}")
    for data in ((tmp_path / f"x{suffix}").read_bytes(), picture.encode()):
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert pixels.dtype == np.uint16
        np.testing.assert_array_equal(pixels[..., 3], np.rint(matte.alpha * 65535))
        assert pixels[30, 40, :3].tolist() == [20 * 257, 120 * 257, 230 * 257]
        assert not pixels[0, 0].any()
    photo = read_photo(tmp_path / f"x{suffix}")
    assert photo.dpi == pytest.approx((300, 200), abs=0.02)
    np.testing.assert_allclose(photo.opacity, matte.alpha * 255, atol=0.51)


def test_sixteen_bits_have_no_image_of_pillow(matte):
    with pytest.raises(UsageError, match="16 bits"):
        matte.cutout(bits=16)


def big_exif():
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Ada"
    comment = {ExifTags.Base.UserComment: b"x" * 70_000, ExifTags.Base.LensModel: "long"}
    exif[ExifTags.IFD.Exif] = comment
    return exif.tobytes()


def test_exif_data_that_jpeg_cannot_hold_are_cut_down_with_a_remark(matte):
    photo = Photo(matte.photo.rgb, exif=big_exif())
    fields = {"backgrounds": ("white",), "keep_metadata": True}
    for suffix in (".jpg", ".png"):
        picture = made(Matte(photo, matte.prediction), formats={"composite": suffix}, **fields)
        exif = Image.open(io.BytesIO(picture.encode())).getexif()
        details = exif.get_ifd(ExifTags.IFD.Exif)
        assert exif[ExifTags.Base.Artist] == "Ada"
        assert details[ExifTags.Base.LensModel] == "long"
        assert (ExifTags.Base.UserComment in details) == (suffix == ".png")
        assert bool(picture.remarks) == (suffix == ".jpg")


@pytest.mark.parametrize("suffix", KINDS["cutout"].suffixes)
@pytest.mark.parametrize("bits", [8, 16])
def test_metadata_of_every_cutout(matte, suffix, bits):
    """Also of a photo that has none."""
    if bits > format_written(suffix).bits:
        return
    fields = {"keep_metadata": True, "bits": bits, "formats": {"cutout": suffix}}
    plain = made(matte, **fields)
    assert not Image.open(io.BytesIO(plain.encode())).info.get("icc_profile")
    assert plain.remarks == []
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = replace(matte.photo, exif=big_exif(), icc_profile=profile)
    picture = made(Matte(photo, matte.prediction), **fields)
    seen = Image.open(io.BytesIO(picture.encode()))
    assert seen.info["icc_profile"] == profile
    exif = seen.getexif()
    assert exif[ExifTags.Base.Artist] == "Ada"
    is_tiff = suffix.startswith(".tif")
    assert (ExifTags.Base.LensModel in exif.get_ifd(ExifTags.IFD.Exif)) == (not is_tiff)
    assert bool(picture.remarks) == is_tiff


# Edits


def test_margins_in_per_cent(matte):
    assert matte.crop().prediction.shape == (19, 19)
    assert matte.crop("10%").prediction.shape == (23, 23)  # 1.9 pixels
    assert matte.crop("10%").photo.dpi == (300, 200)
    assert matte.crop("1000%").prediction.shape == (60, 80)
    assert matte.crop("1000%", beyond=True).prediction.shape == (19 + 380, 19 + 380)


def test_the_canvas_pads_with_transparency(matte):
    wide = matte.on_canvas("2:1")
    assert wide.prediction.shape == (60, 120)
    np.testing.assert_array_equal(wide.alpha[:, 20:100], matte.alpha)
    assert not wide.alpha[:, :20].any()
    assert matte.on_canvas("square").prediction.shape == (80, 80)
    assert matte.on_canvas("4:3").prediction.shape == (60, 80)
    # Everything that is transparent in the photo stays so, though its prediction is opaque.
    full = Matte(matte.photo, np.ones((60, 80), np.float32)).on_canvas("square")
    assert full.alpha.sum() == 60 * 80
    cutout = np.asarray(full.cutout())
    assert (cutout[..., 3] == 255).sum() == 60 * 80


def test_the_canvas_of_pixels_fits_the_picture(matte):
    for side in (200, 37):
        square = matte.on_canvas(side)
        assert square.prediction.shape == square.photo.rgb.shape[:2] == (side, side)
        # The disc stays as large in proportion, and round.
        area = square.alpha.sum() / matte.alpha.sum() / (side / 80) ** 2
        assert area == pytest.approx(1, abs=0.05)
        rows, columns = np.nonzero(square.alpha >= 0.5)
        assert rows.mean() == pytest.approx((side - 1) / 2, abs=side / 80)
        assert columns.mean() == pytest.approx((side - 1) / 2, abs=side / 80)
    with pytest.raises(UsageError, match="pixels"):
        Matte(
            Photo(np.zeros((1, 12_000, 3), np.uint8)), np.zeros((1, 12_000), np.float32)
        ).on_canvas("1:20")


def test_a_canvas_keeps_the_margin_in_full(matte):
    touching = Matte(
        Photo(matte.photo.rgb[22:].copy()), matte.prediction[22:].copy()
    )  # the disc is cut by the upper border
    picture = made(touching, crop=5, canvas="square")
    alpha = np.asarray(picture.image)[..., 3]
    assert alpha.shape[0] == alpha.shape[1] == 19 + 10
    rows = np.flatnonzero((alpha > 12).any(axis=1))
    assert rows[0] >= 5 and rows[-1] <= alpha.shape[0] - 6


def test_edits_are_made_in_order():
    """Of two squares the larger is kept; then it is hard, grown, cropped and put on a canvas."""
    prediction = np.zeros((60, 80), np.float32)
    prediction[10:20, 10:20] = 0.6
    prediction[40:43, 60:63] = 1
    matte = Matte(Photo(np.zeros((60, 80, 3), np.uint8)), prediction)
    picture = made(
        matte, kinds=("alpha",), only_largest=True, threshold=0.5, erode=-1, crop=2, canvas="2:1"
    )
    levels = np.asarray(picture.image)
    assert levels.shape == (16, 32)
    assert (levels == 255).sum() == 12 * 12
    assert set(np.unique(levels)) == {0, 255}


# Shadows


def test_a_shadow_lies_below_the_subject(matte):
    shadow = soft_shadow(matte.alpha, 0.5)
    assert shadow.shape == matte.alpha.shape
    assert shadow.min() == 0
    assert shadow.max() == pytest.approx(0.5, abs=0.05)
    assert shadow[0, 0] == 0
    below, above = shadow[41, 40], shadow[19, 40]
    assert below > above  # it falls down
    np.testing.assert_allclose(soft_shadow(matte.alpha, 1.0), 2 * shadow, atol=0.01)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_cutout_with_a_shadow_composes_to_the_composite_with_one(matte, bits):
    plain = np.asarray(made(matte, bits=bits).image)
    picture = np.asarray(made(matte, shadow=0.5, bits=bits).image)
    white = np.iinfo(picture.dtype).max
    assert picture[41, 40, 3] > 0 == plain[41, 40, 3]
    np.testing.assert_array_equal(picture[30, 40], plain[30, 40])  # the subject stays
    share = picture[..., 3:] / white
    over_teal = share * (picture[..., :3] / white * 255) + (1 - share) * (0, 128, 128)
    expected = np.asarray(matte.composite("teal", shadow=0.5)).astype(float)
    assert np.abs(over_teal - expected).max() < 1.6
    assert np.abs(expected - np.asarray(matte.composite("teal"))).max() > 20


def test_mattes_have_no_shadow(matte):
    shaded = made(matte, kinds=("alpha",), shadow=0.5)
    np.testing.assert_array_equal(np.asarray(shaded.image), np.asarray(matte.alpha_image()))


# Panels


def test_a_panel_shows_what_was_asked_for(matte):
    plain = matte.panel(cell=64)
    wider = matte.panel(cell=64, backgrounds=("white", "teal"))
    assert wider.width - plain.width == 2 * (64 + 6)
    teal = np.asarray(wider)[:, -64:].reshape(-1, 3).tolist()
    assert teal.count([0, 128, 128]) > 1000
    for cell in (-1, 0, 5000):
        with pytest.raises(UsageError, match="cell: expected a number from 16"):
            matte.panel(cell=cell)
    with pytest.raises(TypeError, match="cell"):
        matte.panel(cell=64.0)


def test_a_notebook_shows_the_matte(matte):
    image = Image.open(io.BytesIO(matte._repr_png_()))
    assert (image.format, image.mode) == ("PNG", "RGB")


# Mattes


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (np.full((4, 6), 255, np.uint8), "Divide levels of 8 bits by 255"),
        (np.full((4, 6), True), "received bool"),
        (np.full((4, 6), 2.0, np.float32), r"values lie in \[2, 2\]"),
        (np.full((4, 6), -0.1, np.float32), r"values lie in \[-0.1"),
        (np.full((4, 6), np.nan, np.float32), "NaN"),
        (np.full((4, 6), np.inf, np.float32), "infinity"),
        (np.zeros((4, 6, 1), np.float32), "Drop the last axis"),
        (np.zeros((6, 4), np.float32), r"float array \(4, 6\).*received float32 \(6, 4\)"),
        (np.ma.masked_array(np.ones((4, 6), np.float32), True), "Fill a masked array"),
        ([[0.5] * 6] * 4, "of type list"),
        (None, "NoneType"),
    ],
)
def test_predictions_are_checked(prediction, message):
    with pytest.raises(UsageError, match=message):
        Matte(Photo(np.zeros((4, 6, 3), np.uint8)), prediction)


def test_predictions_of_other_precision_are_taken():
    photo = Photo(np.zeros((4, 6, 3), np.uint8))
    for dtype in (np.float16, np.float64):
        assert Matte(photo, np.full((4, 6), 0.5, dtype)).prediction.dtype == np.float32
    with pytest.raises(UsageError, match="read_photo"):
        Matte(np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.float32))


def test_shreds():
    prediction = np.zeros((300, 400), np.float32)
    prediction[100:200, 100:200] = 1
    photo = Photo(np.zeros((300, 400, 3), np.uint8))
    assert not Matte(photo, prediction).has_shreds
    second = prediction.copy()
    second[100:200, 250:300] = 1  # another subject
    assert not Matte(photo, second).has_shreds
    prediction[10:20, 10:20] = 1
    assert Matte(photo, prediction).has_shreds
    assert not Matte(photo, prediction).keep_largest().has_shreds
    assert not Matte(photo, np.zeros_like(prediction)).has_shreds


def test_backgrounds_that_cannot_be_read(matte):
    with pytest.raises(ImageError, match="received nothing"):
        matte.composite("")
    with pytest.raises(ImageError, match=r"https://a\.b/c\.jpg.*download"):
        matte.composite("https://a.b/c.jpg")
