"""Reads a catalogue: a folder of media files, or a table that lists them, here or on object storage."""

import json
import os
import stat
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from pyspark.sql import SparkSession

from jobs import catalogue_folder
from jobs.catalogue_rows import is_file_uri, local_path, on_disk, read_rows, suffix_of, suffix_of_parts
from jobs.launch import AuscultError
from jobs.settings import DEFAULTS, ScanSettings
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
        is_named_by_path: its name is its path below the catalogue's folder, so that another catalogue may have the same.
    """

    title_id: str
    uri: str
    path: str | None
    size_bytes: int | None
    modified_ns: int | None
    columns: dict[str, Any] = field(default_factory=dict)
    refused: tuple[str, str] | None = None
    is_named_by_path: bool = False


@dataclass(frozen=True)
class Catalogue:
    """What is to be scanned.

    Args:
        name: the location, the same however it was typed.
        titles: in a fixed order.
        ignored: how many files and folders were left out, by suffix or name.
    """

    name: str
    titles: list[Title]
    ignored: Counter


def read_catalogue(
    spark: SparkSession, location: str, settings: ScanSettings = DEFAULTS, limit: int | None = None
) -> Catalogue:
    """Read a folder (searched recursively), a CSV, JSON or Parquet file, or a Delta table.

    Args:
        spark: the session.
        location: path or URI.
        settings: which files of a folder are left out.
        limit: the first titles only.

    Raises:
        AuscultError: the location cannot be read, carries credentials, has no `uri` column, or names a title twice; or a
            storage that holds titles cannot be reached.
    """
    if remote.has_credentials(location):  # locations are stored and printed
        raise AuscultError(f"catalogue {remote.redacted(location)}: {_CREDENTIALS[1]}")
    path = on_disk(location)
    if path is None:
        return _read_at(spark, location, settings, limit)
    is_folder = os.path.isdir(path)
    if is_folder and not os.access(path, os.R_OK | os.X_OK):
        raise AuscultError(f"catalogue {location}: the folder cannot be read")
    if is_folder and not os.path.isdir(os.path.join(path, "_delta_log")) and not suffix_of_parts(path):
        return _read_folder(path, settings, limit)
    base = os.path.dirname(path) if suffix_of(path) or not is_folder else path
    return Catalogue(name_of(location), _titles(read_rows(spark, location), location, base, limit), Counter())


def _read_at(spark: SparkSession, location: str, settings: ScanSettings, limit: int | None) -> Catalogue:
    """Read a folder or table at a URI of elsewhere."""
    failed = None
    if remote.is_remote(location) and not suffix_of(location):
        try:
            if not remote.is_folder(f"{location.rstrip('/')}/_delta_log"):
                return _list_folder(location, settings, limit)
        except MediaError as error:
            if error.code == "not_found":
                raise AuscultError(f"catalogue {location}: there is no such folder, table or bucket") from error
            failed = error.message  # Spark may have an access that pyarrow has not
    try:
        rows = read_rows(spark, location)
    except AuscultError as error:
        raise error if failed is None else AuscultError(f"{error} (as a folder: {failed})") from error
    base = location.rstrip("/")
    if suffix_of(location):
        base = base.rpartition("/")[0]
    return Catalogue(name_of(location), _titles(rows, location, base, limit), Counter())


def _list_folder(location: str, settings: ScanSettings, limit: int | None) -> Catalogue:
    """List a folder through pyarrow and not Spark, which loses hidden and partition-like names and fails on a colon."""
    ignored: Counter = Counter()
    titles = []
    found = dict(remote.listing(location))
    for key in catalogue_folder.sorted_out(list(found), settings, ignored):
        uri = f"{location.rstrip('/')}/{key}"
        status = found[key]
        titles.append(Title(key, uri, uri, status.size_bytes, status.modified_ns, is_named_by_path=True))
    return Catalogue(name_of(location), titles[:limit], ignored)


def name_of(location: str) -> str:
    """A location as the table `scans` has it.

    >>> name_of("/media/films/"), name_of("file:///media/a%20b"), name_of("s3://bucket/media/")
    ('/media/films', '/media/a b', 's3://bucket/media')
    """
    if "://" in location and not is_file_uri(location):
        return location.rstrip("/")
    path = local_path(location) if is_file_uri(location) else os.fsencode(location)
    return catalogue_folder.readable(os.path.abspath(path))


def _read_folder(root: str, settings: ScanSettings, limit: int | None) -> Catalogue:
    ignored: Counter = Counter()
    keys = list(catalogue_folder.files(root, settings, ignored))
    titles = []
    for key, title_id in list(zip(keys, catalogue_folder.title_ids(keys), strict=True))[:limit]:
        path = os.path.join(os.fsencode(root), key)
        titles.append(_title(title_id, path, {}, is_named_by_path=True))
    return Catalogue(name_of(root), titles, ignored)


def _title(title_id: str, path: bytes, columns: dict[str, Any], *, is_named_by_path: bool = False) -> Title:
    size_bytes = modified_ns = None
    try:
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode):
            size_bytes, modified_ns = status.st_size, min(max(status.st_mtime_ns, MOMENTS_NS[0]), MOMENTS_NS[1])
    except OSError:
        pass  # the probe says why
    encoded = encode_path(path)
    return Title(
        title_id, "file://" + encoded, encoded, size_bytes, modified_ns, columns, is_named_by_path=is_named_by_path
    )


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


def present(uri: str) -> tuple[int | None, int | None] | None:
    """Size (bytes) and modification time (nanoseconds) of a title's file now, by its URI; None where there is none."""
    try:
        title = _title("", local_path(uri), {}) if is_file_uri(uri) else _with_status(_title_elsewhere("", uri, {}))
    except AuscultError:
        return None
    return None if title.size_bytes is None else (title.size_bytes, title.modified_ns)


