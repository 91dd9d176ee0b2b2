"""Hand-over files, each read back by a reader that has nothing in common with its writer."""

import csv
import doctest
import hashlib
import io
import json
import re
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql.pandas.types import to_arrow_schema
from small_xsd import Schema

from jobs import export, handover, handover_ebu_qc, review
from jobs.handover import Handover, audacity_text, csv_text, edl_text, file_stem, json_text
from jobs.handover_ebu_qc import RELEASES, TIMING, report_xml
from jobs.launch import PROJECT, AuscultError
from jobs.timecode import timeline
from udfs.schemas import DETECTIONS, REVIEWS, TABLES, TRACKS

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


@pytest.mark.parametrize("module", [handover, handover_ebu_qc])
def test_examples(module):
    assert doctest.testmod(module).failed == 0


# -- tables


def read_csv(text):
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def test_csv_has_every_detection():
    lines = read_csv(csv_text(ROWS, PAL))
    assert len(lines) == len(ROWS)
    first = lines[0]
    assert (first["title_id"], first["track"], first["defect"], first["verdict"]) == ("film.mkv", "0", "hum", "")
    assert (float(first["start_s"]), float(first["end_s"])) == (12.04, 42.5)
    assert (first["start_timecode"], first["end_timecode"]) == ("10:00:12:01", "10:00:42:13")
    assert first["channels"] == "FL FR"
    assert lines[1]["note"] == "'=cmd|' /C calc'!A0\nsecond line"
    assert "start_timecode" not in read_csv(csv_text(ROWS))[0]


@pytest.mark.parametrize("title", AWKWARD)
def test_no_cell_is_a_formula(title):
    [line] = read_csv(csv_text([judged("genuine", title=title, note=title)]))
    for name in ("title_id", "note"):
        assert line[name].lstrip()[:1] not in set("=+-@\uff1d\uff0b\uff0d\uff20")
        assert line[name].removeprefix("'") == title.replace("\0", "\ufffd")


def test_a_csv_comes_back_as_verdicts(tmp_path):
    (tmp_path / "out.csv").write_bytes(csv_text(ROWS).encode())
    causes = review.vocabulary(PROJECT / "conf" / "verdicts.yaml")
    found = review.read_verdicts(tmp_path / "out.csv", causes, None)
    assert [line["verdict"] for line in found] == ["genuine", "creative_intent", "false_positive"]
    assert found[0]["reviewed_at"] == datetime(2026, 3, 1, 10, 0, 0, 500_000, tzinfo=UTC)


def test_json_says_what_its_columns_mean():
    comments = {field.name: field.metadata["comment"] for schema in (TRACKS, REVIEWS, DETECTIONS) for field in schema}
    place = timeline("29.97df", "01:00:00;00")
    found = json.loads(json_text(ROWS, Handover(NOW.created_at, NOW.tool_version, place), comments))
    assert [title["title_id"] for title in found["titles"]] == ["film.mkv", "other/film.mkv"]
    assert [len(track["detections"]) for title in found["titles"] for track in title["tracks"]] == [4, 1, 1]
    track = found["titles"][0]["tracks"][0]
    assert (track["track"], track["codec"], track["sample_rate_hz"]) == (0, "flac", 48_000)
    assert track["detections"][0]["start_s"] == 12.04
    assert track["detections"][1]["reviewed_at"] == "2026-03-01T10:00:00.500000Z"
    assert found["timeline"] == {
        "frame_rate": "30000/1001",
        "is_drop_frame": True,
        "start_timecode": "01:00:00;00",
    }
    used = {*found["titles"][0], *track, *track["detections"][0]} - {"tracks", "detections"}
    assert used <= set(found["columns"])
    assert "seconds" in found["columns"]["start_s"]
    assert json.loads(json_text(ROWS, NOW, comments))["timeline"] is None


def test_json_keeps_every_title_exactly(tmp_path):
    export.write_file(tmp_path / "d.json", json_text([row(title=title) for title in AWKWARD], NOW, {}))
    found = json.loads((tmp_path / "d.json").read_bytes())
    assert sorted(title["title_id"] for title in found["titles"]) == sorted(AWKWARD)


# -- Audacity


def read_labels(text):
    """Audacity's rule: a line is begin, end and text with tabs between; one that begins with a backslash is a band."""
    for line in text.split("\n")[:-1]:
        begin, end, label = line.split("\t")
        yield float(begin), float(end), label


