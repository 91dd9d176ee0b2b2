"""Detections as text that other tools open: CSV, JSON, Audacity labels and edit decision lists with markers.

A row is a detection as a dictionary: the columns of `udfs.schemas.DETECTIONS` but scan_id, the latest verdict on it
(verdict, cause, reviewer, note, reviewed_at as text; None where nobody has looked) and what is known of its track.
Text in it comes from file names and from strangers: each writer says what it does about that.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from jobs import csv_table
from jobs.timecode import Timeline, frames_to_timecode

Row = dict[str, Any]

UNREVIEWED = "unreviewed"
TRACK_COLUMNS = ("uri", "codec", "language", "channel_layout", "sample_rate_hz", "duration_s", "status", "error")
DETECTION_COLUMNS = (
    "content_hash", "defect", "start_s", "end_s", "detected_s", "peak_score", "channels", "model", "model_version",
    "threshold", "min_detected_s", "window_s", "verdict", "cause", "reviewer", "note", "reviewed_at",
)  # fmt: skip
# What editing systems know as marker colours.
COLOURS = {
    "genuine": "RED",
    UNREVIEWED: "YELLOW",
    "unsure": "MAGENTA",
    "creative_intent": "CYAN",
    "false_positive": "GREEN",
}
LONGEST_STEM = 80
LONGEST_EDL_TEXT = 200


@dataclass(frozen=True)
class Handover:
    """What all files of one hand-over share.

    Args:
        created_at: when, ISO 8601 with zone.
        tool_version: version of this project.
        timeline: frame rate and start timecode of the picture; None where nobody named one.
    """

    created_at: str
    tool_version: str
    timeline: Timeline | None = None


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Rows by title, track and time."""
    keys = ("title_id", "track", "start_s", "end_s", "defect", "model", "model_version")
    return sorted(rows, key=lambda row: tuple(row[key] for key in keys))


def by_track(rows: Iterable[Row]) -> dict[tuple[str, int], list[Row]]:
    """Rows of each title and track, in order."""
    key = ("title_id", "track")
    return {
        (title, track): list(its)
        for (title, track), its in groupby(in_order(rows), lambda row: tuple(row[name] for name in key))
    }


