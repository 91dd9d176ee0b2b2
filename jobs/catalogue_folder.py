"""Finds the titles among the files of a catalogue folder."""

import os
from collections import Counter
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from functools import lru_cache

from jobs.launch import AuscultError
from jobs.settings import ScanSettings
from udfs.decoder import encode_path

_DELTA = "_delta_log"  # what makes a folder a Delta table
DELTA_TABLES = "files of Delta tables"


def files(root: str, settings: ScanSettings, ignored: Counter) -> Iterator[bytes]:
    """Paths of a local folder's titles in it, sorted; what is left out is counted by its reason.

    On bytes: Spark's own listing loses hidden, partition-like and non-UTF-8 names.

    Raises:
        AuscultError: a folder cannot be read: skipping it silently would lose titles.
    """
    folder = os.fsencode(root)
    paths = sorted(_walk(folder, settings, ignored))
    for key in sorted_out([os.fsdecode(os.path.relpath(path, folder)) for path in paths], settings, ignored):
        yield os.fsencode(key)


def sorted_out(keys: list[str], settings: ScanSettings, ignored: Counter) -> Iterator[str]:
    """Those of a catalogue folder's files that are titles, by their paths in it; the others are counted by their reason."""
    present = set(keys)
    tables = _tables(keys)
    for key in keys:
        if tables and any(key.startswith(table) for table in tables):
            ignored[DELTA_TABLES] += 1
        elif reason := _is_no_title(key, present, settings):
            ignored[reason] += 1
        else:
            yield key


def title_ids(keys: Collection[bytes]) -> Iterator[str]:
    r"""A title_id for each path: the path itself, or percent-encoded where it is not UTF-8.

    >>> list(title_ids([b"a%.wav", b"\xff.wav", b"%FF.wav"]))
    ['a%.wav', '%FF.wav', '%25FF.wav']
    """
    encoded = {encode_path(key) for key in keys if not _is_utf8(key)}
    for key in keys:
        plain = readable(key)
        yield encode_path(key) if plain in encoded else plain


def readable(path: bytes) -> str:
    """A path as text, percent-encoded where it is not UTF-8."""
    return path.decode("utf-8") if _is_utf8(path) else encode_path(path)


def _is_utf8(path: bytes) -> bool:
    try:
        path.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _tables(keys: list[str]) -> list[str]:
    """Folders that are Delta tables, or hold those of a scan, as the keys' beginnings."""
    found = {f"/{key}".partition(f"/{_DELTA}/")[0] for key in keys if f"/{_DELTA}/" in key}
    warehouses = {folder.removesuffix("/scans") for folder in found if folder.endswith("/scans")}
    return [f"{folder}/"[1:] for folder in found | (warehouses - {""})]


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


def _walk(folder: bytes, settings: ScanSettings, ignored: Counter, *, is_root: bool = True) -> Iterator[bytes]:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return  # it went since its own folder was listed
    except OSError as error:
        raise AuscultError(f"catalogue: folder {readable(folder)} cannot be read: {error.strerror}") from error
    if not is_root and _holds_tables(folder, {entry.name for entry in entries}):
        ignored[DELTA_TABLES] += sum(len(names) for _, _, names in os.walk(folder))
        return
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False):
            yield entry.path
            continue
        name = os.fsdecode(entry.name)
        # Not entered: snapshots hold the whole catalogue again.
        if _is_system_folder(name, settings.ignored_folders):
            ignored[f"{name}/"] += 1
        else:
            yield from _walk(entry.path, settings, ignored, is_root=False)


def _holds_tables(folder: bytes, names: set[bytes]) -> bool:
    """Whether a folder is a Delta table or a warehouse of scans."""
    delta = _DELTA.encode()
    return delta in names or (b"scans" in names and os.path.isdir(os.path.join(folder, b"scans", delta)))
