"""Detections as an EBU QC report: the XML by which broadcasters exchange results of quality control.

The data model and its schema are at https://github.com/ebu/qc. A release of the model is a namespace of its own; what is
written here uses only what the releases have in common. It is a report, not a pass or fail of a delivery: items are used
as `report`, without CheckResult, because there is no rule here for what passes. Reports of the EBU's "scenario 1" (pass or
fail for a broadcaster) forbid Revision and are another thing.

An item is a defect that a model version looked for in a track at an operating point. Its result has Revision 1 and
DetectionMethod automatic; occurrences that a person has listened to are an item of their own, with Revision 2 and
DetectionMethod assisted, and each carries verdict, cause, note, reviewer and time in its Annotation.
"""

import json
import re
import uuid
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import groupby
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from jobs.handover import UNREVIEWED, Handover, Row, in_order
from jobs.timecode import count_frames

RELEASES = ("2026-01", "2026-04")
# Released with 2026-04. It is the one way there is to say what Start and End count, so reports of both releases have it:
# the schema of 2026-01 allows elements of other namespaces there.
TIMING = "tag:qc.ebu.ch,2026-04:extensions:timing"
# A whole number; the levels are those by which streaming services ask for QC results.
SEVERITIES = {
    "genuine": 2,  # an issue
    UNREVIEWED: 1,  # to be looked at
    "unsure": 1,
    "creative_intent": 0,  # nothing to do
    "false_positive": 0,
}
DESCRIPTION = (
    "Defects in the sound, found by neural networks and, where Revision is 2, judged by a person. Track counts the audio "
    "tracks of the file from 0. Start is the edit unit in which an occurrence begins, End the first one after it; edit "
    "units count from the begin of the file. Confidence is the largest score of the network in the occurrence, 0 to 1. "
    "Severity: 2 genuine defect, 1 not judged yet, 0 intended or nothing to be heard."
)
OWN_VERSION = "1.0"  # of the items' meaning; they are not in the EBU's catalogue
DEFAULT_RATE_HZ = 48_000
_NAMES = uuid.UUID("5f0e9f0e-6a3c-5d0b-8f7a-3b6f0f5f3d6e")
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def report_xml(title_id: str, rows: Iterable[Row], handover: Handover, release: str = RELEASES[0]) -> str:
    """The report of one title.

    Locators count frames where the hand-over has a timeline, else samples of the title's first track.

    Args:
        title_id: the title; characters that XML cannot hold are written as backslash escapes.
        rows: its detections.
        handover: what the report says of itself.
        release: of the EBU QC data model, one of `RELEASES`.
    """
    ordered = in_order(rows)
    sample_rate_hz = next((row["sample_rate_hz"] for row in ordered if row.get("sample_rate_hz")), DEFAULT_RATE_HZ)
    edit_rate = Fraction(sample_rate_hz) if handover.timeline is None else handover.timeline.rate.per_s
    items = [(key, list(its)) for key, its in groupby(sorted(ordered, key=_item_key), _item_key)]
    contents = sorted({(row["track"], row["content_hash"]) for row in ordered if row["content_hash"]})

    report = ElementTree.Element("Report", {"xmlns": f"tag:qc.ebu.ch,{release}"})
    _add(report, "ReportId", _urn("report", title_id, contents))
    errors = [row["error"] or "not all of the track was scored" for row in ordered if _is_incomplete(row)]
    _add(report, "ExecutionStatus", "error" if errors else "complete")
    if errors:
        _add(report, "ErrorDescription", "; ".join(dict.fromkeys(errors)))
    _add_content(report, title_id, contents)
    _add(report, "LastModifiedDateTime", handover.created_at)
    _add_tool(report, "auscult", "Auscult", handover.tool_version)
    profile = _add(report, "Profile")
    _add(profile, "ID", _urn("profile", title_id, contents))
    _add(profile, "Name", "Auscult")
    _add_content(profile, title_id, contents)
    _add(profile, "Description", DESCRIPTION)
    _add(profile, "Scopes")
    profile_items = _add(profile, "Items")
    _add(profile, "ItemDefinitions")
    results = _add(report, "ItemResults")
    for key, its in items:
        instance = _urn("item", title_id, contents, key)
        _add_item(profile_items, its[0], instance)
        _add_result(results, its, instance, edit_rate)
    timing = _add(_add(report, "ExtensionProperties"), "TimingExtensionMediaPlaybackEditUnits")
    timing.set("xmlns", TIMING)
    _add(timing, "EditRate", f"{edit_rate.numerator}/{edit_rate.denominator}")
    ElementTree.indent(report)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(report, encoding="unicode") + "\n"


def xml_text(text: str) -> str:
    r"""Text that XML can hold and gives back as it is: other characters as backslash escapes.

    Examples:
        >>> xml_text("bell \x07, line\r\n")
        'bell \\x07, line\\x0d\n'
    """
    return _NOT_XML.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def _item_key(row: Row) -> tuple[Any, ...]:
    names = ("track", "defect", "model", "model_version", "threshold", "min_detected_s", "window_s")
    return (*(row[name] for name in names), row["verdict"] is not None)


