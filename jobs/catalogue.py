"""Reads a catalogue: a folder of media files, or a table that lists them."""

import csv
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from pyspark.sql import SparkSession

from jobs.launch import AuscultError
from udfs.decoder import encode_path


@dataclass(frozen=True)
class Title:
    """One file of the catalogue.

    Args:
        title_id: its name in all tables.
        uri: where it is, as the tables show it.
        path: its local path as `udfs.decoder.encode_path` writes it; None where it is not a local file.
        size_bytes: size now; None where it cannot be told.
        modified_ns: modification time now, nanoseconds since 1970.
        columns: the catalogue's own further columns.
    """

    title_id: str
    uri: str
    path: str | None
    size_bytes: int | None
    modified_ns: int | None
    columns: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Catalogue:
    """Titles in a fixed order, and how many files were left out, by suffix."""

    titles: list[Title]
    ignored: Counter


def read_catalogue(spark: SparkSession, location: str, ignored_suffixes: tuple[str, ...]) -> Catalogue:
    """Read a folder (searched recursively), a CSV, JSON or Parquet file, or a Delta table.

    Raises:
        AuscultError: the location cannot be read, has no `uri` column, or names a title twice.
    """
    path = _on_disk(location)
    if path is None:
        return Catalogue(_titles(read_rows(spark, location), location, None), Counter())
    if os.path.isdir(path) and not os.path.isdir(os.path.join(path, "_delta_log")):
        if not os.access(path, os.R_OK | os.X_OK):
            raise AuscultError(f"catalogue {location}: the folder cannot be read")
        return _read_folder(path, ignored_suffixes)
    base = path if os.path.isdir(path) else os.path.dirname(path)
    return Catalogue(_titles(read_rows(spark, location), location, base), Counter())


def read_rows(spark: SparkSession, location: str, what: str = "catalogue") -> list[dict[str, Any]]:
    """Rows of a CSV, JSON or Parquet file or a Delta table, here or at a URI that Hadoop knows.

    Raises:
        AuscultError: it cannot be read; `what` names its part in the message.
    """
    path = _on_disk(location, what)
    try:
        if path is None:
            return _read_remote(spark, location)
        if os.path.isdir(path):
            return [row.asDict(recursive=True) for row in spark.read.format("delta").load(path).collect()]
        rows = _read_file(path)
    except Exception as error:  # Spark's errors have many classes and one meaning here
        said = " ".join((str(error).splitlines() or [type(error).__name__])[0].split())
        raise AuscultError(f"{what} {location}: cannot be read: {said}") from error
    if rows is None:
        raise AuscultError(
            f"{what} {path}: expected a folder, a Delta table, or a .csv, .tsv, .json, .jsonl or .parquet file"
        )
    return rows


def _on_disk(location: str, what: str = "catalogue") -> str | None:
    """A local location's path, None for a URI of elsewhere."""
    if "://" in location and not location.startswith("file://"):
        return None
    path = os.path.abspath(os.fsdecode(_local_path(location)) if location.startswith("file:") else location)
    if not os.path.exists(path):
        raise AuscultError(f"{what} {location}: there is no such file or folder")
    return path


def _read_folder(root: str, ignored_suffixes: tuple[str, ...]) -> Catalogue:
    """List a folder on bytes: Spark's own listing loses hidden, partition-like and non-UTF-8 names."""
    ignored: Counter = Counter()
    titles = []
    for path in sorted(_walk(os.fsencode(root))):
        suffix = os.path.splitext(path)[1].decode("ascii", "replace").lower()
        name = os.path.basename(path).decode("utf-8", "replace").lower()
        if suffix in ignored_suffixes or name in ignored_suffixes:
            ignored[suffix or name] += 1
            continue
        title_id = _readable(os.path.relpath(path, os.fsencode(root)))
        titles.append(_title(title_id, "file://" + encode_path(path), path, {}))
    return Catalogue(titles, ignored)


