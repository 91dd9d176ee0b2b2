"""Reads a catalogue: a folder of media files, or a table that lists them, here or on object storage."""

import json
import os
import stat
from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from pyspark.sql import DataFrame, SparkSession

from jobs import csv_table
from jobs.launch import AuscultError
from jobs.settings import DEFAULTS, ScanSettings
from jobs.tables import times_as_text
from udfs import remote
from udfs.decoder import encode_path
from udfs.media import MediaError

# From 1900 to 9900: file systems hold times that tables and calendars do not.
MOMENTS_NS = (-2_208_988_800 * 10**9, 250_245_244_800 * 10**9)
STATUS_THREADS = 16  # a storage answers in some tens of milliseconds, and to many at once
_CREDENTIALS = (
    "credentials_in_uri",
    "the URI carries a user, password, key or signature; take it out, and give credentials by the environment of driver "
    "and executors",
)
_TABLE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")


@dataclass(frozen=True)
class Title:
    """One file of the catalogue.

    Args:
        title_id: its name in all tables.
        uri: where it is, as the tables show it.
        path: what the executors open: a local path as `udfs.decoder.encode_path` writes it, or the URI of an object on
            a storage that `udfs.remote` knows; None where the title is refused.
        size_bytes: size now; None where it cannot be told.
        modified_ns: modification time now, nanoseconds since 1970.
        columns: the catalogue's own further columns.
        refused: (error code, message) of a title that is not to be opened.
    """

    title_id: str
    uri: str
    path: str | None
    size_bytes: int | None
    modified_ns: int | None
    columns: dict[str, Any] = field(default_factory=dict)
    refused: tuple[str, str] | None = None


@dataclass(frozen=True)
class Catalogue:
    """Titles in a fixed order, and how many files and folders were left out, by suffix or name."""

    titles: list[Title]
    ignored: Counter


def read_catalogue(spark: SparkSession, location: str, settings: ScanSettings = DEFAULTS) -> Catalogue:
    """Read a folder (searched recursively), a CSV, JSON or Parquet file, or a Delta table.

    Raises:
        AuscultError: the location cannot be read, carries credentials, has no `uri` column, or names a title twice; or a
            storage that holds titles cannot be reached.
    """
    if remote.has_credentials(location):  # locations are stored and printed
        raise AuscultError(f"catalogue {remote.redacted(location)}: {_CREDENTIALS[1]}")
    path = _on_disk(location)
    if path is None:
        return _read_at(spark, location, settings)
    if os.path.isdir(path) and not os.path.isdir(os.path.join(path, "_delta_log")):
        if not os.access(path, os.R_OK | os.X_OK):
            raise AuscultError(f"catalogue {location}: the folder cannot be read")
        return _read_folder(path, settings)
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
            return _collected(spark.read.format("delta").load(path))
        rows = _read_file(path)
    except Exception as error:  # Spark's errors have many classes and one meaning here
        said = " ".join((str(error).splitlines() or [type(error).__name__])[0].split())
        raise AuscultError(f"{what} {location}: cannot be read: {said}") from error
    if rows is None:
        raise AuscultError(
            f"{what} {path}: expected a folder, a Delta table, or a .csv, .tsv, .json, .jsonl or .parquet file"
        )
    return rows


def _read_at(spark: SparkSession, location: str, settings: ScanSettings) -> Catalogue:
    """Read a folder or table at a URI of elsewhere."""
    failed = None
    if remote.is_remote(location) and not location.lower().endswith(_TABLE_SUFFIXES):
        try:
            if not remote.is_folder(f"{location.rstrip('/')}/_delta_log"):
                return _list_folder(location, settings)
        except MediaError as error:
            if error.code == "not_found":
                raise AuscultError(f"catalogue {location}: there is no such folder, table or bucket") from error
            failed = error.message  # Spark may have an access that pyarrow has not
    try:
        rows = read_rows(spark, location)
    except AuscultError as error:
        raise error if failed is None else AuscultError(f"{error} (as a folder: {failed})") from error
    is_file = location.lower().endswith(_TABLE_SUFFIXES)
    base = location.rpartition("/")[0] if is_file else location.rstrip("/")
    return Catalogue(_titles(rows, location, base), Counter())