def _is_incomplete(row: Row) -> bool:
    return row.get("status") not in (None, "ok")


def _severity(row: Row) -> int:
    return SEVERITIES.get(row["verdict"] or UNREVIEWED, SEVERITIES["unsure"])


def _urn(*parts: Any) -> str:
    """A UUID that is the same each time: a report of the same content replaces the one before."""
    return f"urn:uuid:{uuid.uuid5(_NAMES, json.dumps(parts))}"


def _add(parent: ElementTree.Element, name: str, text: str | None = None) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, name)
    if text is not None:
        child.text = xml_text(text)
    return child


def _add_content(parent: ElementTree.Element, title_id: str, contents: Sequence[tuple[int, str]]) -> None:
    identifiers = _add(parent, "ContentId")
    _add(_add(identifiers, "ContentIdentifier"), "ID", title_id)
    for track, content_hash in contents:
        identifier = _add(identifiers, "ContentIdentifier")
        _add(identifier, "ID", content_hash)
        _add(_add(identifier, "Annotation"), "Text", f"SHA-256 over codec and packets of track {track}")


def _add_tool(parent: ElementTree.Element, identifier: str, name: str, version: str) -> None:
    tool = _add(parent, "ToolInformation")
    _add(tool, "ToolID", identifier)
    _add(tool, "ToolName", name)
    _add(tool, "Version", version)


def _add_identity(parent: ElementTree.Element, row: Row, instance: str) -> None:
    _add(parent, "EBUQCID", "auscult-" + re.sub(r"[^0-9A-Za-z]+", "-", row["defect"]))
    _add(parent, "EBUQCName", row["defect"])
    _add(parent, "EBUQCVersion", OWN_VERSION)
    _add(parent, "InstanceId", instance)


def _add_item(items: ElementTree.Element, row: Row, instance: str) -> None:
    item = _add(items, "Item")
    _add_identity(item, row, instance)
    _add(item, "UsedAs", "report")
    _add(item, "Track", str(row["track"]))
    _add(item, "Scopes")
    inputs = _add(item, "Inputs")
    for name, value in [
        ("ScoreThreshold", row["threshold"]),
        ("MinimumDetectedSeconds", row["min_detected_s"]),
        ("WindowSeconds", row["window_s"]),
    ]:
        if value is not None:
            given = _add(inputs, "Input")
            _add(given, "Name", name)
            _add(given, "Value", f"{value:g}")


def _add_result(results: ElementTree.Element, rows: Sequence[Row], instance: str, edit_rate: Fraction) -> None:
    first, is_reviewed = rows[0], rows[0]["verdict"] is not None
    result = _add(results, "ItemResult")
    _add_identity(result, first, instance)
    _add(result, "AnalysisMethodUsed", "measure")
    _add(result, "ExecutionStatus", "error" if _is_incomplete(first) else "complete")
    if _is_incomplete(first):
        _add(result, "ErrorDescription", first["error"] or "not all of the track was scored")
    model, version = first["model"], first["model_version"]
    _add_tool(result, f"models:/{quote(xml_text(model), safe='')}/{quote(xml_text(version), safe='')}", model, version)
    _add(result, "MaxSeverity", str(max(map(_severity, rows))))
    _add(result, "DetectionMethod", "assisted" if is_reviewed else "automatic")
    _add(result, "Revision", "2" if is_reviewed else "1")
    if times := [row["reviewed_at"] for row in rows if row["reviewed_at"]]:
        _add(result, "CreationDateTime", max(times))
    outputs = _add(result, "Outputs")
    for row in rows:
        _add_output(outputs, row, edit_rate)


def _add_output(outputs: ElementTree.Element, row: Row, edit_rate: Fraction) -> None:
    output = _add(outputs, "Output")
    _add(output, "Name", "DefectSegment")
    locator = _add(output, "Locator")
    _add(locator, "Start", str(count_frames(row["start_s"], edit_rate)))
    _add(locator, "End", str(count_frames(row["end_s"], edit_rate, up=True)))
    _add(output, "Track", str(row["track"]))
    channels = "".join(f" {channel}" for channel in row["channels"] or ())
    _add(output, "Value", f"{row['defect']}{channels}, {row['start_s']:.3f} s to {row['end_s']:.3f} s")
    if row["verdict"] is not None:
        annotation = _add(output, "Annotation")
        said = {"verdict": row["verdict"], "cause": row["cause"], "note": row["note"]}
        _add(annotation, "Text", "; ".join(f"{name}: {text}" for name, text in said.items() if text))
        _add(_add(annotation, "Editor"), "Name", row["reviewer"])
        if row["reviewed_at"]:
            _add(annotation, "Timestamp", row["reviewed_at"])
    _add(output, "Confidence", f"{min(max(row['peak_score'], 0.0), 1.0):.4f}")
    _add(output, "Severity", str(_severity(row)))
