"""Files are read once: what is known to be good is not read again until it changes."""

import os
import time

import numpy as np
import pytest
from PIL import Image

from kmatting.data import checking
from kmatting.data.cache import cache_folder
from kmatting.data.checking import FileChecker
from kmatting.data.pairs import find_pairs


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def reads(monkeypatch):
    """Records the stems that are read."""
    stems = []
    read_all = checking._read_all

    def recorded(samples):
        stems.append([sample.stem for sample in samples])
        return read_all(samples)

    monkeypatch.setattr(checking, "_read_all", recorded)
    return stems


@pytest.fixture
def pairs(tmp_path):
    for folder in ("image", "alpha"):
        (tmp_path / folder).mkdir()
        for number in range(6):
            Image.new("L", (8, 8), 200).save(tmp_path / folder / f"{number}.png")
    return find_pairs(tmp_path / "image", tmp_path / "alpha")[0]


def check(pairs, *arguments):
    checker = FileChecker(*arguments)
    return checker.keep_good(pairs, "set"), checker.problems


def test_a_second_start_reads_nothing(pairs, reads):
    for _ in range(2):
        assert check(pairs) == (pairs, [])
    assert reads == [list("012345"), []]


@pytest.mark.parametrize("folder", [0, 1])
def test_a_changed_file_is_read_again(pairs, reads, folder):
    check(pairs)
    path = pairs[3].files[folder]
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    check(pairs)
    path.write_bytes(path.read_bytes() + b"x")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    check(pairs)
    assert reads[1:] == [["3"], ["3"]]


def test_bad_files_are_read_each_time(pairs, reads):
    pairs[2].alpha.write_bytes(b"torn")
    for _ in range(2):
        good, problems = check(pairs, "skip")
        assert good == [pair for pair in pairs if pair.stem != "2"]
        assert "2.png: not an image" in problems[0]
    assert reads == [list("012345"), ["2"]]


def test_a_set_is_judged_by_what_is_remembered_too(pairs, reads):
    for pair in pairs[:5]:
        Image.new("L", (8, 8), 20).save(pair.alpha)
    assert check(pairs)[1] == []
    assert check(pairs)[1] == []
    assert "above level 20" in check(pairs[:5])[1][0]
    assert reads[1:] == [[], []]


def test_workers_read_their_own_part_and_share_what_they_know(pairs, reads):
    check(pairs, "error", 0, 3)
    check(pairs, "error", 1, 3)
    assert reads == [["0", "3"], ["1", "4"]]
    check(pairs)
    assert reads[2] == ["2", "5"]
    # Which bad files are skipped has to be known to all.
    checking._read_all([])
    pairs[0].alpha.unlink()
    assert len(check(pairs, "skip", 1, 3)[0]) == 5


def test_what_another_worker_finds_meanwhile_is_kept(pairs, reads, monkeypatch):
    read_all = checking._read_all

    def read_beside_another(samples):
        monkeypatch.setattr(checking, "_read_all", read_all)
        check(pairs, "error", 1, 2)
        return read_all(samples)

    monkeypatch.setattr(checking, "_read_all", read_beside_another)
    check(pairs, "error", 0, 2)
    check(pairs)
    assert reads[-1] == []


def test_trusted_files_are_not_read(pairs, reads):
    pairs[0].alpha.write_bytes(b"torn")
    assert check(pairs, "trust") == (pairs, [])
    assert reads == []


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"\xff", b'{"format": 1}', b"[" * 100_000, b'{"format": "F", "good": 3}'],
)
def test_a_damaged_cache_is_written_anew(pairs, reads, content):
    check(pairs)
    (path,) = (cache_folder() / "checked").iterdir()
    path.write_bytes(content.replace(b"F", checking._FORMAT.encode()))
    check(pairs)
    check(pairs)
    assert reads[1:] == [list("012345"), []]


def test_another_version_of_the_reader_judges_anew(pairs, reads, monkeypatch):
    check(pairs)
    monkeypatch.setattr(checking, "_FORMAT", "kmatting 99")
    check(pairs)
    assert reads[1] == list("012345")


def test_without_a_cache_folder_files_are_read_each_time(pairs, reads, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        assert check(pairs) == (pairs, [])
    assert reads == [list("012345")] * 2


def test_without_a_home_a_temporary_folder_is_used(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.home", lambda: (_ for _ in ()).throw(RuntimeError))
    assert cache_folder().name == "kmatting"


def test_a_start_on_many_checked_pairs_is_quick(tmp_path):
    for folder in ("image", "alpha"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full((8, 8), 255, np.uint8)).save(tmp_path / "one.png")
        data = (tmp_path / "one.png").read_bytes()
        for number in range(1000):
            (tmp_path / folder / f"{number}.png").write_bytes(data)
    pairs = find_pairs(tmp_path / "image", tmp_path / "alpha")[0]
    check(pairs)
    start = time.process_time()
    assert check(find_pairs(tmp_path / "image", tmp_path / "alpha")[0]) == (pairs, [])
    assert time.process_time() - start < 1
