"""The HTML of a report's summary: facts, counts, rejected titles, line-up tones, precision by verdicts."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from jobs.report_content import MOST_ROWS, Report, shown
from jobs.timecode import clock

MOST_VALUES = 40  # of a facet


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table; numbers are set to the right."""

    def cell(value: Any) -> str:
        if isinstance(value, int | float):
            return (
                f'<td class="number">{value:,}</td>'
                if isinstance(value, int)
                else f'<td class="number">{value:,.2f}</td>'
            )
        return f"<td>{'' if value is None else shown(value)}</td>"

    lines = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    names = "".join(f"<th>{shown(name)}</th>" for name in head)
    return f'<div class="scroll"><table><thead><tr>{names}</tr></thead><tbody>{lines}</tbody></table></div>'


def summary(report: Report) -> str:
    """All that stands before the verdicts and the detections."""
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


def precision(rows: list[dict[str, Any]]) -> str:
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
