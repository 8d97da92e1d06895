"""Files are written whole or not at all, whatever happens."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kmatting import files
from kmatting.errors import UsageError
from kmatting.files import check_folder, whole_file, whole_folder


def test_a_write_that_fails_leaves_the_former_file_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("former")
    with pytest.raises(RuntimeError), whole_file(path) as partial:
        assert partial.parent == path.parent
        assert partial.suffix == path.suffix
        partial.write_text("half of the n")
        assert path.read_text() == "former"
        raise RuntimeError
    assert path.read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a" * 251 + ".png", "\u5b57" * 83 + ".png", "a." + "b" * 200])
def test_names_may_be_as_long_as_the_file_system_allows(tmp_path, name):
    with whole_file(tmp_path / name) as partial:
        partial.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "new"


def test_bytes_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    done = []
    replace = Path.replace

    def fsync(descriptor):
        done.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    def renamed(partial, path):
        done.append("rename")
        return replace(partial, path)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", renamed)
    with whole_file(tmp_path / "a.txt") as partial:
        partial.write_text("new")
    assert done == [str(partial), "rename", str(tmp_path)]


def test_a_folder_is_on_the_disk_before_its_name_is(tmp_path, monkeypatch):
    done = []
    replace = Path.replace

    def renamed(partial, path):
        done.append("rename")
        return replace(partial, path)

    monkeypatch.setattr(
        os, "fsync", lambda number: done.append(Path(f"/proc/self/fd/{number}").readlink().name)
    )
    monkeypatch.setattr(Path, "replace", renamed)
    with whole_folder(tmp_path / "new") as partial:
        (partial / "deep").mkdir()
        (partial / "a.txt").write_text("new")
        (partial / "deep" / "b.txt").write_text("new")
    assert done == ["a.txt", partial.name, "b.txt", "deep", "rename", tmp_path.name]


WRITER = """
import sys, time
from kmatting import files
write = getattr(files, sys.argv[1])
with write(sys.argv[2]) as partial:
    (partial / "frame.png" if partial.is_dir() else partial).write_text("half")
    print(partial, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("write", ["whole_file", "whole_folder"])
def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path, write):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, write, tmp_path / f"{name}.png"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]
    try:
        killed, living = (Path(writer.stdout.readline().strip()) for writer in writers)
        writers[0].send_signal(signal.SIGKILL)
        writers[0].wait()
        assert killed.exists()
        # Of another machine, though a process of the same number is dead on this one.
        own = files._machine()
        foreign = tmp_path / killed.name.replace(own, "0badbeef" if own != "0badbeef" else "0a")
        hidden = tmp_path / ".mine.partial.png"
        for path in (foreign, hidden):
            path.write_text("kept")
        files._remove_leftovers.cache_clear()
        with getattr(files, write)(tmp_path / "c.png") as partial:
            partial.touch()
        expected = {"c.png", living.name, foreign.name, hidden.name}
        assert {path.name for path in tmp_path.iterdir()} == expected
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()


def test_a_folder_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "deep" / "new") as partial:
        (partial / "a.txt").write_text("new")
        raise RuntimeError
    assert list((tmp_path / "deep").iterdir()) == []


@pytest.mark.parametrize("write", [whole_file, whole_folder])
def test_a_full_disk_names_the_destination(tmp_path, write):
    with (
        pytest.raises(OSError, match=r"No space left on device: .*a.txt"),
        write(tmp_path / "a.txt"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "name", ["rep.csv", "s.tar", "s.tar.gz", "mine.onnx", "m.keras", "out.tif", "OUT.AVIF", "a.zip"]
)
def test_a_folder_is_not_called_as_a_file(tmp_path, name):
    with pytest.raises(UsageError, match=f"--output .*{name}: names a .* file, expected a folder"):
        check_folder(tmp_path / name, "--output")
    (tmp_path / name).mkdir()
    check_folder(tmp_path / name, "--output")


@pytest.mark.parametrize("name", ["report", "v1.2", "model.old", ".hidden", "run.2026-11-30", ".."])
def test_other_names_of_folders_are_taken(tmp_path, name):
    check_folder(tmp_path / name, "--output")
