"""Finding and checking files: everything wrong is said at once, in words that help."""

import numpy as np
import pytest
from PIL import Image

from kmatting.data.backgrounds import open_backgrounds
from kmatting.data.checking import FileChecker
from kmatting.data.composites import Cutout, find_cutouts
from kmatting.data.pairs import Pair, find_pairs
from kmatting.data.samples import split, stem_fraction
from kmatting.errors import DataError, ImageError


def check(samples):
    """Returns the good samples and what is wrong with the others."""
    checker = FileChecker()
    return checker.keep_good(samples, "set"), checker.problems


@pytest.fixture
def folders(tmp_path):
    images, alphas = tmp_path / "image", tmp_path / "alpha"
    images.mkdir()
    alphas.mkdir()
    return images, alphas


def write(path, size=(20, 30), value=200, mode="L"):
    height, width = size
    Image.new(mode, (width, height), value if mode == "L" else (value,) * len(mode)).save(path)


def write_pair(folders, stem, image_suffix=".jpg", alpha_suffix=".png"):
    write(folders[0] / (stem + image_suffix), mode="RGB")
    write(folders[1] / (stem + alpha_suffix))


def test_pairs_are_matched_by_stem_whatever_the_suffix(folders):
    for stem, suffix in [("b", ".JPG"), ("a", ".webp"), ("c.d", ".tif"), ("e", ".bmp")]:
        write_pair(folders, stem, suffix, ".PNG")
    (folders[0] / "notes.txt").write_text("no image")
    (folders[0] / ".hidden.jpg").write_bytes(b"")
    pairs, problems, notes = find_pairs(*folders)
    assert [pair.stem for pair in pairs] == ["a", "b", "c.d", "e"]
    assert pairs[1] == Pair(folders[0] / "b.JPG", folders[1] / "b.PNG")
    assert problems == []
    assert notes == [f"{folders[0]}: left out 1 .txt: not photos that can be read"]
    assert check(pairs) == (pairs, [])


def test_a_pair_is_read_as_image_and_alpha(folders):
    write_pair(folders, "a", ".png")
    image, alpha = find_pairs(*folders)[0][0].read()
    np.testing.assert_array_equal(image, np.full((20, 30, 3), 200, np.uint8))
    np.testing.assert_array_equal(alpha, np.full((20, 30), 200, np.uint8))


def test_everything_wrong_is_found(folders):
    images, alphas = folders
    for stem in ("good", "cut", "noise", "other_size", "labels", "sideways"):
        write_pair(folders, stem)
    write(images / "lonely.jpg", mode="RGB")
    write(alphas / "widow.png")
    write_pair(folders, "twin")
    write(images / "twin.png", mode="RGB")
    (images / "cut.jpg").write_bytes((images / "cut.jpg").read_bytes()[:-300])
    (alphas / "noise.png").write_bytes(b"this is no image")
    write(alphas / "other_size.png", (30, 20))
    Image.new("RGB", (30, 20), (192, 128, 128)).save(alphas / "labels.png")
    # 20x30 on disk and to be shown upright as 30x20: the alpha must be 30x20 as well.
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(images / "sideways.jpg", exif=exif)

    pairs, problems, _ = find_pairs(*folders)
    good, bad = check(pairs)
    assert [pair.stem for pair in good] == ["good"]
    expected = {
        "lonely.jpg": "image without alpha",
        "widow.png": "alpha without image",
        "twin.jpg, twin.png": "same stem",
        "cut.jpg": "truncated",
        "noise.png": "not an image",
        "other_size.png": "alpha of 20x30 pixels for an image of 30x20",
        "labels.png": "received colours",
        "sideways.png": "alpha of 30x20 pixels for an image of 20x30",
    }
    assert len(problems + bad) == len(expected)
    for name, words in expected.items():
        lines = [line for line in problems + bad if name in line and words in line]
        assert len(lines) == 1, name


def test_an_upright_alpha_fits_a_sideways_photo(folders):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(folders[0] / "a.jpg", exif=exif)
    write(folders[1] / "a.png", (30, 20))
    assert check(find_pairs(*folders)[0])[1] == []


