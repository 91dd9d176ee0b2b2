"""Small files and folders of a warehouse, on whatever file system Hadoop knows (local, hdfs, s3a ...)."""

import os
from typing import Any

from pyspark.sql import SparkSession


def absolute(location: str) -> str:
    """A local path from the root, a URI as it is: Spark's working folder is not the user's."""
    return location if "://" in location else os.path.abspath(location)


class Storage:
    """Access below one folder.

    Args:
        spark: the session whose Hadoop configuration holds credentials and file systems.
        root: folder as a path or Hadoop URI.
    """

    def __init__(self, spark: SparkSession, root: str) -> None:
        self._jvm: Any = spark._jvm
        self.root = root.rstrip("/")
        configuration = spark._jsc.hadoopConfiguration()  # type: ignore[attr-defined]
        self._fs = self._path("").getFileSystem(configuration)

    def _path(self, name: str) -> Any:
        return self._jvm.org.apache.hadoop.fs.Path(self.locate(name))

    def locate(self, name: str) -> str:
        """Full location of a name below the root."""
        return f"{self.root}/{name}" if name else self.root

    def exists(self, name: str) -> bool:
        """Whether there is such a file or folder."""
        return bool(self._fs.exists(self._path(name)))

    def folders(self, name: str) -> list[str]:
        """Names of the folders directly below a folder, sorted; empty where it does not exist."""
        if not self.exists(name):
            return []
        return sorted(
            status.getPath().getName() for status in self._fs.listStatus(self._path(name)) if status.isDirectory()
        )

    def make_folder(self, name: str) -> None:
        """Create a folder and its parents."""
        self._fs.mkdirs(self._path(name))

    def delete(self, name: str) -> None:
        """Delete a file, or a folder with all it holds."""
        self._fs.delete(self._path(name), True)

    def write_text(self, name: str, text: str, *, overwrite: bool = True) -> None:
        """Write a small file.

        Raises:
            py4j.protocol.Py4JJavaError: it exists already and `overwrite` is false.
        """
        stream = self._fs.create(self._path(name), overwrite)
        try:
            stream.write(bytearray(text.encode()))
        finally:
            stream.close()

    def read_text(self, name: str) -> str:
        """Read a small file."""
        stream = self._fs.open(self._path(name))
        try:
            return bytes(stream.readAllBytes()).decode()
        finally:
            stream.close()
