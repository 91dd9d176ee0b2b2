"""Hand-over files but the EBU's reports, each read back by a reader of its own."""

import json
import re
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from handovers import AWKWARD, NOW, PAL, ROWS, judged, read_csv, read_edl, read_labels, row
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs import export, handover, review
from jobs.handover import Handover, audacity_text, csv_text, edl_text, file_stem, json_text
from jobs.launch import PROJECT
from jobs.timecode import timeline
from udfs.schemas import DETECTIONS, REVIEWS, TRACKS


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
