"""What a report shows, and how text of files and people gets into its page: escaped."""

import html
import unicodedata
from dataclasses import dataclass, field
from typing import Any

from jobs.report_media import Score, Window

MOST_ROWS = 500  # of the tables of rejected titles and of line-up tones
_ZERO_WIDTH_JOINERS = "\u200c\u200d"  # Persian and emoji need them


@dataclass
class Entry:
    """One detection as the page shows it.

    Args:
        number: place in the report, from 1.
        detection: row of `detections`, with verdict, cause, reviewer, note and reviewed_at.
        track: row of `tracks`; empty where there is none.
        scores: of its segments, in order.
        shown: time axis.
        clip: what the clip holds, if there is one.
        event: of a brief one the strongest of its events, else all of it.
        notes: what else to say of it.
        warnings: what is missing, and why.
        picture: source of the picture; None where there is none.
        audio: source of the clip; None where there is none.
        close_up: the waveform where its strongest event begins, HTML; empty where it lasts long enough to be seen without.
    """

    number: int
    detection: dict[str, Any]
    track: dict[str, Any]
    scores: list[Score]
    shown: Window
    clip: Window
    event: Window
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    picture: str | None = None
    audio: str | None = None
    close_up: str = ""

    @property
    def key(self) -> str:
        """Names the detection in the page's memory: a newer report of the same audio finds its verdicts again."""
        row = self.detection
        return "|".join(str(row[name]) for name in ("content_hash", "defect", "start_s", "end_s", "track", "title_id"))


@dataclass
class Report:
    """All that the page shows besides the detections.

    Args:
        name: names the report in the browser's memory.
        heading: what it is of.
        facts: label and value, in order.
        models: name/version, digest and device, one row a model.
        rates: rows of the analysis `rates`.
        troubles: rows of `tracks` that are rejected or partial, at most one more than `MOST_ROWS`.
        line_up: rows of the query `line_up`, likewise.
        precision: rows of the analysis `precision`.
        remarks: how to read the report.
        warnings: what is missing in it.
        causes: by verdict.
    """

    name: str
    heading: str
    facts: list[tuple[str, str]]
    models: list[tuple[str, str | None, str | None]]
    rates: list[dict[str, Any]]
    troubles: list[dict[str, Any]]
    line_up: list[dict[str, Any]]
    precision: list[dict[str, Any]]
    remarks: list[str]
    warnings: list[str]
    causes: dict[str, tuple[str, ...]]


def shown(value: Any) -> str:
    r"""Text for HTML: markup escaped, and what would hide or reverse a name written out.

    Example:
        >>> shown('<b>"a"' + chr(0x202E) + chr(7))
        '&lt;b&gt;&quot;a&quot;\\u202e\\x07'
    """
    return html.escape("".join(map(_visible, str(value))))


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category not in ("Cc", "Cf", "Cs", "Zl", "Zp") or character in _ZERO_WIDTH_JOINERS:
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
