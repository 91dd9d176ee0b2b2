"""Fetches titles from object storage and HDFS: FFmpeg is only ever handed regular files of this machine.

A copy and not a stream, since FFmpeg seeks back and forth, a probe reads all packets anyhow, and nothing that a file
says can then make FFmpeg open a URL. Credentials and endpoints come from where pyarrow looks for them (AWS_ACCESS_KEY_ID,
AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, the machine's role ...), never from a URI.
"""

import atexit
import contextlib
import errno
import fcntl
import functools
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_from_bytes

from udfs.media import MediaError, describe

# Scheme of a URI -> the one that pyarrow knows it by.
SCHEMES = {
    "s3": "s3", "s3a": "s3", "s3n": "s3", "gs": "gs", "gcs": "gs", "abfs": "abfs", "abfss": "abfss", "hdfs": "hdfs",
    "viewfs": "viewfs",
}  # fmt: skip
FREE_BYTES = 256 << 20  # left free beside a copy, for what Spark itself writes there
_BLOCK_BYTES = 16 << 20
_PREFIX = "auscult-copy-"
_SWEEP_AFTER_S = 60.0

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SECRET_PARAMETER = re.compile(
    r"([?&;][^=&;]*(?:secret|passw|token|\bsig\b|signature|credential|access_?key|api_?key)[^=&;]*=)[^&;]*",
    re.IGNORECASE,
)
_DENIED = re.compile(r"ACCESS_DENIED|FORBIDDEN|INVALID_ACCESS_KEY|SIGNATURE|HTTP status 40[13]|PermissionDenied", re.I)


@dataclass(frozen=True)
class Status:
    """What an object storage tells of an object.

    Args:
        size_bytes: its size.
        modified_ns: when it was last written, nanoseconds since 1970; None where that is not told.
    """

    size_bytes: int
    modified_ns: int | None


@dataclass
class _Copy:
    key: tuple[str, Status]
    file: Any  # deletes itself when it is closed
    users: int = 0


_lock = threading.RLock()  # an abandoned decode may be closed, by the garbage collector, in the midst of a fetch
_kept: _Copy | None = None  # the last one of this Python worker: the spans of a title often follow one another


def scheme_of(uri: str) -> str:
    """Scheme in small letters; empty for a path.

    >>> scheme_of("S3A://bucket/a.wav"), scheme_of("/a:b.wav"), scheme_of("a.wav")
    ('s3a', '', '')
    """
    match = _SCHEME.match(uri)
    return match[1].lower() if match is not None else ""


def is_remote(path: str) -> bool:
    """Whether a title's path is the URI of an object; else it is a local path, which begins with a slash."""
    return scheme_of(path) in SCHEMES


def path_of(uri: str) -> str | None:
    """What to open for a title's URI as the table tracks has it; None where it is not to be opened from here.

    >>> path_of("file:///a%20b.wav"), path_of("s3a://bucket/a b.wav"), path_of("https://host/a.wav")
    ('/a%20b.wav', 's3a://bucket/a b.wav', None)
    """
    if uri.startswith("file://"):
        return uri.removeprefix("file://")
    return uri if is_remote(uri) and not has_credentials(uri) else None


def redacted(uri: str) -> str:
    """A URI without the user, password, key or signature that it carries, as it may be stored and shown.

    >>> redacted("s3://me:pa/ss@bucket/a.wav"), redacted("https://host/a.wav?X-Amz-Signature=1f&part=2")
    ('s3://***@bucket/a.wav', 'https://host/a.wav?X-Amz-Signature=***&part=2')
    >>> redacted("abfss://container@account.dfs.core.windows.net/a@b.wav"), redacted("s3://bucket/a@b: c?.wav")
    ('abfss://container@account.dfs.core.windows.net/a@b.wav', 's3://bucket/a@b: c?.wav')
    """
    match = _SCHEME.match(uri)
    if match is None or match[1].lower() == "file":
        return uri
    start, rest = match[0], uri[match.end() :]
    host = rest.partition("/")[0]
    user, at, _ = host.rpartition("@")
    # A secret may hold slashes, so that its @ comes later than the authority's end.
    cut_off = not at and ":" in host and not re.fullmatch(r"[^:]*:\d*|\[.*", host)
    if cut_off or ":" in user or (at and not start.lower().startswith("abfs")):
        rest = "***" + "".join(rest.rpartition("@")[1:]) if "@" in rest else "***"
    return start + _SECRET_PARAMETER.sub(r"\1***", rest)


def has_credentials(uri: str) -> bool:
    """Whether a URI carries what `redacted` takes out."""
    return redacted(uri) != uri


def status(uri: str) -> Status:
    """Size and time of an object.

    Raises:
        MediaError: not_found, not_a_file, unreadable, storage_error.
    """
    with _explained():
        file_system, path = _located(uri)
        return _checked(file_system.get_file_info(path))


def is_folder(uri: str) -> bool:
    """Whether there are objects below a URI.

    Raises:
        MediaError: unreadable, storage_error.
    """
    with _explained():
        file_system, path = _located(uri)
        return bool(file_system.get_file_info(path).type.name == "Directory")


def listing(uri: str) -> list[tuple[str, Status]]:
    """All objects below a folder: key relative to the folder, as it is, and status; sorted.

    Raises:
        MediaError: not_found, unreadable, storage_error.
    """
    from pyarrow.fs import FileSelector

    with _explained():
        file_system, path = _located(uri.rstrip("/"))
        found = file_system.get_file_info(FileSelector(path, recursive=True))
        root = path.rstrip("/") + "/"
        return sorted((info.path.removeprefix(root), _checked(info)) for info in found if info.is_file)