def test_audacity_labels():
    found = list(read_labels(audacity_text(ROWS[:4])))
    assert [(begin, end) for begin, end, _ in found] == [(12.04, 42.5), (60.0, 100.0), (70.0, 90.01), (95.0, 120.0)]
    assert found[0][2] == "hum 0.97 FL FR unreviewed"
    assert found[2][2] == "hum 0.97 FL FR creative_intent (other)"


@settings(deadline=None)
@given(st.text())
def test_a_label_stays_in_its_line(text):
    [(_, _, label)] = read_labels(audacity_text([row(defect=text)]))
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", label)
    label.encode()


# -- edit decision lists

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


def test_edl_has_an_event_and_a_marker_for_each_occurrence():
    mode, events = read_edl(edl_text("film.mkv track 0", ROWS[:4], PAL))
    assert mode == "NON-DROP FRAME"
    assert [event["number"] for event in events] == [1, 2, 3, 4]
    assert events[0]["codes"] == ("10:00:12:01", "10:00:42:13") * 2  # 12.04 s is frame 301 exactly
    assert events[2]["codes"][1] == "10:01:30:01"  # 90.01 s lies in frame 2250, which is in the occurrence
    assert [event["marker"][1] for event in events] == ["YELLOW", "RED", "CYAN", "GREEN"]
    assert all(event["marker"][0] == event["codes"][2] for event in events)
    assert events[0]["marker"][2] == "hum 0.97 FL FR unreviewed"
    assert {event["clip"] for event in events} == {"film.mkv"}


def test_edl_in_drop_frame():
    mode, [event] = read_edl(edl_text("t", [row(start_s=60.06, end_s=3600.0)], timeline("29.97df", "00:00:00;00")))
    assert mode == "DROP FRAME"
    assert event["codes"][:2] == ("00:01:00;02", "01:00:00;01")  # an hour is 107,892.1 frames: the next border
    assert event["marker"][0] == "00:01:00;02"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(0.0, 500.0), st.floats(0.001, 200.0)), max_size=12))
def test_events_of_a_channel_do_not_overlap(stretches):
    rows = sorted((row(start_s=begin, end_s=begin + length) for begin, length in stretches), key=lambda r: r["start_s"])
    _, events = read_edl(edl_text("t", rows, PAL))
    assert len(events) == len(rows)
    for channel in {event["channel"] for event in events}:
        codes = [event["codes"] for event in events if event["channel"] == channel]
        assert all(before[3] <= after[2] for before, after in pairwise(codes))
        assert all(begin < end for begin, end, *_ in codes)


@pytest.mark.parametrize("title", AWKWARD)
def test_edl_of_awkward_titles(title):
    _, [event] = read_edl(edl_text(f"{title} track 0", [row(title=title, defect=title)], PAL))
    assert len(event["clip"]) <= handover.LONGEST_EDL_TEXT


# -- EBU QC


@pytest.fixture(scope="module")
def schema():
    return Schema(SCHEMAS / "qc.xsd", SCHEMAS / "timing.xsd")


def read_report(text):
    root = ElementTree.fromstring(text)
    return root, {"q": root.tag[1:].split("}")[0], "t": TIMING}


def test_the_schemas_are_the_unchanged_release():
    for digest, name in re.findall(r"([0-9a-f]{64})  (\S+)", (SCHEMAS / "README.md").read_text()):
        assert hashlib.sha256((SCHEMAS / name).read_bytes()).hexdigest() == digest


def test_the_schema_reader_sees_damage(schema):
    text = report_xml("film.mkv", ROWS[:4], NOW, "2026-04")
    for old, new in [
        ("<ExecutionStatus>complete<", "<ExecutionStatus>done<"),
        ("<Confidence>0.9730<", "<Confidence>1.5<"),
        ("<Confidence>0.9730<", "<Confidence>9.7E-1<"),
        ("<Revision>2<", "<Revision>-2<"),
        ("<ReportId>urn:uuid:", "<ReportId>urn:"),
        ("<ItemDefinitions />", ""),
        ("<Scopes />", "<Scopes /><Scopes />"),
        ("<EditRate>48000/1<", "<EditRate>48000<"),
        ("<EBUQCID>auscult-hum<", "<EBUQCID>auscult_hum<"),
        ("+00:00<", " UTC<"),
        ("<UsedAs>", "words<UsedAs>"),
    ]:
        assert old in text
        assert schema.errors(ElementTree.fromstring(text.replace(old, new, 1))), (old, new)


