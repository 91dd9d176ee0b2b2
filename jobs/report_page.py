"""The HTML of a report: pure functions from what was found to text. Whatever comes from files or people is escaped."""

import base64
import hashlib
import html
import json
from importlib.resources import files

from jobs.report_content import Entry, Report, shown
from jobs.report_detection import article
from jobs.report_summary import precision, summary
from udfs.spectrogram import AXIS_LEFT, AXIS_RIGHT

DECIDED = ("genuine", "creative_intent", "false_positive")


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
{summary(report)}
{precision(report.precision)}
<section><h2>Detections</h2>
{"".join(f'<p class="warning">{shown(warning)}</p>' for warning in report.warnings)}
{"".join(f'<p class="faint">{shown(remark)}</p>' for remark in report.remarks)}
{"".join(map(article, entries)) or "<p>There is no detection.</p>"}
</section>
</main>
<template id="controls"><div class="controls">
{"".join(f'<button type="button" data-verdict="{verdict}">{words}</button>' for verdict, words in _VERDICTS)}
<select aria-label="cause"></select><input placeholder="note" aria-label="note" maxlength="500"><span class="by faint"></span>
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
<span id="nameless" class="warning" hidden></span>
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
