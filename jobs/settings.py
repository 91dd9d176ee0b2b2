"""Settings of a scan. conf/scan.yaml holds the same values with the reason for each."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from jobs.launch import AuscultError
from models.runtimes import RUNTIMES


@dataclass(frozen=True)
class OperatingPoint:
    """When a defect counts as detected: at least X seconds of hits within a rolling window of Y seconds.

    Args:
        threshold: score from which a segment is a hit, 0..1.
        min_detected_s: X.
        window_s: Y.
        ignored_channels: channels whose hits do not count, by name.
    """

    threshold: float = 0.9
    min_detected_s: float = 20.0
    window_s: float = 80.0
    ignored_channels: tuple[str, ...] = ()


# Files that accompany media in catalogues and are not titles themselves: texts, pictures (a scanned film is a folder of
# them), subtitles, lists, sums, what discs and editors keep, and what is still being copied.
SIDECARS = (
    ".txt", ".nfo", ".log", ".md", ".pdf", ".rtf", ".doc", ".docx", ".odt", ".xls", ".xlsx", ".ods", ".html", ".url",
    ".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".ico", ".svg", ".tif", ".tiff", ".heic", ".psd", ".dpx",
    ".exr", ".jp2", ".j2c", ".j2k",
    ".srt", ".sub", ".idx", ".sup", ".ass", ".ssa", ".vtt", ".smi", ".ttml", ".dfxp", ".scc", ".stl",
    ".xml", ".json", ".yaml", ".yml", ".csv", ".tsv", ".ini", ".db", ".py", ".zip", ".torrent", ".cue", ".m3u",
    ".m3u8", ".pls", ".xmp", ".edl", ".ale", ".fcpxml",
    ".sfv", ".md5", ".crc", ".sha1", ".sha256", ".sha512", ".mhl", ".par2", ".ifo", ".bup", ".mpls", ".clpi", ".bdmv",
    "assetmap", "volindex",
    ".pek", ".pkf", ".sfk", ".asd", ".reapeaks",
    ".part", ".partial", ".filepart", ".crdownload", ".tmp", ".bak", ".ds_store",
)  # fmt: skip
# Folders that file systems, stores and desktops keep for themselves: waste bins, snapshots, thumbnails.
SYSTEM_FOLDERS = (
    "lost+found", ".snapshot", ".snapshots", ".zfs", "#snapshot", "#recycle", "@eadir", ".trash*", "$recycle.bin",
    "recycler", "system volume information", ".spotlight-v100", ".fseventsd", ".temporaryitems",
    ".documentrevisions-v100", ".appledouble", "__macosx",
)  # fmt: skip
DEFAULT_POINTS = {
    "default": OperatingPoint(),
    "hum": OperatingPoint(threshold=0.94, min_detected_s=6.0, window_s=20.0, ignored_channels=("LFE",)),
    "hiss": OperatingPoint(threshold=0.998, min_detected_s=6.0, window_s=20.0),
    "distortion": OperatingPoint(threshold=0.99, min_detected_s=6.0, window_s=20.0),
    "click": OperatingPoint(threshold=0.95, min_detected_s=4.0, window_s=20.0),
    "clicks/click": OperatingPoint(threshold=0.98, min_detected_s=0.002, window_s=2.0),
    "mp3-glitches/mp3_glitch": OperatingPoint(threshold=0.95, min_detected_s=0.6, window_s=10.0),
    "decoder/packet_error": OperatingPoint(min_detected_s=0.001, window_s=10.0),
    "decoder/time_jump": OperatingPoint(min_detected_s=0.001, window_s=10.0),
    "decoder/missing_audio": OperatingPoint(min_detected_s=0.001, window_s=10.0),
}


@dataclass(frozen=True)
class ScanSettings:
    """See conf/scan.yaml."""

    span_s: int = 600
    from_start_span_s: int = 1800
    chunk_channel_h_per_core: float = 15.0
    probe_titles: int = 1000
    tasks_per_core: int = 3
    batch_segments: int = 64
    decode_timeout_s: float = 120.0
    equal_channels_once: bool = True
    silence_once: bool = True
    equal_titles_once: bool = True
    cpu_runtime: str = "torch"
    max_rejected_share: float = 0.5
    max_crashed_titles: int = 20
    ignored_suffixes: tuple[str, ...] = SIDECARS
    ignored_folders: tuple[str, ...] = SYSTEM_FOLDERS
    operating_points: dict[str, OperatingPoint] = field(default_factory=lambda: dict(DEFAULT_POINTS))

    def operating_point(self, defect: str, model: str = "") -> OperatingPoint:
        """The operating point of a model's defect: its own (`MODEL/DEFECT`), the defect's, or the default one."""
        keys = (f"{model}/{defect}", defect, "default")
        return next(self.operating_points[key] for key in keys if key in self.operating_points)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they are kept in the table `scans`."""
        return dataclasses.asdict(self)


DEFAULTS = ScanSettings()