@pytest.mark.parametrize("place", [None, PAL, timeline("29.97df", "10:00:00;00")])
def test_reports_follow_the_schema(schema, place):
    shared = Handover(NOW.created_at, NOW.tool_version, place)
    text = report_xml("film.mkv", ROWS[:5], shared, "2026-04")
    assert schema.errors(ElementTree.fromstring(text)) == []
    # What both releases have in common: only the namespace differs.
    assert report_xml("film.mkv", ROWS[:5], shared) == text.replace('tag:qc.ebu.ch,2026-04"', 'tag:qc.ebu.ch,2026-01"')


def test_a_report_tells_reviewed_from_automatic():
    root, names = read_report(report_xml("film.mkv", ROWS[:5], NOW))
    assert root.tag == "{tag:qc.ebu.ch,2026-01}Report"
    assert root.findtext("q:ToolInformation/q:ToolName", namespaces=names) == "Auscult"
    items = root.findall("q:Profile/q:Items/q:Item", names)
    results = root.findall("q:ItemResults/q:ItemResult", names)
    same = ("EBUQCID", "EBUQCName", "EBUQCVersion", "InstanceId")
    assert [[item.findtext(f"q:{tag}", namespaces=names) for tag in same] for item in items] == [
        [result.findtext(f"q:{tag}", namespaces=names) for tag in same] for result in results
    ]
    assert len({item.findtext("q:InstanceId", namespaces=names) for item in items}) == len(items) == 3
    found = [
        (
            item.findtext("q:Track", namespaces=names),
            *(result.findtext(f"q:{tag}", namespaces=names) for tag in ("EBUQCName", "Revision", "DetectionMethod")),
            len(result.findall("q:Outputs/q:Output", names)),
        )
        for item, result in zip(items, results, strict=True)
    ]
    assert found == [
        ("0", "hum", "1", "automatic", 1),
        ("0", "hum", "2", "assisted", 3),
        ("1", "click", "1", "automatic", 1),
    ]
    [genuine, intended, false] = results[1].findall("q:Outputs/q:Output", names)
    assert [output.findtext("q:Severity", namespaces=names) for output in (genuine, intended, false)] == ["2", "0", "0"]
    assert results[1].findtext("q:MaxSeverity", namespaces=names) == "2"
    assert genuine.findtext("q:Annotation/q:Text", namespaces=names).startswith(
        "verdict: genuine; cause: other; note: ="
    )
    assert genuine.findtext("q:Annotation/q:Editor/q:Name", namespaces=names) == "Ana"
    assert genuine.findtext("q:Annotation/q:Timestamp", namespaces=names) == "2026-03-01T10:00:00.500000Z"
    assert genuine.findtext("q:Confidence", namespaces=names) == "0.9730"
    automatic = results[0].find("q:Outputs/q:Output", names)
    assert automatic.find("q:Annotation", names) is None


def test_locators_count_edit_units():
    def locators(text):
        root, names = read_report(text)
        ends = [
            (int(node.findtext("q:Start", namespaces=names)), int(node.findtext("q:End", namespaces=names)))
            for node in root.iterfind(".//q:Locator", names)
        ]
        return root.findtext("q:ExtensionProperties/*/t:EditRate", namespaces=names), ends

    assert locators(report_xml("a", [row()], NOW)) == ("48000/1", [(577_920, 2_040_000)])
    at_pal = Handover(NOW.created_at, NOW.tool_version, PAL)
    assert locators(report_xml("a", [row()], at_pal)) == ("25/1", [(301, 1063)])


def test_a_track_that_was_not_scored_whole_is_no_complete_result():
    text = report_xml("a", [row(status="partial", error="half of it is damaged"), row(track=1)], NOW)
    root, names = read_report(text)
    assert root.findtext("q:ExecutionStatus", namespaces=names) == "error"
    assert [node.text for node in root.iterfind("q:ItemResults/q:ItemResult/q:ExecutionStatus", names)] == [
        "error",
        "complete",
    ]
    assert root.findtext("q:ErrorDescription", namespaces=names) == "half of it is damaged"


def test_the_same_content_has_the_same_report_id():
    def identifier(rows):
        root, names = read_report(report_xml("a", rows, NOW))
        return root.findtext("q:ReportId", namespaces=names)

    assert identifier([row()]) == identifier([judged("genuine")])
    assert identifier([row()]) != identifier([row(content_hash="cd" * 32)])


