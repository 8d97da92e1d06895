"""HEIC and AVIF photos, as phones and other encoders write them."""

import re

import numpy as np
import pytest
from PIL import Image
from skimage import data

pytest.importorskip("pillow_heif")
pytest.importorskip("av")

from heic_files import auxiliary, colours, grid, mirrored, picture, rotated, write

from kmatting import predict
from kmatting.data.pairs import find_pairs
from kmatting.errors import ImageError, ImageWarning
from kmatting.evaluate import main as evaluate
from kmatting.exporting.job import photos_of_size
from kmatting.images import image_size, read_alpha, read_photo

PHOTO = data.astronaut()[:192, 120:376]
CLOSE = 3  # levels in the mean, from HEVC and halved colours
RAMP = np.repeat(np.linspace(0, 255, 256).astype(np.uint8)[None], 192, axis=0)
RAMP_RGB = np.dstack([RAMP] * 3)


def check(path, expected):
    """Checks the pixels of a photo, and that its header alone says their size."""
    photo = read_photo(path)
    assert photo.rgb.shape == expected.shape
    assert image_size(path) == expected.shape[:2]
    assert np.abs(photo.rgb.astype(int) - expected).mean() < CLOSE
    return photo


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_rotation_is_applied_once(tmp_path, quarters):
    path = write(tmp_path / "a.heic", [picture(PHOTO, rotated(quarters))])
    assert check(path, np.rot90(PHOTO, quarters)).opacity is None


@pytest.mark.parametrize("axis", [0, 1])
def test_mirrored(tmp_path, axis):
    check(write(tmp_path / "a.heic", [picture(PHOTO, mirrored(axis))]), np.flip(PHOTO, axis))


def test_ten_bits(tmp_path):
    check(write(tmp_path / "a.hif", [picture(PHOTO, depth=10)]), PHOTO)


@pytest.mark.parametrize(("transfer", "white"), [(16, 148), (18, 191)], ids=["PQ", "HLG"])
def test_hdr_is_brought_to_srgb(tmp_path, transfer, white):
    grey = np.full((64, 64, 3), white, np.uint8)
    path = write(tmp_path / "a.hif", [picture(grey, colours(9, transfer), depth=10)])
    assert read_photo(path).rgb.min() > 245
    plain = write(tmp_path / "b.hif", [picture(grey, colours(1, 13), depth=10)])
    assert np.abs(read_photo(plain).rgb.astype(int) - white).max() < 4


def test_tiles_and_rotation_as_iphones_write_them(tmp_path):
    tiles = [
        picture(PHOTO[top : top + 96, left : left + 128], hidden=True)
        for top in (0, 96)
        for left in (0, 128)
    ]
    items = [grid(2, 2, 190, 250, rotated(3)), *tiles]
    path = write(tmp_path / "IMG_0001.HEIC", items, [(b"dimg", 0, 1, 2, 3, 4)])
    check(path, np.rot90(PHOTO[:190, :250], 3))


@pytest.mark.parametrize(
    "kind",
    [b"urn:mpeg:hevc:2015:auxid:2", b"urn:com:apple:photo:2020:aux:hdrgainmap"],
    ids=["depth", "gain map"],
)
def test_depth_and_gain_maps_are_no_transparency(tmp_path, kind):
    extra = picture(RAMP_RGB[::2, ::2], auxiliary(kind), hidden=True)
    path = write(tmp_path / "a.heic", [picture(PHOTO), extra], [(b"auxl", 1, 0)])
    assert check(path, PHOTO).opacity is None


def test_alpha_is_transparency(tmp_path):
    extra = picture(RAMP_RGB, auxiliary(b"urn:mpeg:hevc:2015:auxid:1"), hidden=True)
    path = write(tmp_path / "a.heic", [picture(PHOTO), extra], [(b"auxl", 1, 0)])
    assert np.corrcoef(check(path, PHOTO).opacity[::9].ravel(), RAMP[::9].ravel())[0, 1] > 0.99
    assert np.corrcoef(read_alpha(path).ravel(), RAMP.ravel())[0, 1] > 0.99


