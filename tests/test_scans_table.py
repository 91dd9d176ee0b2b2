"""The rows of `scans`: what a run tells the next one."""

import json

from jobs import interrupted, tables
from jobs.literals import literal_frame
from jobs.settings import OperatingPoint, ScanSettings
from jobs.storage import Storage
from udfs.schemas import TRACKS

POINT = OperatingPoint(0.9, 3.0, 5.0, ("LFE",))


def begun(spark, storage, scan_id, points):
    row = tables.new_scan(scan_id, "/media", ScanSettings(), [], points, None)
    tables.begin_scan(spark, storage, row)
    return row


def test_other_operating_points_than_before_are_told(spark, tmp_path):
    storage = Storage(spark, str(tmp_path / "w"))
    tables.prepare(spark, storage)
    hum, hiss = ("m", "1", "hum"), ("m", "1", "hiss")
    tables.end_scan(spark, storage, {**begun(spark, storage, "first", {hum: POINT, hiss: POINT}), "titles_done": 1})
    assert tables.changed_points(spark, storage, {hum: POINT, hiss: POINT, ("m", "2", "hum"): OperatingPoint()}) == []
    other = OperatingPoint(0.5, 3.0, 5.0, ("LFE",))
    [warning] = tables.changed_points(spark, storage, {hum: other, hiss: POINT})
    assert warning.startswith("operating points of hum are others than those of first: ")
    row = begun(spark, storage, "second", {hum: other})
    [warning] = tables.changed_points(spark, storage, {hum: other, hiss: POINT})  # that one has scored nothing so far
    applied = json.loads(row["settings"])
    applied["applied_points"][0]["of_a_later_version"] = 1
    tables.end_scan(spark, storage, {**row, "settings": json.dumps(applied), "titles_done": 1})
    assert tables.changed_points(spark, storage, {hum: other, hiss: POINT}) == []


def test_what_a_dead_scan_did_is_counted(spark, tmp_path):
    storage = Storage(spark, str(tmp_path / "w"))
    tables.prepare(spark, storage)
    begun(spark, storage, "dead", {})
    ended = begun(spark, storage, "done", {})
    tables.end_scan(spark, storage, {**ended, "state": "finished", "titles_done": 7})
    tracks = [
        {"title_id": "a", "track": 0, "status": "ok", "decoded_s": 1800.0, "scored_with": ["m/1"], "scan_id": "dead"},
        {"title_id": "a", "track": 1, "status": "rejected", "decoded_s": 0.0, "scored_with": [], "scan_id": "dead"},
        {
            "title_id": "b",
            "track": 0,
            "status": "partial",
            "decoded_s": 900.0,
            "scored_with": ["m/1"],
            "scan_id": "dead",
        },
        {"title_id": "c", "track": None, "status": "rejected", "decoded_s": 0.0, "scored_with": [], "scan_id": "dead"},
        {"title_id": "d", "track": 0, "status": "ok", "decoded_s": 1.0, "scored_with": ["m/1"], "scan_id": "done"},
    ]
    rows = [tuple(track.get(name) for name in TRACKS.names) for track in tracks]
    literal_frame(spark, rows, TRACKS).write.format("delta").mode("append").save(storage.locate("tracks"))
    failed = begun(spark, storage, "failed", {})
    tables.end_scan(spark, storage, {**failed, "state": "failed", "titles_done": 3, "titles_rejected": 4})
    interrupted.close(spark, storage, ["done", "failed"])
    found = {row.scan_id: row for row in tables.read(spark, storage, "scans").collect()}
    dead, done = found["dead"], found["done"]
    assert (dead.state, dead.titles_done, dead.titles_rejected, dead.audio_done_h) == ("interrupted", 2, 1, 0.75)
    assert (done.state, done.titles_done) == ("finished", 7)
    assert (found["failed"].titles_done, found["failed"].titles_rejected) == (3, 4)