@pytest.mark.parametrize("title", AWKWARD)
def test_reports_of_awkward_titles(schema, title):
    said = judged(
        "genuine", title=title, defect=title or "x", note=title, reviewer=title, model=title, model_version=title
    )
    text = report_xml(title, [said], NOW, "2026-04")
    root = ElementTree.fromstring(text.encode())
    assert schema.errors(root) == []
    found = root.findtext(".//{*}ContentIdentifier/{*}ID")
    if not re.search("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", title):
        assert found == title


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=())))
def test_any_text_is_well_formed(text):
    [said] = ElementTree.fromstring(report_xml(text, [judged("genuine", note=text)], NOW)).iterfind(
        ".//{*}Annotation/{*}Editor"
    )
    assert said.findtext("{*}Name") == "Ana"


# -- names of files


def test_no_two_titles_share_a_file():
    stems = [file_stem(title).lower() for title in AWKWARD]
    assert len(set(stems)) == len(AWKWARD)
    for stem in stems:
        assert re.fullmatch(r"[0-9a-z][0-9a-z_-]{0,120}", stem)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=())), st.text(st.characters(exclude_categories=())))
def test_a_file_name_is_safe_anywhere(one, other):
    assert re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z_-]{0,120}", file_stem(one))
    assert (file_stem(one).lower() == file_stem(other).lower()) == (one == other)


def test_a_hand_over_has_one_file_for_each():
    rows = [row(title=title, track=track) for title in AWKWARD for track in (0, 1)]
    place = Handover(NOW.created_at, NOW.tool_version, PAL)
    names = [name for name, _ in export.hand_over(rows, export.FORMATS, place, {})]
    assert len(set(names)) == len(names) == 2 + len(AWKWARD) * (2 + 2 + 1)


def test_an_unfinished_file_replaces_nothing(tmp_path):
    export.write_file(tmp_path / "a" / "b.csv", "one")
    (tmp_path / "a" / ".c.csv.unfinished").mkdir()
    with pytest.raises(AuscultError, match=r"c\.csv cannot be written"):
        export.write_file(tmp_path / "a" / "c.csv", "two")
    assert not (tmp_path / "a" / "c.csv").exists()
    export.write_file(tmp_path / "a" / "b.csv", "two")
    assert (tmp_path / "a" / "b.csv").read_text() == "two"


# -- the job


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory):
    """Two titles, three tracks, four detections by two scans; one verdict each way."""
    root = tmp_path_factory.mktemp("warehouse")
    odd = "reel 2/=odd\n.wav"
    at = datetime(2026, 7, 1, 12, 30, tzinfo=UTC)
    found = [("film.mkv", 0, "hum", 10.0, "one"), ("film.mkv", 0, "hum", 200.0, "one"),
             ("film.mkv", 1, "click", 61.0, "two"), (odd, 0, "hiss", 5.0, "two")]  # fmt: skip
    detections = [
        {
            **row(title, start_s, start_s + 30.0, track=track, defect=defect, scan_id=scan),
            "content_hash": f"{title} {track}",
        }
        for title, track, defect, start_s, scan in found
    ]
    tracks = [{**row(title, track=track), "content_hash": f"{title} {track}", "channels": 2, "scan_id": "one"}
              for title, track in [("film.mkv", 0), ("film.mkv", 1), (odd, 0), ("clean.mkv", 0)]]  # fmt: skip
    reviews = [
        {"content_hash": "film.mkv 0", "defect": "hum", "start_s": 12.0, "end_s": 20.0, "verdict": "genuine",
         "cause": "hum", "reviewer": "Ana", "note": "loud", "reviewed_at": at},
        {"content_hash": f"{odd} 0", "defect": "hiss", "start_s": 5.0, "end_s": 35.0, "verdict": "false_positive",
         "cause": "music", "reviewer": "Ben", "reviewed_at": at},
    ]  # fmt: skip
    filled = {
        "detections": detections,
        "tracks": tracks,
        "reviews": reviews,
        "scans": [{"scan_id": "one"}, {"scan_id": "two"}],
    }
    for name, rows in filled.items():  # not by Spark, for which each commit is a second
        schema = to_arrow_schema(TABLES[name], timezone="UTC")
        write_deltalake(str(root / name), pa.Table.from_pylist(rows, schema=schema))
    return root


