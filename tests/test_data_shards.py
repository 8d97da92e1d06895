"""Shards: round trip, damage, and the same samples as from loose files."""

import json
import os
import re
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from filelock import FileLock
from PIL import Image

from kmatting import shard
from kmatting.config import DataConfig
from kmatting.data import packing, pipeline
from kmatting.data.pairs import find_pairs
from kmatting.errors import DataError

COUNT = 30


@pytest.fixture(scope="module")
def loose(tmp_path_factory):
    """Pairs of noise, so that no two are alike, as JPEG and PNG files; not to be changed."""
    root = tmp_path_factory.mktemp("loose")
    random = np.random.default_rng(0)
    for folder in ("image", "alpha"):
        (root / folder).mkdir()
    for number in range(COUNT):
        pixels = random.integers(0, 256, (24, 20, 4), dtype=np.uint8)
        Image.fromarray(pixels[..., :3]).save(root / "image" / f"é {number}.JPG", "JPEG")
        Image.fromarray(pixels[..., 3]).save(root / "alpha" / f"é {number}.png")
    return root


@pytest.fixture
def packed(loose, tmp_path):
    """The same pairs in several shards."""
    arguments = [loose / "image", loose / "alpha", tmp_path / "shards", "--shard-size", "0.01"]
    assert shard.main(["pack", *map(str, arguments)]) == 0
    return tmp_path / "shards"


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def damage(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def entries(packed, number):
    """Returns the path and the entries of a shard, as JSON says."""
    found = json.loads((packed / "manifest.json").read_text())["shards"][number]
    return packed / found["file"], found["pairs"]


def test_unpacked_files_are_the_packed_ones(loose, packed, tmp_path):
    shards = sorted(packed.glob("shard-*.tfrecord"))
    assert 3 < len(shards) < COUNT
    assert shard.main(["unpack", str(packed), str(tmp_path / "back")]) == 0
    assert files_of(tmp_path / "back") == files_of(loose)
    assert shard.main(["verify", str(packed)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"shards", "back"}


def test_packing_is_deterministic(loose, packed, tmp_path):
    pairs, _, _ = find_pairs(loose / "image", loose / "alpha")
    packing.pack(pairs, tmp_path / "again", 10_000)
    assert files_of(tmp_path / "again") == files_of(packed)


def test_any_reader_of_tfrecord_can_use_them(loose, packed):
    names = ("image_name", "image", "alpha_name", "alpha")
    features = {name: tf.io.FixedLenFeature([], tf.string) for name in names}
    found = {}
    for record in tf.data.TFRecordDataset(sorted(map(str, packed.glob("*.tfrecord")))):
        values = [tf.io.parse_single_example(record, features)[name].numpy() for name in names]
        found[f"image/{values[0].decode()}"] = values[1]
        found[f"alpha/{values[2].decode()}"] = values[3]
    assert found == files_of(loose)


@pytest.mark.parametrize("fit", ["resize", "crop"])
def test_samples_are_those_of_loose_files(loose, packed, fit):
    def batches(source):
        config = DataConfig(
            train=[source], size=16, validation=0.2, augmentation={"fit": fit, "colour": 0.5}
        )
        data = pipeline.build(config, 5, 4)
        steps = data.steps_per_epoch
        # Across an epoch, and from the start of a later one.
        return [*data.train().take(2 * steps), *data.train(3).take(2), *data.validation()]

    sources = (
        {"kind": "pairs", "images": loose / "image", "alphas": loose / "alpha"},
        {"kind": "shards", "shards": packed},
    )
    expected, found = map(batches, sources)
    assert len(found) > 10
    for left, right in zip(expected, found, strict=True):
        for one, other in zip(left, right, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_batch_comes_from_several_shards(packed):
    pairs, _ = packing.find_packed_pairs(packed)
    config = DataConfig(train=[{"kind": "shards", "shards": packed}], validation=0.0)
    data = pipeline.build(config, 0, 6)
    order = pipeline._order(0, 0, (COUNT,), (COUNT,), data.steps_per_epoch * 6)[:, 1]
    for batch in order.reshape(-1, 6):
        assert len({pairs[index].image.shard for index in batch}) > 1


def test_damage_is_named_by_shard_and_record(packed, tmp_path, capsys):
    path, pairs = entries(packed, 2)
    damage(path, pairs[1]["alpha"]["offset"] + 5)
    message = f"{path}: record 1 ({pairs[1]['alpha']['name']}): damaged, its checksum is wrong."
    assert shard.main(["verify", str(packed)]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == message
    assert shard.main(["unpack", str(packed), str(tmp_path / "back")]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {message}"
    assert {path.name for path in tmp_path.iterdir()} == {"shards"}
    with pytest.raises(DataError) as error:
        pipeline.build(DataConfig(train=[{"kind": "shards", "shards": packed}]), 0, 4)
    assert message in str(error.value)
    with pytest.warns(UserWarning, match="record 1"):
        source = {"kind": "shards", "shards": packed}
        config = DataConfig(train=[source], validation=0.0, on_bad_data="skip")
        assert pipeline.build(config, 0, 4).train_samples == COUNT - 1


def test_damage_between_the_files_is_found_too(packed, capsys):
    path, _ = entries(packed, 0)
    damage(path, 3)  # the length of the first record
    assert shard.main(["verify", str(packed)]) == 1
    assert f"{path}: damaged between its files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("harm", "words"), [("cut", "missing, the shard ends before it"), ("remove", "cannot be read")]
)
def test_lost_records_are_named(packed, tmp_path, capsys, harm, words):
    path, pairs = entries(packed, 1)
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-60])
    else:
        path.unlink()
    assert shard.main(["verify", str(packed)]) == 1
    errors = capsys.readouterr().err
    assert f"{path}: record {len(pairs) - 1} ({pairs[-1]['image']['name']}): {words}" in errors
    assert "Traceback" not in errors


def test_a_shard_that_goes_bad_in_training_is_named(packed):
    config = DataConfig(train=[{"kind": "shards", "shards": packed}], validation=0.0, size=16)
    data = pipeline.build(config, 0, COUNT)
    path, pairs = entries(packed, 1)
    damage(path, pairs[0]["image"]["offset"])
    with pytest.raises(DataError, match=r"record 0 \(é \d+.JPG\): damaged"), data.clear_errors():
        next(iter(data.train()))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda text: text[:-30], "manifest.json: damaged manifest"),
        (lambda text: text.replace("shards 1", "shards 9"), "format: Input should be"),
        (lambda text: text.replace('"name":"é 0.JPG"', '"name":"../e.jpg"'), "name of a file"),
        (lambda text: text.replace('"name":"é 0.JPG"', '"name":".."'), "name of a file"),
        (lambda text: text.replace('"name":"é 0.JPG"', '"name":"a\\u0000.jpg"'), "name of a file"),
        (lambda text: text.replace('"file":"', '"file":"../'), "name of a file"),
        (lambda text: text.replace("é 0.", "é 1."), "é 1, é 1.png: named more than once"),
        (lambda text: text.replace("é 0.JPG", "é 1.webp"), "é 1: named more than once"),
        (lambda text: text.replace('"offset":', '"offset":9', 1), "ends behind the"),
        (lambda text: text.replace('"offset":', '"offset":' + "9" * 30, 1), "offset: Input should"),
        (lambda text: re.sub(r'("offset":\d+,"size":)', r"\g<1>9", text), "ends behind the"),
        (lambda text: "[]", "manifest.json: damaged manifest: "),
        (lambda text: "[" * 100_000, "manifest.json: damaged manifest: "),
        (lambda text: '{"shards": [[]]}', "manifest.json: damaged manifest: shards.0: "),
        (None, "manifest.json: No such file or directory; expected a folder that"),
    ],
)
def test_a_wrong_manifest_is_refused(packed, tmp_path, capsys, harm, words):
    path = packed / "manifest.json"
    if harm:
        path.write_text(harm(path.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        path.unlink()
    for arguments in (["verify", packed], ["unpack", packed, tmp_path / "back"]):
        assert shard.main([*map(str, arguments)]) == 2
        assert words in capsys.readouterr().err
    with pytest.raises(DataError) as error:
        pipeline.build(DataConfig(train=[{"kind": "shards", "shards": packed}]), 0, 4)
    assert words in str(error.value)


def test_bad_pairs_are_listed_and_nothing_is_packed(loose, tmp_path, capsys):
    for name, data in files_of(loose).items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "alpha" / "é 3.png").unlink()
    (tmp_path / "image" / "é 4.JPG").write_bytes(b"torn")
    arguments = [tmp_path / "image", tmp_path / "alpha", tmp_path / "shards"]
    assert shard.main(["pack", *map(str, arguments)]) == 2
    errors = capsys.readouterr().err
    assert "é 3.JPG: image without alpha" in errors
    assert "é 4.JPG: not an image" in errors
    assert not (tmp_path / "shards").exists()


def test_two_files_of_one_name_are_not_packed(loose, tmp_path):
    pairs, _, _ = find_pairs(loose / "image", loose / "alpha")
    with pytest.raises(DataError, match=r"é 0, é 0\.png: more than one file"):
        packing.pack([*pairs, pairs[0]], tmp_path / "shards")
    assert list(tmp_path.iterdir()) == []


PACK = """
import resource, signal, sys
from kmatting.data import shard
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))  # as a full disk
sys.exit(shard.main(["pack", *sys.argv[1:], "--shard-size", "0.02"]))
"""


def test_a_full_disk_gives_one_line_and_leaves_nothing(loose, tmp_path):
    arguments = [loose / "image", loose / "alpha", tmp_path / "shards"]
    run = subprocess.run(
        [sys.executable, "-c", PACK, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    assert "shard-00000.tfrecord: cannot be written" in run.stderr.splitlines()[-1]
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}


@pytest.mark.parametrize(("stop", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_pack_leaves_nothing(loose, tmp_path, capsys, monkeypatch, stop, status):
    entry = packing._entry

    def stopped(*arguments):
        signal.raise_signal(stop)
        return entry(*arguments)

    monkeypatch.setattr(packing, "_entry", stopped)
    arguments = [loose / "image", loose / "alpha", tmp_path / "shards"]
    assert shard.main(["pack", *map(str, arguments)]) == status
    assert "Traceback" not in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(loose, packed, capsys):
    before = files_of(packed)
    arguments = [loose / "image", loose / "alpha", packed]
    assert shard.main(["pack", *map(str, arguments)]) == 2
    assert shard.main(["unpack", str(packed), str(packed)]) == 2
    assert capsys.readouterr().err.count("already exists") == 2
    assert files_of(packed) == before


def test_two_processes_do_not_pack_into_one_folder(loose, tmp_path, capsys):
    arguments = [loose / "image", loose / "alpha", tmp_path / "shards"]
    with FileLock(tmp_path / ".shards.lock"):
        assert shard.main(["pack", *map(str, arguments)]) == 2
    assert "another process is writing it" in capsys.readouterr().err
    assert not (tmp_path / ".shards.partial").exists()
    assert shard.main(["pack", *map(str, arguments)]) == 0


def test_shards_are_on_the_disk_before_their_folder_has_its_name(loose, tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(
        os, "fsync", lambda number: done.append(Path(f"/proc/self/fd/{number}").readlink().name)
    )
    rename = Path.rename
    monkeypatch.setattr(
        Path, "rename", lambda path, to: (done.append("rename"), rename(path, to))[1]
    )
    pairs, _, _ = find_pairs(loose / "image", loose / "alpha")
    packing.pack(pairs, tmp_path / "shards")
    before = done[: done.index("rename")]
    assert {"manifest.json", "shard-00000.tfrecord", ".shards.partial"} <= set(before)
    assert done[-1] == tmp_path.name


def test_a_photo_that_packs_but_does_not_decode_is_named(tmp_path):
    """As a shard made by other software might hold."""
    (tmp_path / "a.tfrecord").write_bytes(b"not a photo")
    entry = packing.FileEntry(name="a.jpg", offset=0, size=11, crc32=zlib.crc32(b"not a photo"))
    file = packing.PackedFile(tmp_path / "a.tfrecord", 7, entry)
    with pytest.raises(ValueError, match=r"a\.tfrecord: record 7 \(a\.jpg\): not an image"):
        packing.PackedPair(file, file).read()
