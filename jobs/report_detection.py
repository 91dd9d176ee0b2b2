"""The HTML of one detection: facts, picture, score over time, clip."""

import html
import math
from typing import Any

from jobs.report_content import Entry, shown
from jobs.report_media import CloseUp, Score, Window
from jobs.timecode import clock
from udfs.spectrogram import AXIS_LEFT, AXIS_RIGHT, PICTURE_HEIGHT_PX, PICTURE_WIDTH_PX
from udfs.stretches import RATE_HZ

SCORE_HEIGHT = 92
CLOSE_UP_ROW = 84  # height of a channel's waveform
_CURVE = (6.0, 62.0)  # top and bottom of the curve


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
{entry.close_up}
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
    if row.get("reviewed_at"):
        text += f", {row['reviewed_at'][:10]}"
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


def close_up_plot(close_up: CloseUp, event: Window) -> str:
    """The waveform where a brief event begins, a row a channel, each scaled to its own peak."""
    start_s = close_up.start_s
    left, right = PICTURE_WIDTH_PX * AXIS_LEFT, PICTURE_WIDTH_PX * AXIS_RIGHT
    px_per_s = (right - left) / (len(close_up.samples[0]) / RATE_HZ)
    bottom = CLOSE_UP_ROW * len(close_up.samples)
    words = (
        f"waveform where the strongest event begins, {(right - left) / px_per_s * 1000:.0f} ms from {clock(start_s, 3)}"
    )
    begin, end = (
        left + min(max((at_s - start_s) * px_per_s, 0.0), right - left) for at_s in (event.start_s, event.end_s)
    )
    parts = [
        f'<svg viewBox="0 0 {PICTURE_WIDTH_PX} {bottom + 20}" role="img" aria-label="{words}">',
        f'<rect class="stretch" x="{begin:.1f}" y="0" width="{max(end - begin, 0.5):.1f}" height="{bottom}"/>',
    ]
    for number, samples in enumerate(close_up.samples):
        middle, half = CLOSE_UP_ROW * (number + 0.5), CLOSE_UP_ROW / 2 - 3
        peak = max(map(abs, samples))
        points = (
            f"{left + at / RATE_HZ * px_per_s:.1f} {middle - half * sample / (peak or 1.0):.1f}"
            for at, sample in enumerate(samples)
        )
        level = f"{round(20 * math.log10(peak))} dB" if peak > 0 else "silent"
        parts.append(f'<path class="axis" d="M{left} {middle}H{right}"/><path class="curve" d="M{"L".join(points)}"/>')
        parts.append(f'<text x="{left - 5}" y="{middle - half + 9}" text-anchor="end">{level}</text>')
    parts.append(f'<text x="{left}" y="{bottom + 14}">{words}, each channel to its peak</text></svg>')
    return f'<figure class="close-up">{"".join(parts)}</figure>'


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
