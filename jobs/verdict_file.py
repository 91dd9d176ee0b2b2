"""A CSV of people's verdicts: read and checked, and told apart from what was taken in before.

A verdict is a dictionary: the columns of `udfs.schemas.REVIEWS`, the number of its line, and is_dated: whether the line
itself says when it was said. Lines that do not are of the file's own time.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from jobs import csv_table
from jobs.launch import AuscultError

Verdict = dict[str, Any]

NEEDED = ("defect", "start_s", "end_s", "verdict")
CLOCK_DIFFERENCE = timedelta(minutes=5)  # between the machine that stamped a verdict and this one
NOTHING_IMPORTED = "nothing was imported"


class Sifted(NamedTuple):
    """Verdicts of a file beside those that are stored.

    Args:
        fresh: to be stored.
        overtaken: undated lines whose verdict their reviewer has given before and taken back since, each with the verdict
            that holds now.
    """

    fresh: list[Verdict]
    overtaken: list[tuple[Verdict, str]]


def vocabulary(path: Path) -> dict[str, tuple[str, ...]]:
    """Causes by verdict.

    Raises:
        AuscultError: the file is not readable, or its verdicts are others than the precision analysis counts.
    """
    try:
        found = yaml.safe_load(path.read_text())
        causes = {str(verdict): tuple(map(str, its_causes)) for verdict, its_causes in found.items()}
    except (OSError, AttributeError, TypeError, yaml.YAMLError) as error:
        raise AuscultError(f"vocabulary {path}: expected a list of causes for each verdict: {error}") from error
    expected = {"genuine", "creative_intent", "false_positive", "unsure"}
    if set(causes) != expected:
        raise AuscultError(f"vocabulary {path}: expected the verdicts {sorted(expected)}, found {sorted(causes)}")
    return causes


def read_verdicts(path: Path, causes: dict[str, tuple[str, ...]], reviewer: str | None) -> list[Verdict]:
    """Verdicts of a CSV, checked; lines without a verdict are left out.

    Args:
        path: a file as `jobs.csv_table` reads it, with the columns defect, start_s, end_s, verdict and content_hash or
            title_id and track; optionally cause, note, reviewer, reviewed_at (ISO 8601, UTC unless it names a zone; else
            the file's own time). Others are ignored: a filled-in queue can be read back.
        causes: see `vocabulary`.
        reviewer: for lines that name none.

    Raises:
        AuscultError: what is wrong, with the line; nothing is taken in then.
    """
    try:
        columns, lines = csv_table.read(path)
    except (OSError, ValueError) as error:
        raise AuscultError(f"verdicts {path}: {error}") from error
    if missing := [name for name in NEEDED if name not in columns]:
        raise AuscultError(f"verdicts {path}: expected the columns {', '.join(NEEDED)}; {', '.join(missing)} not there")
    if "content_hash" not in columns and not {"title_id", "track"} <= set(columns):
        raise AuscultError(f"verdicts {path}: expected a column content_hash, or title_id and track")
    rows = []
    now = datetime.now(UTC)
    written_at = min(datetime.fromtimestamp(path.stat().st_mtime, UTC), now)  # of a file from a machine that is ahead
    for number, line in lines:
        if not (line["verdict"] or "").strip():
            continue
        try:
            rows.append({**_verdict(line, causes, reviewer, written_at, now), "line": number})
        except ValueError as error:
            raise AuscultError(f"verdicts {path}, line {number}: {error}; {NOTHING_IMPORTED}") from error
    check_agreement(path, rows)
    return rows


def _verdict(
    line: dict[str, str | None],
    causes: dict[str, tuple[str, ...]],
    reviewer: str | None,
    written_at: datetime,
    now: datetime,
) -> Verdict:
    def text(name: str) -> str | None:
        return (line.get(name) or "").strip() or None

    verdict, cause, who = text("verdict"), text("cause"), csv_table.plain(text("reviewer")) or reviewer
    if verdict not in causes:
        raise ValueError(f"verdict: expected one of {', '.join(causes)}, found {verdict!r}")
    if cause is not None and cause not in causes[verdict]:
        raise ValueError(f"cause of {verdict}: expected one of {', '.join(causes[verdict])}, found {cause!r}")
    if who is None:
        raise ValueError("reviewer: expected a name, in the column reviewer or by --reviewer")
    if text("defect") is None:
        raise ValueError("defect: expected a label, found nothing")
    start_s, end_s = (csv_table.number(text(name) or "nan") for name in ("start_s", "end_s"))
    if not 0 <= start_s < end_s:
        raise ValueError(f"expected 0 <= start_s < end_s, found {start_s:g} and {end_s:g}")
    if not math.isfinite(end_s):
        raise ValueError(f"end_s: expected seconds from the title's zero, found {end_s:g}")
    title_id, track, content_hash = text("title_id"), _track(text("track")), text("content_hash")
    if content_hash is None and (title_id is None or track is None):
        raise ValueError("expected a content_hash, or title_id and track, found neither")
    when = text("reviewed_at")
    return {
        "content_hash": content_hash,
        "defect": text("defect"),
        "start_s": start_s,
        "end_s": end_s,
        "verdict": verdict,
        "cause": cause,
        "reviewer": who,
        "note": csv_table.plain(text("note")),
        "reviewed_at": written_at if when is None else _time(when, now),
        "title_id": title_id,
        "track": track,
        "is_dated": when is not None,
    }


def _track(text: str | None) -> int | None:
    if text is None:
        return None
    track = csv_table.number(text)  # tables with an empty cell somewhere in the column are saved with 1.0
    if not (track >= 0 and track.is_integer()):
        raise ValueError(f"track: expected a number of an audio track, from 0, found {text!r}")
    return int(track)


def _time(text: str, now: datetime) -> datetime:
    try:
        at = datetime.fromisoformat(text)
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"reviewed_at: expected a time such as 2026-03-01T10:00:00+01:00 or none, found {text!r}"
        ) from error
    if at > now + CLOCK_DIFFERENCE:  # it would win over all that is said until then
        raise ValueError(
            f"reviewed_at: expected a time that has passed, found {text}, and it is {now:%Y-%m-%dT%H:%M:%SZ}; times "
            "without a zone are taken for UTC"
        )
    return at


def check_agreement(path: Path, rows: Iterable[Verdict]) -> None:
    """See that no reviewer says two things of one stretch at one time: nothing would tell which of them holds.

    Args:
        path: for the message.
        rows: verdicts; of those without a content_hash, title and track tell which sound they are of.

    Raises:
        AuscultError: naming both lines.
    """
    said: dict[tuple[Any, ...], list[Verdict]] = defaultdict(list)
    for row in rows:
        before = said[(*_stretch(row), row["reviewed_at"])]
        if (other := next((one for one in before if _contradict(one, row)), None)) is not None:
            raise AuscultError(
                f"verdicts {path}, lines {other['line']} and {row['line']}: {row['reviewer']} says {_said(other)} and "
                f"{_said(row)} of {_place(row)}, both at {row['reviewed_at'].isoformat()}; keep one of them, or give each "
                f"the reviewed_at when it was said; {NOTHING_IMPORTED}"
            )
        before.append(row)


def sift(path: Path, rows: Iterable[Verdict], stored: Iterable[Verdict]) -> Sifted:
    """Tell apart what a file says anew.

    A line that says when is new unless that very statement is stored. A line that does not is of a list that somebody
    keeps and brings in again and again: what it repeats was said when it was first taken in, and not again with each
    writing of the file, or it would undo what its reviewer has corrected elsewhere since.

    Args:
        path: for messages.
        rows: verdicts of a file, all with their content_hash.
        stored: rows of the table reviews, at least all of the same content.

    Raises:
        AuscultError: a reviewer has said something else of the same stretch at the same time, with the line.
    """
    known: dict[tuple[Any, ...], list[Verdict]] = defaultdict(list)
    for row in stored:
        known[_stretch(row)].append(row)
    fresh: dict[tuple[Any, ...], list[Verdict]] = defaultdict(list)
    overtaken = []
    for row in rows:
        mine = known[_stretch(row)]
        if not row["is_dated"] and (latest := _taken_back(row, mine)) is not None:
            overtaken.append((row, latest))
            continue
        ours = fresh[_stretch(row)]
        then = [one for one in (*mine, *ours) if one["reviewed_at"] == row["reviewed_at"]]
        if any(_words(one) == _words(row) for one in (then if row["is_dated"] else [*mine, *then])):
            continue
        if (other := next((one for one in then if _contradict(one, row)), None)) is not None:
            raise AuscultError(
                f"verdicts {path}, line {row['line']}: {row['reviewer']} says {_said(row)} of {_place(row)}, and "
                f"{_said(other)} is stored as said at that very time, {row['reviewed_at'].isoformat()}; give the line the "
                f"reviewed_at of the correction, or leave that empty; {NOTHING_IMPORTED}"
            )
        ours.append(row)
    return Sifted([row for its in fresh.values() for row in its], overtaken)


def _taken_back(row: Verdict, mine: list[Verdict]) -> str | None:
    """The verdict that holds now, where a reviewer's stored verdicts say that the row's was given once; else None."""
    if all(one["verdict"] != row["verdict"] for one in mine):
        return None
    latest = max(mine, key=lambda one: (one["reviewed_at"], one["verdict"] == row["verdict"]))
    return None if latest["verdict"] == row["verdict"] else str(latest["verdict"])


def _stretch(row: Verdict) -> tuple[Any, ...]:
    content = row["content_hash"] or (row["title_id"], row["track"])
    return content, row["defect"], row["start_s"], row["end_s"], row["reviewer"]


def _words(row: Verdict) -> tuple[Any, ...]:
    return row["verdict"], row["cause"], row["note"]


def _contradict(one: Verdict, other: Verdict) -> bool:
    causes = {one["cause"], other["cause"]} - {None}
    return one["verdict"] != other["verdict"] or len(causes) > 1


def _said(row: Verdict) -> str:
    return row["verdict"] if row["cause"] is None else f"{row['verdict']} ({row['cause']})"


def _place(row: Verdict) -> str:
    return f"{row['defect']} at {row['start_s']:g} to {row['end_s']:g} s"
