"""Reads the rows of a table that people or programs wrote: CSV, JSON, Parquet, Delta, here or at a URI that Hadoop knows."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from pyspark.sql import DataFrame, SparkSession

from jobs import csv_table
from jobs.launch import AuscultError
from jobs.tables import first_line, times_as_text

CSV, JSON, PARQUET = (".csv", ".tsv"), (".json", ".jsonl", ".ndjson"), (".parquet",)
SUFFIXES = (*CSV, *JSON, *PARQUET)


def read_rows(spark: SparkSession, location: str, what: str = "catalogue") -> list[dict[str, Any]]:
    """Rows of a CSV, JSON or Parquet file (or the folder of one that Spark wrote) or a Delta table.

    Raises:
        AuscultError: it cannot be read; `what` names its part in the message.
    """
    path = on_disk(location, what)
    try:
        if path is None:
            return _read_with_spark(spark, location, suffix_of(urlsplit(location).path))
        if os.path.isdir(path):
            suffix = suffix_of_parts(path)
            return _read_parts(path, suffix) if suffix else _read_with_spark(spark, path, "")
        rows = _read_file(path)
    except Exception as error:  # Spark's errors have many classes and one meaning here
        raise AuscultError(f"{what} {location}: cannot be read: {' '.join(first_line(error).split())}") from error
    if rows is None:
        raise AuscultError(
            f"{what} {path}: expected a folder, a Delta table, or a .csv, .tsv, .json, .jsonl or .parquet file"
        )
    return rows


def on_disk(location: str, what: str = "catalogue") -> str | None:
    """A local location's path, None for a URI of elsewhere.

    Raises:
        AuscultError: there is nothing.
    """
    if "://" in location and not is_file_uri(location):
        return None
    path = os.path.abspath(os.fsdecode(local_path(location)) if is_file_uri(location) else location)
    if not os.path.exists(path):
        raise AuscultError(f"{what} {location}: there is no such file or folder")
    return path


def is_file_uri(uri: str) -> bool:
    """Whether a URI is of this machine.

    >>> [is_file_uri(uri) for uri in ("file:/a", "File:///a", "/a", "s3://a/b")]
    [True, True, False, False]
    """
    return uri[:5].lower() == "file:"


def local_path(uri: str) -> bytes:
    """The path of a `file:` URI.

    >>> local_path("file://host/a%20b?c#d")
    b'/a b?c#d'
    """
    # Not urlsplit: a file name may hold ? and #.
    path = uri[len("file:") :]
    if path.startswith("//"):
        path = path[path.find("/", 2) :]
    return unquote_to_bytes(path)


def suffix_of(path: str) -> str:
    """The suffix in lower case that says how a table is written; empty where none does, as of a Delta table."""
    suffix = os.path.splitext(path.rstrip("/"))[1].lower()
    return suffix if suffix in SUFFIXES else ""


def suffix_of_parts(folder: str) -> str:
    """The suffix of the parts of a table that Spark (or pandas, partitioned) wrote as a folder; empty where it is none."""
    names = os.listdir(folder)
    if "_delta_log" in names or not ("_SUCCESS" in names or suffix_of(folder)):
        return ""
    return next((suffix for part in _parts(folder) if (suffix := suffix_of(part))), suffix_of(folder))


def _parts(folder: str) -> Iterator[str]:
    for top, folders, names in os.walk(folder):
        folders.sort()
        yield from (os.path.join(top, name) for name in sorted(names) if not name.startswith(("_", ".")))


def _read_parts(folder: str, suffix: str) -> list[dict[str, Any]]:
    """Rows of a local table that consists of files of one kind: not by Spark, to which some names are patterns."""
    if suffix in PARQUET:
        import pyarrow.parquet

        return list(pyarrow.parquet.read_table(folder).to_pylist())  # with the columns that folders are named by
    rows = []
    for part in _parts(folder):
        found = _read_file(part)
        if found is None:
            raise ValueError(f"expected {suffix} files, found {os.path.relpath(part, folder)}")
        rows += found
    return rows


def _read_file(path: str) -> list[dict[str, Any]] | None:
    """Rows of a local file; None where its suffix names no format that is read here."""
    suffix = suffix_of(path)
    if suffix in CSV:
        return [row for _, row in csv_table.read(Path(path)).rows]
    if suffix in JSON:
        return _json_rows(Path(path).read_text(encoding="utf-8-sig"))
    if suffix in PARQUET:
        import pyarrow.parquet

        return list(pyarrow.parquet.read_table(path).to_pylist())
    return None


def _json_rows(text: str) -> list[dict[str, Any]]:
    """Rows of an array of objects, or of one object a line."""
    text = text.removeprefix("\ufeff")
    if text.lstrip()[:1] == "[":
        rows = json.loads(text)
    else:  # not splitlines: JSON lets U+2028 and its like stand in a text
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected objects, one a title")
    return list(rows)


def _read_with_spark(spark: SparkSession, location: str, suffix: str) -> list[dict[str, Any]]:
    """Rows of a table elsewhere; without a suffix it is a Delta table."""
    reader = spark.read
    if suffix in CSV:
        header = reader.text(location).head()
        separator = csv_table.separator_of(urlsplit(location).path, header[0] if header else "")
        frame = reader.csv(location, header=True, sep=separator, multiLine=True, escape='"')
    elif suffix in JSON:
        return [row for file in reader.text(location, wholetext=True).collect() for row in _json_rows(file.value)]
    elif suffix in PARQUET:
        frame = reader.parquet(location)
    else:
        frame = reader.format("delta").load(location)
    return _collected(frame)


def _collected(frame: DataFrame) -> list[dict[str, Any]]:
    return [row.asDict(recursive=True) for row in times_as_text(frame).collect()]