def _walk(folder: bytes) -> Iterator[bytes]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                try:
                    yield from _walk(entry.path)
                except PermissionError as error:
                    # Silently skipping a folder would lose titles.
                    raise AuscultError(f"catalogue: folder {_readable(entry.path)} cannot be read") from error
            else:
                yield entry.path


def _readable(path: bytes) -> str:
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError:
        return encode_path(path)


def _title(title_id: str, uri: str, path: bytes | None, columns: dict[str, Any]) -> Title:
    size_bytes = modified_ns = None
    if path is not None:
        try:
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode):
                size_bytes, modified_ns = status.st_size, status.st_mtime_ns
        except OSError:
            pass  # the probe says why
    return Title(title_id, uri, encode_path(path) if path is not None else None, size_bytes, modified_ns, columns)


def _read_file(path: str) -> list[dict[str, Any]] | None:
    """Rows of a local file; None where its suffix names no format that is read here."""
    suffix = Path(path).suffix.lower()
    if suffix in {".csv", ".tsv"}:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter="\t" if suffix == ".tsv" else ",", strict=True)
            return [{key: value or None for key, value in row.items() if key is not None} for row in reader]
    if suffix in {".json", ".jsonl", ".ndjson"}:
        text = Path(path).read_text(encoding="utf-8-sig")
        rows = json.loads(text) if text.lstrip()[:1] == "[" else [json.loads(x) for x in text.splitlines() if x.strip()]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("expected objects, one a title")
        return rows
    if suffix == ".parquet":
        import pyarrow.parquet

        return list(pyarrow.parquet.read_table(path).to_pylist())
    return None


def _read_remote(spark: SparkSession, location: str) -> list[dict[str, Any]]:
    suffix = os.path.splitext(urlsplit(location).path)[1].lower()
    reader = spark.read
    if suffix in {".csv", ".tsv"}:
        frame = reader.csv(location, header=True, sep="\t" if suffix == ".tsv" else ",", multiLine=True, escape='"')
    elif suffix in {".json", ".jsonl", ".ndjson"}:
        frame = reader.json(location)
    elif suffix == ".parquet":
        frame = reader.parquet(location)
    else:
        frame = reader.format("delta").load(location)
    return [row.asDict(recursive=True) for row in frame.collect()]


def _titles(rows: list[dict[str, Any]], location: str, base: str | None) -> list[Title]:
    """Turn a table's rows into titles; relative paths are below the table's own folder."""
    titles: dict[str, Title] = {}
    for number, row in enumerate(rows, start=1):
        uri = row.get("uri")
        if not isinstance(uri, str) or not uri:
            raise AuscultError(
                f"catalogue {location}: row {number} has no uri; expected a column `uri` with the file of each title "
                f"(columns found: {', '.join(map(str, row))})"
            )
        title_id = str(row["title_id"]) if row.get("title_id") not in (None, "") else uri
        if title_id in titles:
            raise AuscultError(
                f"catalogue {location}: title {title_id!r} is listed twice ({titles[title_id].uri} and {uri}); "
                f"give each file its own title_id"
            )
        scheme = urlsplit(uri).scheme if "://" in uri or uri.startswith("file:") else ""
        path: bytes | None = None
        if scheme == "file":
            path = _local_path(uri)
        elif not scheme:
            path = os.fsencode(os.path.normpath(os.path.join(base or os.getcwd(), uri)))
        columns = {key: _plain(value) for key, value in row.items() if key not in ("uri", "title_id")}
        titles[title_id] = _title(title_id, uri if path is None else "file://" + encode_path(path), path, columns)
    return list(titles.values())


def _local_path(uri: str) -> bytes:
    # Not urlsplit: a file name may hold ? and #.
    path = uri.removeprefix("file:")
    if path.startswith("//"):
        path = path[path.find("/", 2) :]
    return unquote_to_bytes(path)


def _plain(value: Any) -> Any:
    """Values that a table column can hold; nested ones as JSON text."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list | dict):
        return json.dumps(value, default=str)
    return str(value)
