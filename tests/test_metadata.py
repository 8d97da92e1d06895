"""`kmatting.json` in model files: read, absent or damaged."""

import zipfile

import pytest

from kmatting.networks.metadata import METADATA, read_metadata, read_size


def write(path, content, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr(METADATA, content)
    return path


def test_size(tmp_path):
    assert read_size(write(tmp_path / "a.keras", '{"size": [288, 512]}')) == (288, 512)
    assert read_size(write(tmp_path / "b.keras", '{"size": null}')) is None
    assert read_size(write(tmp_path / "c.keras", "{}")) is None


def test_files_without_metadata(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    (tmp_path / "b.tflite").write_bytes(b"TFL3")
    for path in (tmp_path / "a.keras", tmp_path / "b.tflite", tmp_path):
        assert read_metadata(path) == {}


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", "\xff", "[" * 100_000, '{"size": 5}', '{"size": [1]}', '{"size": [1, "2"]}',
     '{"size": [true, 2]}', '{"size": [0, 2]}', '{"size": {"0": 1}}', "1" * 5000],
    ids=lambda content: content[:20],
)  # fmt: skip
def test_damaged_metadata(tmp_path, content):
    path = write(tmp_path / "a.keras", content)
    with pytest.raises(ValueError, match=r"a\.keras: damaged kmatting\.json"):
        read_size(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_metadata_that_is_there_twice(tmp_path):
    path = write(tmp_path / "a.keras", '{"size": [288, 512]}')
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(METADATA, '{"size": [64, 64]}')
    with pytest.raises(ValueError, match=r"damaged .* there 2 times"):
        read_size(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_damaged_archive(tmp_path, method):
    """Not taken for a file without metadata, which would run at another size in silence."""
    path = write(tmp_path / "a.keras", '{"size": [288, 512]}' + " " * 500, compression=method)
    content = bytearray(path.read_bytes())
    start = 30 + len(METADATA)
    content[start : start + 15] = bytes(15)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.keras: damaged kmatting\.json"):
        read_size(path)
