"""The demo catalogue where no recordings are to be had, and the table that compares a scan with it."""

import csv
from dataclasses import replace

import pytest

from jobs import demo
from jobs.launch import AuscultError
from jobs.recordings import RecordingsUnavailable
from jobs.storage import Storage
from udfs.media import MediaError, probe
from udfs.schemas import DETECTIONS


def shortened(title):
    parts = tuple(replace(part, at=((3.0, 8.0),) if part.at else ()) for part in title.parts)
    return replace(title, seconds=10.0, parts=parts)


def test_without_packages_a_stand_in_of_equal_shape_is_built(tmp_path, monkeypatch, caplog):
    def fetch(packages, folder):
        raise RecordingsUnavailable("apt-get and dpkg are not on this machine")

    wanted = {
        "album/02 caves.mp3",
        "film/two languages.mkv",
        "film/surround.mp4",
        "broken/no index.m4a",
        "broken/cut off.mp3",
    }
    titles = tuple(shortened(title) for title in demo.TITLES if title.name in wanted)
    monkeypatch.setattr(demo, "fetch", fetch)
    monkeypatch.setattr(demo, "TITLES", titles)
    assert demo.main(["build", str(tmp_path / "demo")]) == 0
    assert "SYNTHESISED" in caplog.text
    assert "SYNTHESISED" in (tmp_path / "demo" / "README.txt").read_text()
    for title in titles:
        path = tmp_path / "demo" / title.name
        if title.spoil == "half":
            assert probe(str(path))[0].duration_s == pytest.approx(title.seconds / 2, abs=0.3)
            continue
        if title.spoil:
            with pytest.raises(MediaError):
                probe(str(path))
            continue
        tracks = probe(str(path))
        assert [track.channels for track in tracks] == [{"stereo": 2, "5.1": 6}[part.layout] for part in title.parts]
        assert all(track.duration_s == pytest.approx(title.seconds, abs=0.2) for track in tracks)
    with open(tmp_path / "demo" / "planted.csv", newline="") as file:
        planted = {(row["title_id"], int(row["track"]), row["defect"]) for row in csv.DictReader(file)}
    assert planted == {
        ("album/02 caves.mp3", 0, "hum"),
        ("film/two languages.mkv", 1, "hum"),
        ("film/surround.mp4", 0, "hiss"),
        ("broken/cut off.mp3", 0, "missing_audio"),
    }


def test_the_table_compares_the_newest_version_with_what_was_planted(tmp_path, spark):
    def detection(version, title, defect, start_s, end_s, peak):
        values = dict.fromkeys(DETECTIONS.names) | {
            "title_id": title,
            "track": 0,
            "defect": defect,
            "start_s": start_s,
            "end_s": end_s,
            "peak_score": peak,
            "model": "audio-artifacts",
            "model_version": version,
        }
        return tuple(values.values())

    surround, caves = "film/surround.mp4", "album/02 caves.mp3"
    rows = [
        detection("9", surround, "hiss", 45.0, 75.0, 0.5),
        detection("10", surround, "hiss", 45.0, 60.0, 0.75),
        detection("10", surround, "hiss", 62.0, 74.0, 1.0),
        detection("10", surround, "hum", 45.0, 75.0, 1.0),
        detection("10", "elsewhere.wav", "hum", 45.0, 75.0, 1.0),
    ]
    storage = Storage(spark, str(tmp_path / "warehouse"))
    spark.createDataFrame(rows, DETECTIONS).write.format("delta").save(storage.locate("detections"))
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / demo.PLANTED).write_text(
        f"title_id,track,defect,start_s,end_s\n{surround},0,hiss,45,75\n{caves},0,hum,10,20\n"
    )
    assert list(demo.compare(folder, storage.root))[2:] == [
        f"| {surround} | 0 | hiss | 45-75 s | found | 45-60 s, 62-74 s | 1.00 |",
        f"| {caves} | 0 | hum | 10-20 s | missed |  |  |",
        f"| {surround} | 0 | hum | nothing | false | 45-75 s | 1.00 |",
        "",
        "1 found, 1 missed, 1 false",
    ]
    with pytest.raises(AuscultError, match="there is no table detections; scan first"):
        list(demo.compare(folder, str(tmp_path / "warehous")))