def read_settings(path: Path | None) -> ScanSettings:
    """Read a YAML file over the defaults.

    Raises:
        AuscultError: the file cannot be read, has an unknown key or a value that makes no sense.
    """
    if path is None:
        return ScanSettings()
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise AuscultError(f"settings {path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise AuscultError(f"settings {path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise AuscultError(f"settings {path}: expected keys and values, found {type(values).__name__}")
    try:
        return _settings(values)
    except ValueError as error:
        raise AuscultError(f"settings {path}: {error}") from error


def _settings(values: dict[str, Any]) -> ScanSettings:
    values = dict(values)
    points = values.pop("operating_points", {})
    if not isinstance(points, dict):
        raise ValueError("operating_points must map defects to threshold, min_detected_s and window_s")
    parsed = _points(points)
    settings: ScanSettings = _checked(ScanSettings(), values, "")
    settings = dataclasses.replace(
        settings,
        operating_points=parsed,
        ignored_suffixes=tuple(suffix.lower() for suffix in settings.ignored_suffixes),
    )
    for name, point in parsed.items():
        if not 0.0 <= point.threshold <= 1.0:
            raise ValueError(f"operating_points.{name}.threshold: expected 0 to 1, found {point.threshold}")
        if not 0.0 < point.min_detected_s <= point.window_s:
            raise ValueError(
                f"operating_points.{name}: expected 0 < min_detected_s <= window_s, "
                f"found {point.min_detected_s:g} and {point.window_s:g}; more cannot fit into the window"
            )
    for name in ("span_s", "from_start_span_s", "probe_titles", "tasks_per_core", "batch_segments"):
        if getattr(settings, name) < 1:
            raise ValueError(f"{name}: expected at least 1, found {getattr(settings, name)}")
    for name in ("chunk_channel_h_per_core", "decode_timeout_s"):
        if getattr(settings, name) <= 0:
            raise ValueError(f"{name}: expected more than 0, found {getattr(settings, name)}")
    if not 0.0 <= settings.max_rejected_share <= 1.0:
        raise ValueError(f"max_rejected_share: expected 0 to 1, found {settings.max_rejected_share:g}")
    if settings.max_crashed_titles < 0:
        raise ValueError(f"max_crashed_titles: expected 0 or more, found {settings.max_crashed_titles}")
    if wrong := [suffix for suffix in settings.ignored_suffixes if "." not in suffix and suffix not in SIDECARS]:
        raise ValueError(f"ignored_suffixes: expected suffixes with their dot, found {wrong[0]!r}; write '.{wrong[0]}'")
    if settings.cpu_runtime not in RUNTIMES:
        raise ValueError(f"cpu_runtime: expected one of {', '.join(RUNTIMES)}, found {settings.cpu_runtime!r}")
    return settings


def _points(points: dict[str, Any]) -> dict[str, OperatingPoint]:
    """Operating points of a file over the shipped ones; what a point leaves out is as without the point."""
    parsed = dict(DEFAULT_POINTS)
    # The default one first, since whoever gives one means it for all that the file does not name; a defect before
    # MODEL/DEFECT, which says how that model differs.
    for key in sorted(points, key=lambda key: (key != "default", "/" in str(key))):
        name, point = str(key), points[key]
        if not isinstance(point, dict):
            raise ValueError(f"operating_points.{name}: expected threshold, min_detected_s and window_s")
        base = next(parsed[other] for other in (name, name.rpartition("/")[2], "default") if other in parsed)
        parsed[name] = _checked(base, point, f"operating_points.{name}.")
        if name == "default":
            for defect, shipped in DEFAULT_POINTS.items():
                if "/" not in defect and defect != name:
                    ignored = point.get("ignored_channels", shipped.ignored_channels)
                    parsed[defect] = dataclasses.replace(parsed[name], ignored_channels=tuple(ignored))
    return {
        name: dataclasses.replace(point, ignored_channels=tuple(channel.upper() for channel in point.ignored_channels))
        for name, point in parsed.items()
    }


def _checked(base: Any, values: dict[str, Any], prefix: str) -> Any:
    """Settings with other values, each of which must have the type of the one before."""
    defaults = {entry.name: getattr(base, entry.name) for entry in dataclasses.fields(base)}
    known = sorted(set(defaults))
    taken: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"unknown key {prefix}{key}; known are {', '.join(known)}")
        default = defaults[key]
        if isinstance(default, tuple) and isinstance(value, list) and all(isinstance(item, str) for item in value):
            taken[key] = tuple(value)
        elif isinstance(default, bool) or isinstance(value, bool):
            if not (isinstance(default, bool) and isinstance(value, bool)):
                raise ValueError(f"{prefix}{key}: expected {type(default).__name__}, found {value!r}")
            taken[key] = value
        elif isinstance(default, float) and isinstance(value, int | float):
            taken[key] = float(value)
            if not math.isfinite(taken[key]):
                raise ValueError(f"{prefix}{key}: expected a number, found {value}")
        elif isinstance(default, int | str) and isinstance(value, type(default)):
            taken[key] = value
        else:
            raise ValueError(f"{prefix}{key}: expected {type(default).__name__}, found {value!r}")
    return dataclasses.replace(base, **taken)
