"""Files are written whole or not at all, whatever happens."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kmatting import files
from kmatting.files import whole_file, whole_folder


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
    assert done == ["a.txt", "new", "b.txt", "deep", "rename", tmp_path.name]


WRITER = """
import sys, time
from kmatting.files import whole_file
with whole_file(sys.argv[1]) as partial:
    partial.write_text("half")
    print(partial, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, tmp_path / f"{name}.png"],
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
        foreign = tmp_path / ".0badbeef-1-01234567.partial.png"  # of another machine
        hidden = tmp_path / ".mine.partial.png"
        for path in (foreign, hidden):
            path.write_text("kept")
        files._remove_leftovers.cache_clear()
        with whole_file(tmp_path / "c.png") as partial:
            partial.write_text("new")
        expected = {"c.png", living.name, foreign.name, hidden.name}
        assert {path.name for path in tmp_path.iterdir()} == expected
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