def test_an_empty_alpha_among_others_is_no_problem(folders):
    for stem in "ab":
        write_pair(folders, stem)
    write(folders[1] / "a.png", value=0)
    assert check(find_pairs(*folders)[0])[1] == []


@pytest.mark.parametrize(("value", "words"), [(0, "all mattes are black"), (20, "above level 20")])
def test_a_set_whose_alphas_are_never_opaque_is_refused(folders, value, words):
    for stem in "ab":
        write_pair(folders, stem)
        write(folders[1] / f"{stem}.png", value=value)
    good, problems = check(find_pairs(*folders)[0])
    assert good == []
    assert len(problems) == 1
    assert problems[0].startswith("set: ")
    assert words in problems[0]


def test_folders_in_folders_are_searched_or_named(folders):
    images, alphas = folders
    for folder in folders:
        (folder / "cats").mkdir()
        (folder / "dogs").mkdir()
    for stem in ("a", "cats/a", "dogs/b"):
        write_pair(folders, stem)
    pairs, problems, notes = find_pairs(images, alphas)
    assert [pair.image for pair in pairs] == [images / "a.jpg"]
    assert problems == []
    assert notes == [f"{folder}: did not search 2 folders in it" for folder in folders]

    pairs, problems, notes = find_pairs(images, alphas, recursive=True)
    assert [pair.alpha for pair in pairs] == [
        alphas / name for name in ("a.png", "cats/a.png", "dogs/b.png")
    ]
    assert problems == notes == []
    cutouts, problems, _ = find_cutouts(images, alphas, recursive=True)
    assert len(cutouts) == 3
    # A stem is held out as a whole, wherever its files lie.
    assert pairs[0].stem == pairs[1].stem == "a"

    for folder in folders:
        next(folder.glob("a.*")).unlink()
    _, problems, _ = find_pairs(images, alphas)
    assert all("set `recursive: true`" in problem for problem in problems)
    assert len(problems) == 2


def test_mattes_may_be_named_as_predict_names_them(folders):
    images, alphas = folders
    for stem in "ab":
        write_pair(folders, stem)
    (alphas / "b.png").rename(alphas / "b.alpha.png")
    write(alphas / "c.alpha.png")
    pairs, problems, _ = find_pairs(images, alphas)
    assert [pair.alpha.name for pair in pairs] == ["a.png", "b.alpha.png"]
    assert problems == [f"{alphas / 'c.alpha.png'}: alpha without image (c.* in {images})."]


def test_missing_and_empty_folders_are_named(folders, tmp_path):
    images, alphas = folders
    (images / "raw.dng").write_bytes(b"")
    assert find_pairs(images, alphas) == (
        [],
        [
            f"{images}: expected a folder of images, but it holds none: left out 1 .dng: not "
            "photos that can be read",
            f"{alphas}: expected a folder of images, but it holds none.",
        ],
        [],
    )
    write(images / "a.png")
    pairs, problems, _ = find_pairs(images, tmp_path / "nowhere")
    assert pairs == []
    assert len(problems) == 1
    assert "nowhere" in problems[0]
    assert "does not exist" in problems[0]


def test_alphas_named_otherwise_are_one_problem_not_hundreds(folders):
    for number in range(50):
        write(folders[0] / f"{number:02d}.png")
        write(folders[1] / f"{number:02d}_alpha.png")
    pairs, problems, _ = find_pairs(*folders)
    assert pairs == []
    assert len(problems) == 1
    assert "00.png" in problems[0]
    assert "00_alpha.png" in problems[0]


