"""Small files and folders of a warehouse, on whatever file system Hadoop knows (local, hdfs, s3a ...)."""

import contextlib
import os
import uuid
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import SparkSession

from jobs.launch import AuscultError
from udfs.remote import has_credentials, redacted

# Of two that create the same file at once, one is refused: by O_EXCL, by the name node, by the service (as documented).
_EXCLUSIVE = frozenset({"file", "hdfs", "viewfs", "abfs", "abfss", "gs"})
# S3A's way: the object comes into being when the stream is closed, and only where there is none (If-None-Match).
_CONDITIONAL = "fs.option.create.conditional.overwrite"


def absolute(location: str) -> str:
    """A local path from the root, a URI as it is: Spark's working folder is not the user's.

    Raises:
        AuscultError: the URI carries credentials, which would be printed and stored.
    """
    if has_credentials(location):
        raise AuscultError(
            f"{redacted(location)}: the URI carries a user, password or key; take it out, and give credentials by the "
            "environment or Spark's properties"
        )
    return location if "://" in location else os.path.abspath(location)


class Storage:
    """Access below one folder.

    Args:
        spark: the session whose Hadoop configuration holds credentials and file systems.
        root: folder as a path or Hadoop URI.
    """

    def __init__(self, spark: SparkSession, root: str) -> None:
        self._spark = spark
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

    def has_table(self, name: str) -> bool:
        """Whether a Delta table of that name is there: with columns, which one that was only named in a SQL shell lacks."""
        location = self.locate(name)
        if not DeltaTable.isDeltaTable(self._spark, location):
            return False
        return bool(self._spark.read.format("delta").load(location).columns)

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

        Of several that write the same file at once with `overwrite` false, all but one are refused, unless
        `exclusion_risk` says otherwise.

        Raises:
            py4j.protocol.Py4JJavaError, FileExistsError: it exists already and `overwrite` is false.
        """
        path = self._path(name)
        if not overwrite and self._scheme() == "file":
            # Hadoop looks first and creates then: of six at once, two got through in one round of eight.
            local = path.toUri().getPath()
            try:
                with open(local, "x", encoding="utf-8") as file:
                    file.write(text)
            except FileExistsError:
                raise
            except OSError:  # a full disk takes the name and not the content
                with contextlib.suppress(OSError):
                    os.unlink(local)
                raise
            return
        if not overwrite and self._is_conditional():
            # S3A's plain create looks first, too, and writes when the stream is closed: of six at once, all got through.
            builder = self._fs.createFile(path).create().overwrite(True).recursive()
            stream = builder.must(_CONDITIONAL, "true").build()
        else:
            stream = self._fs.create(path, overwrite)
        try:
            stream.write(bytearray(text.encode()))
        finally:
            stream.close()

    def _scheme(self) -> str:
        return str(self._fs.getUri().getScheme())

    def _is_conditional(self) -> bool:
        return bool(self._fs.hasPathCapability(self._path(""), _CONDITIONAL))

    def exclusion_risk(self) -> str | None:
        """Why two scans that start at the same moment might both write here, in words; None where they cannot.

        Whether a server of S3's protocol heeds conditions is tried, not believed.
        """
        if self._scheme() in _EXCLUSIVE:
            return None
        risk = f"warehouse {self.root}: two scans that start at the same moment would not notice each other here"
        if not self._is_conditional():
            return (
                f"{risk} (this file system cannot create a file only where there is none); see that one runs at a time"
            )
        name = f"_exclusive-{uuid.uuid4().hex}"
        self.write_text(name, "", overwrite=False)
        try:
            self.write_text(name, "", overwrite=False)
        except Exception:  # the second is refused, as it should be
            return None
        finally:
            self.delete(name)
        return f"{risk} (its server ignores If-None-Match); see that one runs at a time"

    def read_text(self, name: str) -> str:
        """Read a small file."""
        stream = self._fs.open(self._path(name))
        try:
            return bytes(stream.readAllBytes()).decode()
        finally:
            stream.close()