def test_the_job_writes_what_other_tools_read(spark, warehouse, tmp_path, monkeypatch, capsys, schema):
    monkeypatch.setattr(spark, "stop", lambda: None)
    base = ["--warehouse", str(warehouse), "--out", str(tmp_path / "out")]
    options = [
        "--format",
        "all",
        "--frame-rate",
        "29.97df",
        "--start-timecode",
        "10:00:00;00",
        "--ebu-release",
        "2026-04",
    ]
    assert export.main([*base, *options]) == 0
    assert "4 detections in 2 titles written: 10 files" in capsys.readouterr().out
    folder = tmp_path / "out"
    lines = read_csv((folder / "detections.csv").read_bytes().decode())
    assert [(line["title_id"], line["verdict"], line["reviewed_at"]) for line in lines] == [
        ("film.mkv", "genuine", "2026-07-01T12:30:00.000000Z"),
        ("film.mkv", "", ""),
        ("film.mkv", "", ""),
        ("reel 2/=odd\n.wav", "false_positive", "2026-07-01T12:30:00.000000Z"),
    ]
    assert lines[2]["start_timecode"] == "10:01:01;00"
    assert (lines[0]["codec"], float(lines[0]["duration_s"])) == ("flac", 3600.0)
    document = json.loads((folder / "detections.json").read_text())
    assert [len(title["tracks"]) for title in document["titles"]] == [2, 1]
    assert document["titles"][0]["tracks"][0]["detections"][0]["peak_score"] == 0.973
    assert "seconds" in document["columns"]["window_s"]
    assert len([label for path in (folder / "audacity").iterdir() for label in read_labels(path.read_text())]) == 4
    assert sum(len(read_edl(path.read_bytes().decode())[1]) for path in (folder / "edl").iterdir()) == 4
    reports = [ElementTree.parse(path).getroot() for path in (folder / "ebu-qc").iterdir()]
    assert [schema.errors(report) for report in reports] == [[], []]
    before = {path: path.read_bytes() for path in folder.rglob("*.edl")}

    # Again, with less: what is written is replaced, the rest stays.
    assert export.main([*base, "--format", "csv", "--without-false-positives", "--scan", "two"]) == 0
    assert [line["defect"] for line in read_csv((folder / "detections.csv").read_text())] == ["click"]
    less = ["--title", "film.mkv", "--defect", "hum", "--verdict", "unreviewed"]
    assert export.main([*base, "--format", "json", *less]) == 0
    [title] = json.loads((folder / "detections.json").read_text())["titles"]
    assert [one["start_s"] for track in title["tracks"] for one in track["detections"]] == [200.0]
    assert {path: path.read_bytes() for path in folder.rglob("*.edl")} == before
    with pytest.raises(AuscultError, match=r"title 'fim\.mkv': not in the table tracks"):
        export.main([*base, "--format", "csv", "--title", "fim.mkv"])
    with pytest.raises(AuscultError, match="scan 'three': not in the table scans"):
        export.main([*base, "--format", "csv", "--scan", "three"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "all"], "needs the picture's --frame-rate"),
        (["--format", "edl"], "needs the picture's --frame-rate"),
        (["--format", "csv", "--start-timecode", "10:00:00:00"], "says nothing without --frame-rate"),
        (["--format", "csv", "--frame-rate", "28"], "10:00"),
        (["--format", "csv", "--out", "s3://bucket/x"], "expected a local folder"),
    ],
)
def test_what_is_wrong_is_told_before_spark_starts(tmp_path, options, message):
    if "28" in options:
        options = [*options, "--start-timecode", "10:00:00:29"]
    with pytest.raises(AuscultError, match=message):
        export.main(["--warehouse", str(tmp_path), "--out", str(tmp_path), *options])


def test_a_warehouse_without_detections_is_told(spark, tmp_path, monkeypatch):
    monkeypatch.setattr(spark, "stop", lambda: None)
    with pytest.raises(AuscultError, match="there is no table detections; scan first"):
        export.main(["--warehouse", str(tmp_path), "--out", str(tmp_path), "--format", "csv"])


def test_releases_and_verdicts_are_all_covered():
    assert RELEASES == ("2026-01", "2026-04")
    spoken = {verdict or handover.UNREVIEWED for verdict in VERDICTS}
    assert spoken == set(handover.COLOURS) == set(handover_ebu_qc.SEVERITIES)
    assert spoken - {handover.UNREVIEWED} == set(review.vocabulary(PROJECT / "conf" / "verdicts.yaml"))