def _list_folder(location: str, settings: ScanSettings) -> Catalogue:
    """List a folder through pyarrow and not Spark, which loses hidden and partition-like names and fails on a colon."""
    ignored: Counter = Counter()
    titles = []
    found = dict(remote.listing(location))
    for key in _sorted_out(list(found), settings, ignored):
        uri = f"{location.rstrip('/')}/{key}"
        titles.append(Title(key, uri, uri, found[key].size_bytes, found[key].modified_ns))
    return Catalogue(titles, ignored)


def _sorted_out(keys: list[str], settings: ScanSettings, ignored: Counter) -> Iterator[str]:
    """Those of a catalogue folder's files that are titles, by their paths in it; the others are counted by their reason."""
    present = set(keys)
    for key in keys:
        if reason := _is_no_title(key, present, settings):
            ignored[reason] += 1
        else:
            yield key


def _is_no_title(key: str, present: Collection[str], settings: ScanSettings) -> str | None:
    """Why a file of a catalogue folder is none of its titles: a suffix, or a folder's name with a slash; None if it is one.

    Args:
        key: its path in the folder.
        present: all such paths.
        settings: which suffixes and folders are left out.
    """
    *folders, name = key.split("/")
    for folder in folders:
        if _is_system_folder(folder, settings.ignored_folders):
            return f"{folder}/"
    lower = name.lower()
    suffix = os.path.splitext(lower)[1]
    if suffix in settings.ignored_suffixes or lower in settings.ignored_suffixes:
        return suffix or lower
    # Apple's systems keep what another file system has no room for in such a file beside each (AppleDouble).
    is_companion = name.startswith("._") and "/".join([*folders, name[2:]]) in present
    return "._*" if is_companion else None


@lru_cache(maxsize=1 << 16)  # a catalogue has far fewer folders than files
def _is_system_folder(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name.lower(), pattern.lower()) for pattern in patterns)


def _on_disk(location: str, what: str = "catalogue") -> str | None:
    """A local location's path, None for a URI of elsewhere."""
    if "://" in location and not location.startswith("file://"):
        return None
    path = os.path.abspath(os.fsdecode(_local_path(location)) if location.startswith("file:") else location)
    if not os.path.exists(path):
        raise AuscultError(f"{what} {location}: there is no such file or folder")
    return path


def _read_folder(root: str, settings: ScanSettings) -> Catalogue:
    """List a folder on bytes: Spark's own listing loses hidden, partition-like and non-UTF-8 names."""
    ignored: Counter = Counter()
    titles = []
    folder = os.fsencode(root)
    paths = sorted(_walk(folder, settings, ignored))
    for key in _sorted_out([os.fsdecode(os.path.relpath(path, folder)) for path in paths], settings, ignored):
        path = os.path.join(folder, os.fsencode(key))
        titles.append(_title(_readable(os.fsencode(key)), "file://" + encode_path(path), path, {}))
    return Catalogue(titles, ignored)


def _walk(folder: bytes, settings: ScanSettings, ignored: Counter) -> Iterator[bytes]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                name = os.fsdecode(entry.name)
                # Not entered: snapshots hold the whole catalogue again.
                if _is_system_folder(name, settings.ignored_folders):
                    ignored[f"{name}/"] += 1
                    continue
                try:
                    yield from _walk(entry.path, settings, ignored)
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


def _title(title_id: str, uri: str, path: bytes, columns: dict[str, Any]) -> Title:
    size_bytes = modified_ns = None
    try:
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode):
            size_bytes, modified_ns = status.st_size, min(max(status.st_mtime_ns, MOMENTS_NS[0]), MOMENTS_NS[1])
    except OSError:
        pass  # the probe says why
    return Title(title_id, uri, encode_path(path), size_bytes, modified_ns, columns)