def _titles(rows: list[dict[str, Any]], location: str, base: str, limit: int | None) -> list[Title]:
    """Turn a table's rows into titles; relative paths are below the table's own folder."""
    titles: dict[str, Title] = {}
    for number, row in enumerate(map(_plainly_named, rows), start=1):
        if all(value in (None, "") for value in row.values()):
            continue  # a line that people left empty between others
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
            if "\0" in value:
                raise AuscultError(
                    f"catalogue {location}: row {number} has {name} {value!a}, which holds a NUL character"
                )
        if title_id in titles:
            raise AuscultError(
                f"catalogue {location}: title {title_id!r} is listed twice ({titles[title_id].uri} and "
                f"{remote.redacted(uri)}); "
                f"give each file its own title_id"
            )
        columns = {key: _plain(value) for key, value in row.items() if key not in ("uri", "title_id")}
        if not uri.startswith("/") and not remote.scheme_of(uri) and remote.scheme_of(base):
            uri = f"{base}/{uri}"
        if is_file_uri(uri):
            title = _title(title_id, local_path(uri), columns)
        elif remote.scheme_of(uri):
            title = _title_elsewhere(title_id, uri, columns)
        else:
            title = _title(title_id, os.fsencode(os.path.normpath(os.path.join(base, uri))), columns)
        is_relative = not row["uri"].startswith("/") and not remote.scheme_of(row["uri"])
        titles[title_id] = replace(title, is_named_by_path=is_relative and title_id == row["uri"])
    with ThreadPoolExecutor(STATUS_THREADS) as threads:
        return list(threads.map(_with_status, list(titles.values())[:limit]))


def _plainly_named(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose columns uri and title_id are spelled so, whatever the case that the table has."""
    plain = {name: str(name).strip().lower() for name in row}
    return {
        (plain[name] if plain[name] in ("uri", "title_id") and plain[name] not in row else name): value
        for name, value in row.items()
    }


def _plain(value: Any) -> Any:
    """Values that a table column can hold; nested ones as JSON text."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list | dict):
        return json.dumps(value, default=str)
    return str(value)
