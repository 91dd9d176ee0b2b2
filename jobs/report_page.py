"""The HTML of a report: pure functions from what was found to text. Whatever comes from files or people is escaped."""

import base64
import hashlib
import html
import json
import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from importlib.resources import files
from typing import Any

from jobs.report_media import Score, Window
from jobs.timecode import clock
from udfs.clips import AXIS_LEFT, AXIS_RIGHT, PICTURE_HEIGHT_PX, PICTURE_WIDTH_PX

DECIDED = ("genuine", "creative_intent", "false_positive")
SCORE_HEIGHT = 92
MOST_ROWS = 500  # of the tables of rejected titles and of line-up tones
MOST_VALUES = 40  # of a facet
_CURVE = (6.0, 62.0)  # top and bottom of the curve
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
        notes: what else to say of it.
        warnings: what is missing, and why.
        picture: source of the picture; None where there is none.
        audio: source of the clip; None where there is none.
    """

    number: int
    detection: dict[str, Any]
    track: dict[str, Any]
    scores: list[Score]
    shown: Window
    clip: Window
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    picture: str | None = None
    audio: str | None = None

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
        line_up: rows of the analysis `line_up`, likewise.
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


def data_uri(kind: str, content: bytes) -> str:
    """A file's content as a URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def page(report: Report, entries: list[Entry], *, is_folder: bool) -> str:
    """The whole page.

    Args:
        report: what it is of.
        entries: detections, in order.
        is_folder: pictures and clips are files beside the page; else inside it.
    """
    style, script = (files("jobs").joinpath(name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    media = "'self' file:" if is_folder else "data:"
    # By digest and not 'unsafe-inline': were a name ever to slip past the escaping, it could still run nothing.
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; img-src {media}; "
        f"media-src {media}; base-uri 'none'; form-action 'none'"
    )
    defects = sorted({str(entry.detection["defect"]) for entry in entries})
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{shown(report.heading)}</title>
<style>{style}</style>
</head>
<body>
{_bar(defects)}
<main>
{_summary(report)}
{_precision(report.precision)}
<section><h2>Detections</h2>
{"".join(f'<p class="warning">{shown(warning)}</p>' for warning in report.warnings)}
{"".join(f'<p class="faint">{shown(remark)}</p>' for remark in report.remarks)}
{"".join(map(article, entries)) or "<p>There is no detection.</p>"}
</section>
</main>
<template id="controls"><div class="controls">
{"".join(f'<button type="button" data-verdict="{verdict}">{words}</button>' for verdict, words in _VERDICTS)}
<select aria-label="cause"></select><input placeholder="note" aria-label="note" maxlength="500">
</div></template>
<script type="application/json" id="data">{_data(report, entries)}</script>
<script>{script}</script>
</body>
</html>
"""


_VERDICTS = (
    ("genuine", "genuine"),
    ("creative_intent", "creative intent"),
    ("false_positive", "false positive"),
    ("unsure", "unsure"),
)


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _bar(defects: list[str]) -> str:
    options = "".join(f'<option value="{html.escape(defect)}">{shown(defect)}</option>' for defect in defects)
    keys = (
        ("j", "next"), ("k", "previous"), ("space", "play"), ("g", "genuine"), ("c", "creative intent"), ("f", "false positive"),
        ("u", "unsure"), ("x", "take back"), ("n", "note"),
    )  # fmt: skip
    return f"""<div class="bar">
<label>defect <select id="defect"><option value="">all</option>{options}</select></label>
<label>show <select id="state"><option value="all">all</option><option value="undecided">undecided</option><option value="decided">decided</option></select></label>
<label>reviewer <input id="reviewer" size="10" maxlength="100"></label>
<label><input id="onward" type="checkbox" checked> go on after a verdict key</label>
<button type="button" id="download" disabled>download verdicts.csv</button>
<span id="count" class="faint"></span>
<span id="lasting" class="warning" hidden>This browser keeps nothing: download before you close the page.</span>
<span class="keys">{" ".join(f"<kbd>{key}</kbd> {words}" for key, words in keys)}; then <code>jobs/review.py import verdicts.csv</code></span>
</div>"""


def _data(report: Report, entries: list[Entry]) -> str:
    """What the script needs, as JSON that HTML cannot mistake for its own."""
    names = ("content_hash", "title_id", "track", "defect", "start_s", "end_s")
    detections = [
        {
            **{name: entry.detection[name] for name in names},
            "number": entry.number,
            "key": entry.key,
            "is_decided": entry.detection.get("verdict") in DECIDED,
            "from_s": entry.shown.start_s,
            "to_s": entry.shown.end_s,
            "clip_start_s": entry.clip.start_s,
            "clip_end_s": entry.clip.end_s,
        }
        for entry in entries
    ]
    found = {
        "report": report.name, "axis": [AXIS_LEFT, AXIS_RIGHT], "causes": report.causes, "detections": detections,
    }  # fmt: skip
    text = json.dumps(found, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# -- summary


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table; numbers are set to the right."""

    def cell(value: Any) -> str:
        if isinstance(value, int | float):
            return (
                f'<td class="number">{value:,}</td>'
                if isinstance(value, int)
                else f'<td class="number">{value:,.1f}</td>'
            )
        return f"<td>{'' if value is None else shown(value)}</td>"

    lines = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    names = "".join(f"<th>{shown(name)}</th>" for name in head)
    return f'<div class="scroll"><table><thead><tr>{names}</tr></thead><tbody>{lines}</tbody></table></div>'


def _summary(report: Report) -> str:
    facts = "".join(f"<tr><th>{shown(name)}</th><td>{shown(value)}</td></tr>" for name, value in report.facts)
    rates = [
        (row["defect"], f"{row['model']}/{row['model_version']}", row["detections"], row["titles_with_detections"],
         row["titles"], row["audio_h"], row["detections_per_100_h"])
        for row in report.rates
    ]  # fmt: skip
    troubles = [
        (row["title_id"], row["track"], row["status"], row["error_code"], row["error"]) for row in report.troubles
    ]
    tones = [
        (row["title_id"], row["track"], f"{clock(row['start_s'])} to {clock(row['end_s'])}",
         ", ".join(f"{pitch_hz:,} Hz" for pitch_hz in row["pitches_hz"]), ", ".join(row["channels"]))
        for row in report.line_up
    ]  # fmt: skip
    line_up = ""
    if tones:
        head = ("title", "track", "time", "pitch", "channels")
        line_up = (
            "<h2>Line-up tones</h2>"
            '<p class="faint">Nothing is to be heard there but a tone that levels are set by: no score makes a detection.</p>'
            + _listed("tone", head, tones, "the query jobs/sql/line_up.sql finds all of them")
        )
    return f"""<section><h1>{shown(report.heading)}</h1>
<div class="scroll"><table><tbody>{facts}</tbody></table></div>
{_table(("model", "digest", "device"), report.models) if report.models else ""}
<h2>Detections by defect</h2>
{_table(("defect", "model", "detections", "titles with any", "titles scored", "audio, hours", "per 100 hours"), rates) if rates else "<p>None.</p>"}
<h2>Rejected and partial titles</h2>
{_listed("track", ("title", "track", "status", "code", "reason"), troubles, "all of them are in the table tracks")}
{line_up}
</section>"""


def _listed(what: str, head: tuple[str, ...], rows: list[tuple[Any, ...]], where: str) -> str:
    """The first rows of a table under their number; `where` the others are."""
    if not rows:
        return "<p>None.</p>"
    count = f"{len(rows)} {what}{'' if len(rows) == 1 else 's'}"
    if len(rows) > MOST_ROWS:
        count = f"more than {MOST_ROWS} {what}s; {where}"
    return f"<details open><summary>{count}</summary>{_table(head, rows[:MOST_ROWS])}</details>"


def _precision(rows: list[dict[str, Any]]) -> str:
    """Shares of genuine and valid detections with their intervals: plot, table, and tables by facet."""
    head = "<section><h2>Precision by people's verdicts</h2>"
    judged = [row for row in rows if row["decided"]]
    if not judged:
        return head + "<p>no verdicts yet</p></section>"
    overall = [row for row in judged if row["facet"] == "all"]
    columns = ("model", "defect", "decided", "of", "genuine", "95 %", "valid", "95 %")
    facets = defaultdict(list)
    for row in judged:
        if row["facet"] != "all" and row["defect"] is None:
            facets[row["facet"]].append(row)
    tables = []
    for facet, mine in sorted(facets.items()):
        most = sorted(mine, key=lambda row: -row["decided"])[:MOST_VALUES]
        left = f"<p>The {MOST_VALUES} most frequent of {len(mine)} values.</p>" if len(mine) > MOST_VALUES else ""
        table = _table((facet, *columns), [(row["facet_value"], *_shares(row)) for row in most])
        tables.append(f"<details><summary>by {shown(facet)}</summary>{table}{left}</details>")
    return f"""{head}
<p class="faint">Of the whole warehouse: a verdict holds for its content in every scan. Valid counts creative intent in; unsure decides nothing; 95 % intervals after Wilson.</p>
{precision_plot(overall)}
{_table(columns, map(_shares, overall))}
{"".join(tables)}</section>"""


def _shares(row: dict[str, Any]) -> tuple[Any, ...]:
    def share(name: str) -> tuple[str, str]:
        return f"{row[f'{name}_precision']:.1%}", f"{row[f'{name}_low']:.0%} .. {row[f'{name}_high']:.0%}"

    model = f"{row['model']}/{row['model_version']}"
    defect = "all defects" if row["defect"] is None else row["defect"]
    return model, defect, row["decided"], row["detections"], *share("genuine"), *share("valid")


def precision_plot(rows: list[dict[str, Any]]) -> str:
    """Intervals of genuine and valid precision, one line pair a defect, as SVG."""
    left, right, step = 250, 730, 34

    def x(share: float) -> float:
        return left + share * (right - left)

    height = step * len(rows) + 46
    parts = [
        f'<svg class="precision" viewBox="0 0 760 {height}" role="img" aria-label="precision with intervals">',
        f'<text class="genuine" x="{left}" y="12">genuine</text><text class="valid" x="{left + 70}" y="12">valid</text>',
    ]
    for percent in range(0, 101, 25):
        parts.append(f'<path class="axis" d="M{x(percent / 100):.1f} 20V{height - 22}"/>')
        parts.append(f'<text x="{x(percent / 100):.1f}" y="{height - 6}" text-anchor="middle">{percent} %</text>')
    for number, row in enumerate(rows):
        y = 22 + step * number
        name = "all defects" if row["defect"] is None else row["defect"]
        label = f"{name} ({row['model']}/{row['model_version']})"
        label = label if len(label) <= 42 else label[:41] + "…"
        parts.append(f'<text x="{left - 10}" y="{y + 19}" text-anchor="end">{shown(label)}</text>')
        for kind, offset in (("genuine", 9), ("valid", 21)):
            low, middle, high = (row[f"{kind}_{part}"] for part in ("low", "precision", "high"))
            parts.append(
                f'<g class="{kind}"><path d="M{x(low):.1f} {y + offset}H{x(high):.1f}" stroke-width="2"/>'
                f'<circle cx="{x(middle):.1f}" cy="{y + offset}" r="4"/></g>'
            )
    return "".join(parts) + "</svg>"


# -- one detection


def article(entry: Entry) -> str:
    """One detection."""
    row, track = entry.detection, entry.track
    digits = 3 if row["end_s"] - row["start_s"] < 1.0 else 1  # a click lasts a few milliseconds
    facts = [
        ("time", f"{clock(row['start_s'], digits)} to {clock(row['end_s'], digits)}"),
        ("channels", ", ".join(row["channels"] or [])),
        ("peak score", f"{row['peak_score']:.3f}"),
        (
            "operating point",
            f"{row['min_detected_s']:g} s of score ≥ {row['threshold']:g} within {row['window_s']:g} s"
            f" (found: {row['detected_s']:g} s)",
        ),
        ("track", f"{row['track']} {_described(track)}"),
        ("model", f"{row['model']}/{row['model_version']}"),
    ]
    items = "".join(f"<li><b>{name}</b> {shown(value)}</li>" for name, value in facts)
    verdict = _verdict(row)
    warnings = "".join(f'<li class="warning">{shown(warning)}</li>' for warning in entry.warnings)
    notes = "".join(f"<li>{shown(note)}</li>" for note in entry.notes)
    picture = ""
    if entry.picture is not None:
        words = f"spectrogram from {clock(entry.shown.start_s)} to {clock(entry.shown.end_s)}"
        picture = (
            f'<img src="{html.escape(entry.picture)}" width="{PICTURE_WIDTH_PX}" height="{PICTURE_HEIGHT_PX}" '
            f'loading="lazy" decoding="async" alt="{words}">'
        )
    audio = ""
    if entry.audio is not None:
        audio = f'<audio controls preload="none" src="{html.escape(entry.audio)}"></audio>'
    return f"""<article id="d{entry.number}">
<h3>{entry.number}. <span class="defect">{shown(row["defect"])}</span> <bdi>{shown(row["title_id"])}</bdi></h3>
<ul class="facts">{items}{f"<li><b>verdict</b> {verdict}</li>" if verdict else ""}</ul>
<figure>{picture}{score_plot(entry)}<div class="playhead" hidden></div></figure>
{audio}
<ul class="notes">{warnings}{notes}</ul>
</article>
"""


def _described(track: dict[str, Any]) -> str:
    rate_hz = track.get("sample_rate_hz")
    parts = [
        "language not tagged" if track.get("language") in (None, "", "und") else track["language"],
        track.get("codec"),
        track.get("channel_layout"),
        f"{rate_hz / 1000:g} kHz" if rate_hz else None,
        f"in {track['container']}" if track.get("container") else None,
    ]
    return f"({', '.join(part for part in parts if part)})" if track else ""


def _verdict(row: dict[str, Any]) -> str:
    if not row.get("verdict"):
        return ""
    text = str(row["verdict"]).replace("_", " ")
    text += f" ({row['cause']})" if row.get("cause") else ""
    text += f" by {row['reviewer']}" if row.get("reviewer") else ""
    if isinstance(row.get("reviewed_at"), datetime):
        text += f", {row['reviewed_at']:%Y-%m-%d}"
    text += f": {row['note']}" if row.get("note") else ""
    return shown(text)


def score_plot(entry: Entry) -> str:
    """Score over time as SVG, on the time axis of the picture above it."""
    axis, row = entry.shown, entry.detection
    top, bottom = _CURVE
    left, right = PICTURE_WIDTH_PX * AXIS_LEFT, PICTURE_WIDTH_PX * AXIS_RIGHT

    def x(at_s: float) -> float:
        return left + min(max((at_s - axis.start_s) / axis.length_s, 0.0), 1.0) * (right - left)

    def y(score: float) -> float:
        return bottom - min(max(score, 0.0), 1.0) * (bottom - top)

    begin, end = x(row["start_s"]), x(row["end_s"])
    level = y(row["threshold"])
    parts = [
        f'<svg viewBox="0 0 {PICTURE_WIDTH_PX} {SCORE_HEIGHT}" role="img" aria-label="score over time">',
        f'<rect class="stretch" x="{begin:.1f}" y="{top}" width="{max(end - begin, 0.5):.1f}" height="{bottom - top}"/>',
        f'<path class="axis" d="M{left} {top}V{bottom}H{right}"/>',
        f'<path class="threshold" d="M{left} {level:.1f}H{right}"/>',
        f'<text x="{left - 5}" y="{top + 7}" text-anchor="end">1</text>',
        f'<text x="{left - 5}" y="{bottom}" text-anchor="end">0</text>',
        f'<text x="{left - 5}" y="{(top + bottom) / 2 + 4}" text-anchor="end">score</text>',
    ]
    if entry.scores:
        parts.append(f'<path class="curve" d="{_curve(entry.scores, axis, x, y)}"/>')
    else:
        parts.append(f'<text x="{left + 8}" y="{bottom - 8}">no score is stored for this stretch</text>')
    for at_s in ticks(axis):
        parts.append(f'<path class="axis" d="M{x(at_s):.1f} {bottom}v4"/>')
        label = clock(at_s).removesuffix(".0")
        parts.append(f'<text x="{x(at_s):.1f}" y="{bottom + 15}" text-anchor="middle">{label}</text>')
    if entry.audio is not None:
        first, last = x(entry.clip.start_s), x(entry.clip.end_s)
        parts.append(
            f'<rect class="heard" x="{first:.1f}" y="{bottom + 21}" width="{last - first:.1f}" height="3" rx="1.5"/>'
            f'<text x="{left - 5}" y="{bottom + 26}" text-anchor="end">heard</text>'
        )
    return "".join(parts) + "</svg>"


def _curve(scores: list[Score], axis: Window, x: Any, y: Any) -> str:
    """Steps from segment to segment; broken where there is none."""
    parts: list[str] = []
    last_s = -math.inf
    inside = [score for score in scores if score[1] > axis.start_s and score[0] < axis.end_s]
    for number, (start_s, end_s, score) in enumerate(inside):
        if number + 1 < len(inside):  # overlapping segments: each up to the next
            end_s = min(end_s, inside[number + 1][0])
        joint = "L" if start_s <= last_s + 1e-3 else "M"
        parts.append(f"{joint}{x(start_s):.1f} {y(score):.1f}H{x(end_s):.1f}")
        last_s = end_s
    return "".join(parts)


def ticks(axis: Window) -> list[float]:
    """Round times on an axis, at most ten.

    Example:
        >>> ticks(Window(58.0, 103.0))
        [60.0, 65.0, 70.0, 75.0, 80.0, 85.0, 90.0, 95.0, 100.0]
    """
    step = next(step for step in (0.5, 1, 2, 5, 10, 15, 30, 60, 300, 3600, math.inf) if axis.length_s / step < 10)
    if math.isinf(step):
        return []
    first = math.ceil(axis.start_s / step)
    # Not at the very ends, where labels would be cut off.
    return [
        at * step * 1.0
        for at in range(first, math.floor(axis.end_s / step) + 1)
        if axis.end_s - at * step > axis.length_s / 60
    ]