def test_cutouts_need_transparency_or_alphas(folders):
    foregrounds, alphas = folders
    for stem in ("clear", "opaque"):
        pixels = np.full((10, 12, 4), 255, np.uint8)
        pixels[..., 0] = 60
        if stem == "clear":
            pixels[:5, :, 3] = 0
        Image.fromarray(pixels).save(foregrounds / f"{stem}.png")
    write(foregrounds / "grey.jpg", (10, 12))

    cutouts, problems, _ = find_cutouts(foregrounds, None)
    assert problems == []
    good, bad = check(cutouts)
    assert good == [Cutout(foregrounds / "clear.png")]
    assert len(bad) == 2
    assert all("expected a cutout with transparency" in problem for problem in bad)
    colours, alpha = good[0].read()
    np.testing.assert_array_equal(colours, np.full((10, 12, 3), (60, 255, 255), np.uint8))
    assert alpha[0, 0] == 0
    assert alpha[9, 9] == 255

    for stem in ("clear", "opaque", "grey"):
        write(alphas / f"{stem}.png", (10, 12), value=199)
    cutouts, problems, _ = find_cutouts(foregrounds, alphas)
    assert problems == []
    assert check(cutouts) == (cutouts, [])
    colours, alpha = cutouts[0].read()
    assert (colours[0, 0] == (60, 255, 255)).all()  # not laid over white
    assert (alpha == 199).all()


def test_backgrounds_may_have_any_size(folders):
    write(folders[0] / "a.png", (5, 9))
    write(folders[0] / "a.jpg", (50, 9), value=0)
    checker = FileChecker()
    backgrounds = open_backgrounds(folders[0], False, checker)
    assert [background.image.name for background in backgrounds] == ["a.jpg", "a.png"]
    assert checker.problems == []


def report(problems, on_bad_data):
    checker = FileChecker(on_bad_data)
    checker.add(problems, [])
    checker.report()


def test_the_report_lists_twenty_problems_and_counts_the_rest():
    report([], "error")
    with pytest.raises(DataError) as one:
        report(["a.png: bad."], "error")
    assert "1 problem in" in str(one.value)
    with pytest.raises(DataError) as many:
        report([f"{number}.png: bad." for number in range(33)], "error")
    lines = str(many.value).splitlines()
    assert "33 problems" in lines[0]
    assert "on_bad_data: skip" in lines[0]
    assert lines[1:] == [f"  {number}.png: bad." for number in range(20)] + ["  ... and 13 more"]


def test_skipping_warns_once_with_the_same_list():
    with pytest.warns(UserWarning, match="2 problems") as caught:
        report(["a.png: bad.", "b.png: worse."], "skip")
    assert len(caught) == 1
    assert "a.png: bad." in str(caught[0].message)
    assert "b.png: worse." in str(caught[0].message)


def pairs_named(stems):
    return [Pair(ImagePath(stem), ImagePath(stem)) for stem in stems]


class ImagePath(str):
    stem = property(str)


def test_a_split_holds_out_about_its_share_and_new_samples_move_no_other():
    stems = [f"photo_{number}" for number in range(2000)]
    kept, held_out = split(pairs_named(stems), 0.1)
    assert len(kept) + len(held_out) == 2000
    assert 150 < len(held_out) < 250
    # Half of the samples, the other way round: each goes where it went before.
    kept_half, held_out_half = split(pairs_named(stems[::-2]), 0.1)
    assert {pair.stem for pair in kept_half} <= {pair.stem for pair in kept}
    assert {pair.stem for pair in held_out_half} <= {pair.stem for pair in held_out}
    # And a larger share holds out the same ones and more.
    assert {pair.stem for pair in held_out} <= {
        pair.stem for pair in split(pairs_named(stems), 0.2)[1]
    }


def test_the_hash_of_a_stem_never_changes():
    # First 6 bytes of SHA-256 as a fraction, by sha256sum: ca978112ca1b, 2cf24dba5fb0.
    assert stem_fraction("a") == 0xCA978112CA1B / 2**48
    assert stem_fraction("hello") == 0x2CF24DBA5FB0 / 2**48
    assert 0 <= stem_fraction("grün") < 1


def test_an_unreadable_pair_says_so_when_read(folders):
    write_pair(folders, "a")
    pair = find_pairs(*folders)[0][0]
    pair.alpha.unlink()
    with pytest.raises(ImageError, match=r"a\.png: no such file"):
        pair.read()