def test_a_truncated_file_is_one_line(tmp_path):
    path = write(tmp_path / "a.heic", [picture(PHOTO)])
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ImageError, match=r"a\.heic: damaged or truncated image") as caught:
        read_photo(path)
    assert "\n" not in str(caught.value)


@pytest.fixture
def iphone(tmp_path):
    """A folder as an iPhone fills it: photos, edits, a Live Photo's clip, a screenshot."""
    folder = tmp_path / "100APPLE"
    folder.mkdir()
    write(folder / "IMG_0001.HEIC", [picture(PHOTO, rotated(3))])
    (folder / "IMG_0001.MOV").write_bytes(b"\0\0\0\x14ftypqt  ")
    (folder / "IMG_0001.AAE").write_text("<plist></plist>")
    Image.fromarray(PHOTO).save(folder / "IMG_E0001.JPG", "jpeg")
    Image.fromarray(PHOTO).save(folder / "IMG_0002.PNG", "png")
    Image.fromarray(PHOTO).save(folder / "IMG_0003.avif")
    write(folder / "IMG_0004.HEIF", [picture(PHOTO)])
    return folder


def test_predict_takes_all_photos_of_an_iphone_and_names_the_rest(iphone, tmp_path, capsys):
    output = tmp_path / "mattes"
    assert predict.main([str(iphone), "-o", str(output), "--alpha"]) == 0
    assert sorted(path.name for path in output.iterdir()) == [
        "IMG_0001.alpha.png", "IMG_0002.alpha.png", "IMG_0003.alpha.png", "IMG_0004.alpha.png",
        "IMG_E0001.alpha.png",
    ]  # fmt: skip
    assert Image.open(output / "IMG_0001.alpha.png").size == (192, 256)
    out = capsys.readouterr()
    assert re.search(r"left out 1 \.aae, 1 \.mov: not photos that can be read", out.out + out.err)


def test_batch_takes_them_too(iphone, tmp_path, capfd):
    pytest.importorskip("apache_beam")
    from kmatting.batch.__main__ import main as batch

    output = tmp_path / "mattes"
    assert batch(["--input", str(iphone / "*"), "--output", str(output), "--workers", "1"]) == 0
    assert len(list(output.glob("*.alpha.png"))) == 5
    assert "left out 1 .aae, 1 .mov: not photos that can be read" in capfd.readouterr().err


def test_evaluation_and_training_pair_them(iphone, tmp_path, capsys):
    truth = tmp_path / "truth"
    truth.mkdir()
    for name in ("IMG_0001", "IMG_E0001", "IMG_0002", "IMG_0003", "IMG_0004"):
        alpha = np.rot90(RAMP, 3) if name == "IMG_0001" else RAMP
        Image.fromarray(alpha).save(truth / f"{name}.png")
    pairs, problems, notes = find_pairs(iphone, truth)
    assert (len(pairs), problems) == (5, [])
    assert "left out 1 .aae, 1 .mov" in notes[0]
    assert evaluate(["--data", str(iphone), str(truth)]) == 0
    assert "5" in capsys.readouterr().out


def test_calibration_and_checks_of_exports_read_them(iphone):
    photos = photos_of_size(iphone, 5, (64, 96))
    assert [photo.shape for photo in photos] == [(64, 96, 3)] * 5
    assert min(photo.std() for photo in photos) > 30


def test_a_heic_background(tmp_path):
    background = write(tmp_path / "sky.heic", [picture(PHOTO)])
    Image.fromarray(np.zeros((96, 128, 3), np.uint8)).save(tmp_path / "photo.png")
    output = tmp_path / "out.png"
    command = [str(tmp_path / "photo.png"), "-o", str(output), "--composite", str(background)]
    assert predict.main(command) == 0
    assert np.asarray(Image.open(output)).std() > 20


def test_further_pictures_are_named(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    burst = pillow_heif.HeifFile()
    for level in (20, 200):
        burst.add_from_pillow(Image.new("RGB", (64, 48), (level,) * 3))
    burst.save(tmp_path / "burst.heic")
    with pytest.warns(ImageWarning, match="several pictures, only the main one"):
        photo = read_photo(tmp_path / "burst.heic")
    assert abs(photo.rgb.mean() - 20) < CLOSE