@contextlib.contextmanager
def local_copy(path: str) -> Iterator[str]:
    """A title's local path, encoded; an object is fetched first and kept until another is asked for.

    Args:
        path: local path as `udfs.decoder.encode_path` writes it, or the URI of an object.

    Raises:
        MediaError: not_found, not_a_file, unreadable, no_space, storage_error.
    """
    if not is_remote(path):
        yield path
        return
    with _lock:
        copy = _fetched(path)
        copy.users += 1
    try:
        yield quote_from_bytes(os.fsencode(copy.file.name), safe="/")
    finally:
        with _lock:
            copy.users -= 1
            if copy is not _kept and copy.users == 0:
                copy.file.close()


def drop_copy() -> None:
    """Delete the copy that is kept, unless it is in use."""
    global _kept
    with _lock:
        if _kept is not None and _kept.users == 0:
            _kept.file.close()
        _kept = None


atexit.register(drop_copy)


def _fetched(uri: str) -> _Copy:
    global _kept
    with _explained():
        file_system, path = _located(uri)
        found = _checked(file_system.get_file_info(path))
    if _kept is not None and _kept.key == (uri, found) and os.path.exists(_kept.file.name):
        return _kept
    if _kept is not None and _kept.users == 0:
        _kept.file.close()  # before the next one: a node has room for a film, not always for two
    _kept = None
    folder = _scratch_folder()
    _sweep(folder)
    free = shutil.disk_usage(folder).free
    if free - found.size_bytes < FREE_BYTES:
        raise MediaError(
            "no_space",
            f"expected room for a copy of {found.size_bytes / 1e6:.0f} MB in {folder}, found {free / 1e6:.0f} MB "
            f"({FREE_BYTES / 1e6:.0f} MB stay free); make room or set spark.local.dir",
        )
    file: Any = tempfile.NamedTemporaryFile(prefix=_PREFIX, dir=folder)  # noqa: SIM115 - it outlives this function
    try:
        fcntl.flock(file, fcntl.LOCK_EX)  # tells other workers that this one lives
        with _explained():
            with file_system.open_input_stream(path) as stream:
                while block := stream.read(_BLOCK_BYTES):
                    file.write(block)
            file.flush()
            now = _checked(file_system.get_file_info(path))
        if now != found or os.fstat(file.fileno()).st_size != found.size_bytes:
            raise MediaError("storage_error", "the object changed while it was fetched; scan it again")
    except BaseException:
        file.close()
        raise
    _kept = _Copy((uri, found), file)
    return _kept


def _scratch_folder() -> str:
    """Of Spark's folders, which go away with the application, the one with most room; else the system's own."""
    folders = [path for path in os.environ.get("SPARK_LOCAL_DIRS", "").split(",") if os.path.isdir(path)]
    return max(folders, key=lambda path: shutil.disk_usage(path).free, default=tempfile.gettempdir())


def _sweep(folder: str) -> None:
    """Delete copies whose worker was killed: nobody locks them any more."""
    for name in os.listdir(folder):
        if not name.startswith(_PREFIX):
            continue
        path = os.path.join(folder, name)
        with contextlib.suppress(OSError), open(path, "rb") as file:
            if os.fstat(file.fileno()).st_mtime < time.time() - _SWEEP_AFTER_S:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)


def _located(uri: str) -> tuple[Any, str]:
    """The file system of a URI and the object's path in it. Keys are taken as they are: a %, ? or # means itself."""
    match = _SCHEME.match(uri)
    assert match is not None
    authority, _, key = uri[match.end() :].partition("/")
    scheme = SCHEMES[match[1].lower()]
    if not authority and scheme in ("hdfs", "viewfs"):
        authority = "default"  # the cluster's own, as Hadoop's configuration names it
    file_system, root = _file_system(scheme, authority)
    return file_system, f"{root.rstrip('/')}/{key}"


@functools.lru_cache(maxsize=16)
def _file_system(scheme: str, authority: str) -> tuple[Any, str]:
    from pyarrow.fs import FileSystem

    # Not the whole URI: pyarrow would take a key's ? for settings, among them the server to ask.
    return FileSystem.from_uri(f"{scheme}://{authority}")


def _checked(info: Any) -> Status:
    if info.type.name == "NotFound":
        raise MediaError("not_found", "the object does not exist (any more)")
    if not info.is_file:
        raise MediaError("not_a_file", "expected an object, found a folder")
    return Status(info.size, info.mtime_ns)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn a storage's errors into those of titles."""
    try:
        yield
    except FileNotFoundError as error:
        raise MediaError("not_found", "the object does not exist (any more)") from error
    except (OSError, ValueError) as error:
        text = _SECRET_PARAMETER.sub(r"\1***", re.sub(r" \(Request ID: [^)]*\)", "", describe(error)))
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise MediaError("no_space", "the disk for copies became full; make room or set spark.local.dir") from error
        if "NO_SUCH_BUCKET" in text:
            raise MediaError("not_found", f"the bucket does not exist: {text}") from error
        if isinstance(error, ValueError | PermissionError) or _DENIED.search(text):
            raise MediaError("unreadable", f"the object cannot be opened: {text}") from error
        raise MediaError("storage_error", f"the storage failed: {text}") from error
