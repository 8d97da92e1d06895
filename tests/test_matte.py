"""What a `Matte` offers beside the alpha itself."""

import functools
import io
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import ExifTags, Image, ImageCms
from scipy import ndimage

from kmatting.images import Photo, read_photo
from kmatting.pictures.foreground import estimate_foreground
from kmatting.pictures.matte import Matte


def make_matte(alpha, opacity=None):
    """A matte over a photo of random colours."""
    alpha = np.asarray(alpha, np.float32)
    rgb = np.random.default_rng(0).integers(0, 256, (*alpha.shape, 3), dtype=np.uint8)
    return Matte(Photo(rgb, opacity), alpha)


@pytest.fixture
def disc():
    """A soft disc of radius 10 in the middle of 60x80 pixels."""
    rows, columns = np.mgrid[:60, :80]
    return make_matte(np.clip(10 - np.hypot(rows - 30, columns - 40), 0, 1))


def test_arrays_are_read_only(disc):
    for array in (disc.alpha, disc.prediction):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1
    given = np.zeros((4, 4), np.float32)
    with_opacity = make_matte(given, np.full((4, 4), 255, np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        with_opacity.alpha[0, 0] = 1
    given[0, 0] = 1  # the caller's own array stays theirs


def test_a_copy_is_as_safe(disc):
    assert disc.alpha is disc.prediction
    copy = pickle.loads(pickle.dumps(disc))
    np.testing.assert_array_equal(copy.alpha, disc.alpha)
    with pytest.raises(ValueError, match="read-only"):
        copy.prediction[0, 0] = 1


def test_repr_is_short(disc):
    assert repr(disc) == f"<Matte of 80x60 pixels, mean alpha {disc.alpha.mean():.3f}>"


def test_is_empty(disc):
    assert not disc.is_empty
    assert make_matte(np.full((60, 80), 0.45)).is_empty  # a grey veil is no subject
    speck = np.zeros((100, 100))
    speck[:3, :3] = 1
    assert make_matte(speck[:50, :50]).is_empty is False  # 9 of 2,500 pixels
    speck[1:3] = 0
    speck[0, 2] = 0
    assert make_matte(np.tile(speck, (2, 2)) * (np.indices((200, 200)).sum(0) < 100)).is_empty
    hidden = make_matte(np.ones((60, 80)), np.zeros((60, 80), np.uint8))
    assert hidden.is_empty  # the photo itself is transparent there


def test_alpha_image(disc):
    for bits, dtype in ((8, np.uint8), (16, np.uint16)):
        levels = np.asarray(disc.alpha_image(bits))
        assert levels.dtype == dtype
        expected = np.rint(disc.alpha * (2**bits - 1))
        np.testing.assert_array_equal(levels, expected)
    with pytest.raises(ValueError, match="bits: expected 8 or 16, received 12"):
        disc.alpha_image(12)


@pytest.mark.parametrize("name", ["a.png", "sub/a.webp", "a.tif", "A.TIFF"])
def test_save(disc, tmp_path, name):
    disc.save(tmp_path / name, "none")
    saved = Image.open(tmp_path / name)
    expected = disc.cutout("none")
    assert (saved.mode, saved.size) == ("RGBA", expected.size)
    np.testing.assert_array_equal(saved.getchannel("A"), expected.getchannel("A"))
    if not name.endswith("webp"):
        np.testing.assert_array_equal(saved, expected)


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.bmp", "a"])
def test_save_refuses_formats_without_transparency(disc, tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name}: expected a format with transparency .*\.png"):
        disc.save(tmp_path / name, "none")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.png", "a.webp"])
def test_save_over_a_background(disc, tmp_path, name):
    disc.save(tmp_path / name, "none", background=(0, 128, 0))
    saved = Image.open(tmp_path / name)
    assert (saved.mode, saved.size) == ("RGB", (80, 60))
    assert np.abs(np.asarray(saved)[0, 0].astype(int) - (0, 128, 0)).max() <= 2
    if name == "a.png":
        np.testing.assert_array_equal(saved, disc.composite((0, 128, 0), "none"))
    with pytest.raises(ValueError, match=r"a.gif: expected a format for a composite \(.*\.jpg"):
        disc.save(tmp_path / "a.gif", background="white")


def test_the_colours_are_estimated_once(disc, monkeypatch):
    calls = []

    def counted(image, alpha, method):
        calls.append(method)
        return estimate_foreground(image, alpha, method)

    monkeypatch.setattr("kmatting.pictures.matte.estimate_foreground", counted)
    for _ in range(2):
        disc.cutout()
        disc.composite("white")
        disc.cutout("fast")
    assert calls == ["ml", "fast"]
    with pytest.raises(ValueError, match="read-only"):
        disc.foreground()[0, 0] = 1


@functools.cache  # a profile holds the time
def swapped_profile():
    """An ICC profile whose red is the green of sRGB, and the other way round."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red], profile[green] = profile[green], profile[red]
    return bytes(profile)


def photo_with_metadata(profile):
    """A PNG file of red (255, 0, 0) in a profile, lying on its side, with EXIF data."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Artist] = "Ada"
    exif[ExifTags.Base.ImageWidth] = 40
    details = {ExifTags.Base.DateTimeOriginal: "2020:02:03 04:05:06"}
    details |= {ExifTags.Base.MakerNote: b"x" * 70000, ExifTags.Base.ExifImageWidth: 40}
    exif[ExifTags.IFD.Exif] = details
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    file = io.BytesIO()
    Image.new("RGB", (40, 20), "red").save(file, "png", exif=exif, icc_profile=profile)
    return file.getvalue()


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif", "a.jpg"])
def test_save_keeps_metadata_on_demand(tmp_path, name):
    photo = read_photo(photo_with_metadata(swapped_profile()))
    assert photo.rgb.shape == (40, 20, 3)
    assert (photo.rgb[0, 0] == (0, 255, 0)).all()  # the same colour in sRGB
    matte = Matte(photo, np.ones((40, 20), np.float32)).crop()
    background = "white" if name == "a.jpg" else None
    matte.save(tmp_path / name, background=background, keep_metadata=True)
    saved = Image.open(tmp_path / name)
    assert saved.info["icc_profile"] == swapped_profile()
    assert np.abs(np.asarray(saved.convert("RGB")).astype(int) - (255, 0, 0)).max() <= 3
    exif = saved.getexif()
    assert exif[ExifTags.Base.Artist] == "Ada"
    assert exif.get(ExifTags.Base.Orientation, 1) == 1  # it is upright now
    expected = {ExifTags.Base.DateTimeOriginal: "2020:02:03 04:05:06"}
    if name != "a.tif":
        assert exif.get_ifd(ExifTags.IFD.Exif) == expected
        assert exif.get_ifd(ExifTags.IFD.GPSInfo) == {ExifTags.GPS.GPSLatitudeRef: "N"}

    matte.save(tmp_path / name, background=background)
    plain = Image.open(tmp_path / name)
    assert not plain.info.get("icc_profile")
    assert ExifTags.Base.Artist not in plain.getexif()
    assert np.abs(np.asarray(plain.convert("RGB")).astype(int) - (0, 255, 0)).max() <= 3


def test_metadata_that_do_not_fit_rgb(tmp_path):
    """A grey photo's profile is not one for a picture in colours, which stays in sRGB."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    photo = Photo(np.full((4, 4, 3), (10, 200, 30), np.uint8), icc_profile=lab)
    Matte(photo, np.ones((4, 4), np.float32)).save(tmp_path / "a.png", keep_metadata=True)
    saved = Image.open(tmp_path / "a.png")
    profile = ImageCms.ImageCmsProfile(io.BytesIO(saved.info["icc_profile"])).profile
    assert "sRGB" in profile.profile_description
    assert (np.asarray(saved)[..., :3] == (10, 200, 30)).all()
    assert not saved.getexif()


# Changed mattes

SIDES = st.integers(1, 12)


@st.composite
def mattes(draw):
    """Small mattes with empty, soft and opaque parts."""
    shape = draw(SIDES), draw(SIDES)
    alpha = draw(arrays(np.float32, shape, elements=st.sampled_from([0, 0.04, 0.06, 0.5, 1])))
    return make_matte(alpha)


@settings(deadline=None)  # a busy machine is no fault
@given(mattes(), st.integers(0, 15))
def test_crop_keeps_all_of_the_subject(matte, margin):
    visible = matte.alpha >= 0.05
    if not visible.any():
        with pytest.raises(ValueError, match="no subject to crop to"):
            matte.crop(margin)
        return
    cropped = matte.crop(margin)
    assert (cropped.alpha >= 0.05).sum() == visible.sum()
    for axis, length in enumerate(matte.alpha.shape):
        lines = np.flatnonzero(visible.any(1 - axis))
        expected = min(length, lines[-1] + 1 + margin) - max(0, lines[0] - margin)
        assert cropped.alpha.shape[axis] == cropped.photo.rgb.shape[axis] == expected


def test_crop_moves_photo_and_matte_alike(disc):
    opacity = np.random.default_rng(1).integers(200, 256, (60, 80), dtype=np.uint8)
    cropped = Matte(Photo(disc.photo.rgb, opacity), disc.prediction).crop(3)
    part = np.s_[30 - 12 : 30 + 13, 40 - 12 : 40 + 13]  # a radius of 9 pixels, and 3
    assert cropped.alpha.shape == (25, 25)
    np.testing.assert_array_equal(cropped.photo.rgb, disc.photo.rgb[part])
    np.testing.assert_array_equal(cropped.photo.opacity, opacity[part])
    np.testing.assert_array_equal(cropped.prediction, disc.prediction[part])


@settings(deadline=None)  # a busy machine is no fault
@given(mattes(), st.floats(0, 1, exclude_min=True))
def test_threshold(matte, value):
    hard = matte.threshold(value)
    np.testing.assert_array_equal(hard.alpha, matte.alpha >= np.float32(value))
    assert hard.alpha.dtype == np.float32


@pytest.mark.parametrize("value", [0, -1, 1.01, float("nan")])
def test_thresholds_out_of_range(disc, value):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        disc.threshold(value)


@settings(deadline=None)  # a busy machine is no fault
@given(mattes(), st.integers(-14, 14))
def test_erode_takes_the_extreme_of_each_square(matte, pixels):
    height, width = matte.alpha.shape
    reach, choose = abs(pixels), np.min if pixels > 0 else np.max
    expected = np.empty_like(matte.alpha)
    for row in range(height):
        for column in range(width):
            rows = slice(max(0, row - reach), row + reach + 1)
            columns = slice(max(0, column - reach), column + reach + 1)
            expected[row, column] = choose(matte.alpha[rows, columns])
    np.testing.assert_array_equal(matte.erode(pixels).alpha, expected)


@settings(deadline=None)  # a busy machine is no fault
@given(mattes())
def test_keep_largest(matte):
    kept = matte.keep_largest()
    parts, count = ndimage.label(matte.alpha >= 0.05)  # 4-connected
    sizes = np.bincount(parts.ravel(), minlength=2)[1:]
    support = kept.alpha > 0
    assert support.sum() == sizes.max()
    assert len(np.unique(parts[support])) == min(count, 1)
    np.testing.assert_array_equal(kept.alpha[support], matte.alpha[support])


def test_arguments_of_wrong_types(disc):
    for wrong in (1.5, "1", None):
        with pytest.raises(TypeError, match="pixels: expected a whole number"):
            disc.erode(wrong)
        with pytest.raises(TypeError, match="margin: expected a whole number"):
            disc.crop(wrong)
    with pytest.raises(ValueError, match="margin: expected a number from 0"):
        disc.crop(-1)


def test_edits_keep_what_is_known_of_the_prediction(disc):
    noted = Matte(disc.photo, disc.prediction, ("made of half of the pixels",))
    edited = [noted.threshold(), noted.erode(1), noted.keep_largest(), noted.crop(2)]
    edited.append(noted.on_canvas(40))
    for matte in edited:
        assert matte.remarks() == ["made of half of the pixels"]