def file_stem(title_id: str) -> str:
    """A file name for a title that no other title has, on file systems that ignore case too.

    What is readable of the title comes first, cut short; the first 64 bits of its SHA-256 tell titles apart, whatever
    other titles the hand-over holds.

    Args:
        title_id: any text, of any length.

    Examples:
        >>> file_stem("reel 2/Ä film.mkv")
        'reel_2_film_mkv-7eff4778780ab942'
        >>> file_stem("a/b") == file_stem("a_b")
        False
    """
    # No dots: some systems keep names such as CON.anything for themselves.
    readable = re.sub(r"[^0-9A-Za-z\-]+", "_", title_id)[:LONGEST_STEM].strip("_-")
    exact = hashlib.sha256(title_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{readable or 'title'}-{exact}"


def one_line(text: str) -> str:
    r"""Text without line breaks, tabs, other control characters and what no encoding can hold.

    Examples:
        >>> one_line(" a\tb\r\n\x07c\u2028d")
        'a b c d'
    """
    text = re.sub(r"[\ud800-\udfff]", "\ufffd", text)
    return re.sub(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+", " ", text).strip()


def describe(row: Row) -> str:
    """A detection in one line: defect, score, channels, verdict, cause.

    Examples:
        >>> row = {"defect": "hum", "peak_score": 0.973, "channels": ["FL", "FR"], "verdict": None, "cause": None}
        >>> describe(row)
        'hum 0.97 FL FR unreviewed'
        >>> describe(row | {"verdict": "creative_intent", "cause": "vinyl"})
        'hum 0.97 FL FR creative_intent (vinyl)'
    """
    verdict = row["verdict"] or UNREVIEWED
    cause = f" ({row['cause']})" if row["cause"] else ""
    channels = "".join(f" {channel}" for channel in row["channels"] or ())
    return one_line(f"{row['defect']} {row['peak_score']:.2f}{channels} {verdict}{cause}")


def csv_text(rows: Iterable[Row], timeline: Timeline | None = None) -> str:
    """One table of all detections, with a header; RFC 4180.

    Times are seconds from the title's zero, beside start_timecode and end_timecode where there is a timeline. Text that
    a spreadsheet would take for a formula gets an apostrophe in front: the exact text is in the JSON. Columns are named
    as in the tables, so that `jobs/review.py import` reads the file with verdicts filled in.
    """
    detection = list(DETECTION_COLUMNS)
    if timeline is not None:
        place = detection.index("end_s") + 1
        detection[place:place] = ["start_timecode", "end_timecode"]
    columns = ["title_id", "track", *detection, *TRACK_COLUMNS]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(columns)
    for row in in_order(rows):
        writer.writerow([csv_table.cell(_placed(row, timeline).get(name)) for name in columns])
    return out.getvalue()


def _placed(row: Row, timeline: Timeline | None) -> Row:
    if timeline is None:
        return row
    codes = {
        "start_timecode": timeline.timecode(row["start_s"]),
        "end_timecode": timeline.timecode(row["end_s"], up=True),
    }
    return row | codes


def json_text(rows: Iterable[Row], handover: Handover, columns: dict[str, str]) -> str:
    """One document: titles, their tracks, the detections in them. Text in it is exact.

    Args:
        rows: detections.
        handover: what the document says of itself.
        columns: what each column means, with its unit; those that do not occur are left out.
    """
    timeline = handover.timeline
    titles: dict[str, list[Row]] = {}
    names = list(DETECTION_COLUMNS) + (["start_timecode", "end_timecode"] if timeline is not None else [])
    for (title_id, track), its in by_track(rows).items():
        facts = {name: its[0].get(name) for name in TRACK_COLUMNS}
        detections = [{name: _placed(row, timeline).get(name) for name in names} for row in its]
        titles.setdefault(title_id, []).append({"track": track, **facts, "detections": detections})
    used = ("title_id", "track", *TRACK_COLUMNS, *DETECTION_COLUMNS)
    document = {
        "format": "auscult detections",
        "format_version": 1,
        "created_at": handover.created_at,
        "tool": {"name": "auscult", "version": handover.tool_version},
        "columns": {
            **{name: columns[name] for name in used if name in columns},
            "start_timecode": "SMPTE timecode of the frame in which it begins; only with a timeline",
            "end_timecode": "SMPTE timecode of the first frame after it; only with a timeline",
        },
        "timeline": None
        if timeline is None
        else {
            "frame_rate": str(timeline.rate.per_s),
            "is_drop_frame": timeline.rate.is_drop,
            "start_timecode": timeline.timecode(0.0),
        },
        "titles": [{"title_id": title_id, "tracks": tracks} for title_id, tracks in titles.items()],
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def audacity_text(rows: Iterable[Row]) -> str:
    r"""A label file for Audacity's File > Import > Labels: begin, end, text, with tabs between; seconds.

    Args:
        rows: detections in one track.

    Examples:
        >>> row = {"defect": "hum", "peak_score": 0.97, "channels": ["FL"], "verdict": "genuine", "cause": None}
        >>> audacity_text([row | {"start_s": 1.0, "end_s": 2.5}])
        '1.000000\t2.500000\thum 0.97 FL genuine\n'
    """
    return "".join(f"{row['start_s']:.6f}\t{row['end_s']:.6f}\t{describe(row)}\n" for row in rows)


def edl_text(name: str, rows: Sequence[Row], timeline: Timeline) -> str:
    """An edit decision list (CMX 3600) with a marker on every event; ASCII.

    Every occurrence is an event of its own, from the frame in which it begins to the first frame after it. Events on one
    channel of such a list must not overlap: an occurrence that begins before the last one ends goes to channel A2, A3 and
    so on (readers of the old machine's format know four). These are no channels of the sound; those are in the text.

    Args:
        name: of the title and track.
        rows: detections in one track, in order of time.
        timeline: frame rate and start timecode.
    """
    mode = "DROP FRAME" if timeline.rate.is_drop else "NON-DROP FRAME"
    lines = [f"TITLE: {_ascii(name)}", f"FCM: {mode}"]
    free_from: list[int] = []  # frame, by channel
    for number, row in enumerate(rows, start=1):
        first, last = timeline.frames(row["start_s"]), timeline.frames(row["end_s"], up=True)
        last = max(last, first + 1)  # an event without length is none
        begin, end = (frames_to_timecode(frame, timeline.rate) for frame in (first, last))
        lane = next((lane for lane, frame in enumerate(free_from) if frame <= first), len(free_from))
        free_from[lane : lane + 1] = [last]
        channel = "A" if lane == 0 else f"A{lane + 1}"
        colour = COLOURS.get(row["verdict"] or UNREVIEWED, "WHITE")
        lines += [
            f"{number:03d}  AX       {channel:5} C        {begin} {end} {begin} {end}",
            f"* FROM CLIP NAME: {_ascii(row['title_id'])}",
            f"* LOC: {begin} {colour:7} {_ascii(describe(row))}",
        ]
    return "".join(f"{line}\r\n" for line in lines)


def _ascii(text: str) -> str:
    return one_line(text).encode("ascii", "replace").decode()[:LONGEST_EDL_TEXT]
