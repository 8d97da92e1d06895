"""A file system of Beam in memory, for URLs memory://..., as an object store is: without folders.

Beam finds it as a subclass of its FileSystem.
"""

import io

from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata, FileSystem

FILES: dict[str, bytes] = {}


class _NewFile(io.BytesIO):
    """Appears when it is closed."""

    def __init__(self, path):
        super().__init__()
        self._path = path

    def close(self):
        if not self.closed:
            FILES[self._path] = self.getvalue()
        super().close()


class MemoryFiles(FileSystem):
    @classmethod
    def scheme(cls):
        return "memory"

    def join(self, basepath, *paths):
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path):
        return tuple(path.rsplit("/", 1))

    def has_dirs(self):
        return False

    def mkdirs(self, path):
        pass

    def _list(self, dir_or_prefix):
        for path in sorted(FILES):
            if path.startswith(dir_or_prefix):
                yield self.metadata(path)

    def create(self, path, mime_type="", compression_type=CompressionTypes.AUTO):
        return _NewFile(path)

    def open(self, path, mime_type="", compression_type=CompressionTypes.AUTO):
        self.metadata(path)
        return io.BytesIO(FILES[path])

    def rename(self, source_file_names, destination_file_names):
        for source, destination in zip(source_file_names, destination_file_names, strict=True):
            FILES[destination] = FILES.pop(source)

    def copy(self, source_file_names, destination_file_names):
        for source, destination in zip(source_file_names, destination_file_names, strict=True):
            FILES[destination] = FILES[source]

    def exists(self, path):
        return path in FILES

    def size(self, path):
        return self.metadata(path).size_in_bytes

    def last_updated(self, path):
        return 0

    def checksum(self, path):
        return str(self.size(path))

    def metadata(self, path):
        if path not in FILES:
            raise BeamIOError("no such object", {path: None})
        return FileMetadata(path, len(FILES[path]), 0)

    def delete(self, paths):
        for path in paths:
            self.metadata(path)
            del FILES[path]
