"""Rows to hand over, and readers of the files that have nothing in common with their writers."""

import csv
import io
import re
from pathlib import Path
from xml.etree import ElementTree

from small_xsd import Schema

from jobs.handover import Handover
from jobs.handover_ebu_qc import TIMING
from jobs.timecode import timeline

SCHEMAS = Path(__file__).parent / "ebu_qc"
PAL = timeline("25", "10:00:00:00")
NOW = Handover("2026-03-04T05:06:07+00:00", "0.1.0")
AWKWARD = [
    "film.mkv", "Film.mkv", "a/b.wav", "a_b.wav", "a b.wav", "../../etc/passwd", "..", ".", "-", "", "CON", "nul.txt",
    "=1+1", "@SUM(A1)", "-30- (1959).mkv", "\uff1d1", "\t=1", "Ünïcødé/映画.mov", "bell\x07\x00.wav", "two\nlines\r\n.wav",
    "tab\there", "caf\udce9.wav", "<&>\"'.mkv", "x" * 5000, "x" * 5001, "line\u2028sep", "\ufffe", "/abs/olute", "🎬",
]  # fmt: skip
VERDICTS = [None, "genuine", "creative_intent", "false_positive", "unsure"]


def row(title="film.mkv", start_s=12.04, end_s=42.5, **own):
    values = {
        "title_id": title, "content_hash": "ab" * 32, "track": 0, "defect": "hum", "start_s": start_s, "end_s": end_s,
        "detected_s": 28.0, "peak_score": 0.973, "channels": ["FL", "FR"], "model": "audio-artifacts",
        "model_version": "3", "threshold": 0.9, "min_detected_s": 20.0, "window_s": 80.0, "verdict": None, "cause": None,
        "reviewer": None, "note": None, "reviewed_at": None, "uri": f"file:///{title}", "codec": "flac",
        "language": "en", "channel_layout": "stereo", "sample_rate_hz": 48_000, "duration_s": 3600.0, "status": "ok",
        "error": None,
    }  # fmt: skip
    return values | own


def judged(verdict, **own):
    said = {"verdict": verdict, "cause": "other", "reviewer": "Ana", "reviewed_at": "2026-03-01T10:00:00.500000Z"}
    return row(**{**said, **own})


ROWS = [
    row(),
    judged("genuine", start_s=60.0, end_s=100.0, note="=cmd|' /C calc'!A0\nsecond line"),
    judged("creative_intent", start_s=70.0, end_s=90.01),
    judged("false_positive", start_s=95.0, end_s=120.0),
    row(track=1, start_s=0.0, end_s=20.0, defect="click", channels=["FC"]),
    row(title="other/film.mkv", start_s=5.0, end_s=30.0),
]


def read_csv(text):
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def read_labels(text):
    """Audacity's rule: a line is begin, end and text with tabs between; one that begins with a backslash is a band."""
    for line in text.split("\n")[:-1]:
        begin, end, label = line.split("\t")
        yield float(begin), float(end), label


EVENT = re.compile(r"(\d{3,})  (\S{1,8}) +(A\d*|V|AA) +C +(\S{11}) (\S{11}) (\S{11}) (\S{11})")
MARKER = re.compile(r"\* LOC: (\d\d:\d\d:\d\d[:;]\d\d) ([A-Z]+) +(.*)")


def read_edl(text):
    """Mode of timecode and events (number, channel, four timecodes, clip, marker) of a CMX 3600 list."""
    assert text.isascii()
    lines = text.split("\r\n")
    assert lines.pop() == ""
    assert lines[0].startswith("TITLE: ")
    mode = re.fullmatch(r"FCM: (DROP FRAME|NON-DROP FRAME)", lines[1])[1]
    events = []
    for line in lines[2:]:
        if event := EVENT.fullmatch(line):
            events.append({"number": int(event[1]), "channel": event[3], "codes": event.groups()[3:]})
        elif marker := MARKER.fullmatch(line):
            events[-1]["marker"] = marker.groups()
        else:
            events[-1]["clip"] = re.fullmatch(r"\* FROM CLIP NAME: (.*)", line)[1]
    return mode, events


def ebu_schema():
    return Schema(SCHEMAS / "qc.xsd", SCHEMAS / "timing.xsd")


def read_report(text):
    root = ElementTree.fromstring(text)
    return root, {"q": root.tag[1:].split("}")[0], "t": TIMING}