def _title_elsewhere(title_id: str, uri: str, columns: dict[str, Any]) -> Title:
    """A title at a URI; its size and time are asked for later, of many at once."""
    if remote.has_credentials(uri):
        return Title(title_id, remote.redacted(uri), None, None, None, columns, _CREDENTIALS)
    if not remote.is_remote(uri):
        message = (
            f"expected a local path, file: or one of {', '.join(f'{scheme}:' for scheme in remote.SCHEMES)}, found "
            f"{uri.partition('://')[0]}:; mount the storage on every node"
        )
        return Title(title_id, uri, None, None, None, columns, ("unsupported_scheme", message))
    return Title(title_id, uri, uri, None, None, columns)


def _with_status(title: Title) -> Title:
    if title.path is None or not remote.is_remote(title.path):
        return title
    try:
        status = remote.status(title.path)
    except MediaError as error:
        if error.code == "storage_error":
            # Rejecting one title after the other would take hours, and forget what is known of them.
            raise AuscultError(f"catalogue: {title.uri}: {error.message}; run the same command again later") from error
        return title  # the probe says why
    return replace(title, size_bytes=status.size_bytes, modified_ns=status.modified_ns)


def _read_file(path: str) -> list[dict[str, Any]] | None:
    """Rows of a local file; None where its suffix names no format that is read here."""
    suffix = Path(path).suffix.lower()
    if suffix in {".csv", ".tsv"}:
        return [row for _, row in csv_table.read(Path(path)).rows]
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
        header = reader.text(location).head()
        separator = csv_table.separator_of(urlsplit(location).path, header[0] if header else "")
        frame = reader.csv(location, header=True, sep=separator, multiLine=True, escape='"')
    elif suffix in {".json", ".jsonl", ".ndjson"}:
        frame = reader.json(location)
    elif suffix == ".parquet":
        frame = reader.parquet(location)
    else:
        frame = reader.format("delta").load(location)
    return _collected(frame)


def _collected(frame: DataFrame) -> list[dict[str, Any]]:
    return [row.asDict(recursive=True) for row in times_as_text(frame).collect()]


def _titles(rows: list[dict[str, Any]], location: str, base: str) -> list[Title]:
    """Turn a table's rows into titles; relative paths are below the table's own folder."""
    titles: dict[str, Title] = {}
    for number, row in enumerate(rows, start=1):
        uri = row.get("uri")
        if not isinstance(uri, str) or not uri:
            raise AuscultError(
                f"catalogue {location}: row {number} has no uri; expected a column `uri` with the file of each title "
                f"(columns found: {', '.join(map(str, row))})"
            )
        title_id = str(row["title_id"]) if row.get("title_id") not in (None, "") else remote.redacted(uri)
        for name, value in (("uri", uri), ("title_id", title_id)):
            if any("\ud800" <= character <= "\udfff" for character in value):  # JSON can say so, UTF-8 cannot
                raise AuscultError(
                    f"catalogue {location}: row {number} has {name} {value!a}, which holds half a surrogate pair: no table "
                    f"can store that; write the character as it is or as a whole pair (a file name that is not UTF-8: as %XX "
                    f"in a file: URI)"
                )
        if title_id in titles:
            raise AuscultError(
                f"catalogue {location}: title {title_id!r} is listed twice ({titles[title_id].uri} and "
                f"{remote.redacted(uri)}); "
                f"give each file its own title_id"
            )
        columns = {key: _plain(value) for key, value in row.items() if key not in ("uri", "title_id")}
        if not uri.startswith(("/", "file:")) and not remote.scheme_of(uri) and remote.scheme_of(base):
            uri = f"{base}/{uri}"
        if remote.scheme_of(uri) and not uri.startswith("file:"):
            titles[title_id] = _title_elsewhere(title_id, uri, columns)
        else:
            path = (
                _local_path(uri) if uri.startswith("file:") else os.fsencode(os.path.normpath(os.path.join(base, uri)))
            )
            titles[title_id] = _title(title_id, "file://" + encode_path(path), path, columns)
    with ThreadPoolExecutor(STATUS_THREADS) as threads:
        return list(threads.map(_with_status, titles.values()))


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
