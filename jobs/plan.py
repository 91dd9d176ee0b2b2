"""Decides what a scan has to do: which tracks with which models, cut into which spans.

Pure functions over plain values; nothing here touches Spark or files.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jobs.catalogue import Title
from udfs.decoder import ACCIDENTS
from udfs.media import TrackInfo, is_cut_short
from udfs.schemas import TRACKS

INCOMPLETE = "incomplete"  # `jobs/maintain.py --mend` found segments missing
# What may have mended itself without the file changing; such titles are tried again by every scan.
TRANSIENT = ACCIDENTS | {"not_found", "unreadable", "storage_error", "no_space", INCOMPLETE}
# Of them, what says nothing of the title itself: what is known of it stays.
OUTAGES = frozenset({"storage_error", "no_space", "unreadable"})
_DELTA_FORBIDDEN = str.maketrans(dict.fromkeys(" ,;{}()\n\t=", "_"))


@dataclass(frozen=True, slots=True)
class KnownTrack:
    """A row of the table `tracks`, as far as planning needs it; a catalogue may have millions."""

    title_id: str
    track: int | None
    uri: str
    content_hash: str | None
    status: str
    error_code: str | None
    size_bytes: int | None
    modified_us: int | None
    duration_s: float
    decoded_s: float
    error: str | None
    scored_with: frozenset[str]


@dataclass
class PlannedTrack:
    """A track to score, or to record as rejected or as renewed (the same content in a touched file).

    Args:
        row: what `tracks` will receive, before the outcome of scoring.
        spans: (start_s, end_s) pieces to score; the last one is open-ended.
        info: None where the file could not be opened.
        models: keys of the models that have not scored this content.
        is_again: this content may have been scored before (in part, or before the file was away or was another for a
            while), and what came of it is to be replaced.
        equal: the track whose scores are taken, its file being the same.
    """

    row: dict[str, Any]
    spans: list[tuple[float, float]] = field(default_factory=list)
    info: TrackInfo | None = None
    models: tuple[str, ...] = ()
    is_again: bool = False
    equal: "Equal | None" = None

    @property
    def channel_s(self) -> float:
        """Seconds of audio times channels, to be scored for this very track."""
        if self.equal is not None:
            return 0.0
        return self.info.duration_s * max(1, self.info.channels) if self.info is not None else 0.0


@dataclass
class TitlePlan:
    """All there is to do for one title."""

    title: Title
    tracks: list[PlannedTrack]
    gone: list[tuple[str, int | None]]  # rows of `tracks` that the title no longer has
    done: list[KnownTrack | TrackInfo]  # tracks that need nothing
    seen_before: bool


@dataclass(frozen=True)
class Equal:
    """Where the scores of a track come from whose file is another title's, too.

    Args:
        title_id: that title.
        track: its track.
        is_stored: whether they are in `segments`; else they come with the same chunk.
    """

    title_id: str
    track: int
    is_stored: bool


class _Scored(NamedTuple):
    """A track whose scores are in `segments`, all of them."""

    title_id: str
    track: int
    models: frozenset[str]
    decoded_s: float


class EqualTracks:
    """Finds tracks of which another title's file is a copy: the same packets at the same place of a file of one size.

    The packets alone do not do: another container may begin at another time, and what counts is the title's. Where a header
    announces more than there is, that is a finding, and a copy is what announces the same.
    """

    def __init__(self) -> None:
        self._scored: dict[tuple[Any, ...], _Scored] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """Note a row of `tracks` that was scored from end to end without a complaint."""
        if row["content_hash"] is None or row["size_bytes"] is None or _announced_s(row) is not None:
            return
        models = frozenset(row["scored_with"])
        known = self._scored.get(_file_key(row))
        if known is not None and known.title_id == row["title_id"]:
            models |= known.models
        elif known is not None and known.models >= models:
            return
        self._scored[_file_key(row)] = _Scored(row["title_id"], row["track"], models, row["decoded_s"])

    def find(self, plans: list[TitlePlan]) -> None:
        """Set `equal` of the tracks to score; some of them are scored for others of the same plans."""
        here: dict[tuple[Any, ...], Equal] = {}
        for plan in plans:
            for track in plan.tracks:
                track.equal = None
                row = track.row
                if not track.spans or row["size_bytes"] is None:
                    continue
                known = self._scored.get(_file_key(row))
                if known is not None and known.title_id != row["title_id"] and known.models >= set(track.models):
                    track.equal = Equal(known.title_id, known.track, is_stored=True)
                    row |= {"status": "ok", "error_code": None, "error": None, "decoded_s": known.decoded_s}
                    continue
                mine = Equal(row["title_id"], row["track"], is_stored=False)
                source = here.setdefault((*_file_key(row), track.models), mine)
                if source != mine:
                    track.equal = source


def _file_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["content_hash"], row["track"], row["size_bytes"], row["duration_s"], _announced_s(row)


def _announced_s(row: Mapping[str, Any]) -> float | None:
    """What the header announces, where that is more than there is."""
    announced_s = row.get("declared_s")
    return announced_s if is_cut_short(announced_s, row["duration_s"]) else None


def _outcome(known: KnownTrack) -> dict[str, Any]:
    """What came of scoring a track, for a row whose content is the same."""
    return {name: getattr(known, name) for name in ("status", "error_code", "error", "decoded_s")}


def is_unchanged(title: Title, known: list[KnownTrack], models: Iterable[str]) -> bool:
    """Whether a title needs not even be opened: same file, all its tracks done with all models."""
    wanted = set(models)
    return bool(known) and all(
        _is_same_file(title, track)
        and track.error_code not in TRANSIENT
        and (wanted <= track.scored_with or track.track is None)
        for track in known
    )


def _is_same_file(title: Title, track: KnownTrack) -> bool:
    return (
        track.uri == title.uri
        and track.size_bytes == title.size_bytes
        and title.modified_ns is not None
        and track.modified_us == title.modified_ns // 1000
    )


def plan_title(
    title: Title,
    found: list[TrackInfo] | tuple[str, str],
    known: list[KnownTrack],
    models: tuple[str, ...],
    span_s: int,
    from_start_span_s: int,
    beside: tuple[str, ...] = (),
) -> TitlePlan:
    """Compare what a title holds with what is known of it.

    Args:
        title: the catalogue's entry.
        found: its audio tracks, or (error code, message) where it could not be opened.
        known: its rows in `tracks`.
        models: keys (name/version) of the models to apply.
        span_s: length of spans.
        from_start_span_s: length of spans of tracks that are decoded from the title's start.
        beside: keys of detectors that come along where a model is to be applied, and for which alone nothing is decoded.
    """
    by_track = {track.track: track for track in known}
    tracks: list[PlannedTrack] = []
    done: list[KnownTrack | TrackInfo] = []
    if isinstance(found, tuple):
        code, message = found
        row = _row(title, None) | {"status": "rejected", "error_code": code, "error": message}
        tracks.append(PlannedTrack(row))
        kept: set[int | None] = {None}
    else:
        kept = {info.track for info in found}
        for info in found:
            before = by_track.get(info.track)
            row = _row(title, info)
            is_same = before is not None and before.content_hash == info.content_hash
            is_unfinished = is_same and before is not None and before.error_code in TRANSIENT
            scored = before.scored_with if before is not None and is_same and not is_unfinished else frozenset()
            missing = tuple(key for key in models if key not in scored)
            is_again = is_unfinished or (bool(known) and not is_same)
            if is_same and not missing and before is not None:
                done.append(before)
                if title.modified_ns is not None and not _is_same_file(title, before):
                    # Same content under another date or path: noted, or every later scan would read it all again.
                    tracks.append(PlannedTrack({**row, **_outcome(before), "is_renewed": True}))
                continue
            missing += tuple(key for key in beside if key not in scored)
            row["scored_with"] = sorted(missing)
            if info.error_code is not None:
                row |= {"status": "rejected", "error_code": info.error_code, "error": info.error, "decoded_s": 0.0}
                tracks.append(PlannedTrack(row))
                continue
            length_s = span_s if info.can_seek else from_start_span_s
            tracks.append(PlannedTrack(row, cut_spans(info.duration_s, length_s), info, missing, is_again))
    gone = [(title.title_id, track.track) for track in known if track.track not in kept]
    return TitlePlan(title, tracks, gone, done, bool(known))


def _row(title: Title, info: TrackInfo | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "title_id": title.title_id,
        "uri": title.uri,
        "size_bytes": title.size_bytes,
        "modified_ns": title.modified_ns,
        "status": "ok",
        "error_code": None,
        "error": None,
        "scored_with": [],
        "columns": own_columns(title.columns),
        "track": None,
        "decoded_s": 0.0,
        "language": _text(title.columns.get("language")),
    }
    if info is not None:
        row |= {
            "content_hash": info.content_hash,
            "track": info.track,
            "codec": info.codec,
            "container": info.container,
            "language": info.language if info.language not in (None, "", "und") else row["language"] or info.language,
            "sample_rate_hz": info.sample_rate_hz,
            "channels": info.channels,
            "channel_layout": info.channel_layout,
            "duration_s": info.duration_s,
            "declared_s": info.declared_s,
            "encrypted_share": info.encrypted_share,
            "begins_s": info.begins_s,
            "beyond_s": info.beyond_s,
            "ends_midway": info.ends_midway,
        }
    return row


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def own_columns(columns: dict[str, Any]) -> dict[str, Any]:
    """The catalogue's own columns under names that the table `tracks` has room for.

    >>> own_columns({"genre": "jazz", "status": "new", "Original title": "X", "Genre": "Bop"})
    {'genre': 'jazz', 'catalogue_status': 'new', 'Original_title': 'X', 'catalogue_Genre': 'Bop'}
    """
    taken = {name.lower() for name in TRACKS.names}
    renamed: dict[str, Any] = {}
    for name, value in columns.items():
        plain = str(name).translate(_DELTA_FORBIDDEN) or "_"
        if plain.lower() in taken:
            plain = f"catalogue_{plain}"
        while plain.lower() in taken:
            plain += "_"
        taken.add(plain.lower())
        renamed[plain] = value
    return renamed


def cut_spans(duration_s: float, span_s: int) -> list[tuple[float, float]]:
    """Whole-second spans that tile the track; the last is open-ended, since durations may be understated.

    >>> cut_spans(1300.5, 600)
    [(0.0, 600.0), (600.0, inf)]
    >>> cut_spans(0.0, 600)
    [(0.0, inf)]
    """
    # A rest shorter than half a span joins the span before it.
    count = max(1, math.floor(duration_s / span_s + 0.5))
    edges = [float(number * span_s) for number in range(count)]
    return list(zip(edges, [*edges[1:], math.inf], strict=True))
