"""The job that hands over: its files, its options, and what it says of bad ones."""

import json
from datetime import UTC, datetime
from xml.etree import ElementTree

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from handovers import AWKWARD, NOW, PAL, ebu_schema, read_csv, read_edl, read_labels, row
from pyspark.sql.pandas.types import to_arrow_schema

from jobs import export
from jobs.handover import Handover
from jobs.launch import AuscultError
from udfs.schemas import TABLES


@pytest.fixture(scope="module")
def schema():
    return ebu_schema()


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
    applied = [{"model": "m", "model_version": "1", "defect": defect, "threshold": 0.9} for defect in ("hum", "clip")]
    filled = {
        "detections": detections,
        "tracks": tracks,
        "reviews": reviews,
        "scans": [{"scan_id": "one"}, {"scan_id": "two", "settings": json.dumps({"applied_points": applied})}],
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
    with pytest.raises(
        AuscultError, match=r"--defect Hum: no scan .* looked for it; known there are click, clip, hiss, hum$"
    ):
        export.main([*base, "--format", "csv", "--defect", "Hum"])
    capsys.readouterr()
    assert export.main([*base, "--format", "csv", "--defect", "clip"]) == 0  # looked for and not found
    assert "0 detections in 0 titles written" in capsys.readouterr().out
    assert export.main([*base, "--format", "csv"]) == 0
    lines = read_csv((folder / "detections.csv").read_text())
    version = f"{lines[0]['model']}/{lines[0]['model_version']}"
    assert export.main([*base, "--format", "csv", "--model", version]) == 0
    mine = [line for line in lines if f"{line['model']}/{line['model_version']}" == version]
    assert read_csv((folder / "detections.csv").read_text()) == mine
    with pytest.raises(
        AuscultError, match="--model nobody/1: nothing was scored with it; known there are .*" + version
    ):
        export.main([*base, "--format", "csv", "--model", "nobody/1"])


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
