"""Verdicts beside scans: which survive another delivery, and that they may be written at any time."""

import csv
import shutil
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pytest
from level_catalogue import prepare, run, table
from signals import music_like, write

from jobs import review, tables
from jobs.analyses import analysis
from jobs.storage import Storage
from udfs.fingerprint import is_available


@pytest.fixture(scope="module")
def place(module_folder):
    return prepare(module_folder)


def remux(source: Path, target: Path):
    """The same packets in another container."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.audio[0])
        for packet in old.demux(old.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)


@pytest.mark.slow
def test_which_verdicts_survive_a_redelivery(place, spark):
    """A verdict stays with the packets: under another name and in another container, not re-encoded or recut."""
    first, second = place / "first delivery", place / "second delivery"
    music = music_like(30, 48_000, np.random.default_rng(5)) * 0.4
    for begin, end in ((4, 10), (20, 26)):
        music[:, begin * 48_000 : end * 48_000] = np.sign(music[:, begin * 48_000 : end * 48_000]) * 0.9
    write(first / "film.flac", music)
    assert run(place, catalogue=first.name, warehouse="redelivery") == 0
    warehouse = place / "redelivery"
    found = table(spark, place, "detections", "redelivery").orderBy("start_s").collect()
    assert [(row.start_s, row.end_s) for row in found] == [(4.0, 10.0), (20.0, 26.0)]
    verdicts = place / "verdicts.csv"
    verdicts.write_text(
        "title_id,track,defect,start_s,end_s,verdict\nfilm.flac,0,loud,4,10,creative_intent\nfilm.flac,0,loud,20,26,genuine\n"
    )
    assert review.main(["import", str(verdicts), "--reviewer", "a", "--warehouse", str(warehouse)]) == 0
    second.mkdir()
    shutil.copy(first / "film.flac", second / "renamed.flac")
    remux(first / "film.flac", second / "rewrapped.mka")
    write(second / "re-encoded.opus", music)
    write(second / "recut.flac", music[:, 2 * 48_000 :])
    other = music_like(15, 48_000, np.random.default_rng(6)) * 0.4
    other[:, 4 * 48_000 : 10 * 48_000] = np.sign(other[:, 4 * 48_000 : 10 * 48_000]) * 0.9
    write(second / "other.flac", other)  # as loud, and other music
    assert run(place, catalogue=second.name, warehouse="redelivery") == 0
    sources = {name: table(spark, place, name, "redelivery") for name in ("detections", "reviews", "tracks")}
    said = {}
    for row in analysis(spark, sources, "verdicts").orderBy("start_s").collect():
        said.setdefault(row.title_id, []).append(row.verdict)
    carried = ["creative_intent", "genuine"]
    assert said == {
        "film.flac": carried, "renamed.flac": carried, "rewrapped.mka": carried,
        "re-encoded.opus": [None, None], "recut.flac": [None, None], "other.flac": [None],
    }  # fmt: skip
    asked = {row.title_id for row in analysis(spark, sources, "review_queue").collect()}
    assert asked == {"re-encoded.opus", "recut.flac", "other.flac"}
    if not is_available():
        pytest.skip("Chromaprint is not installed")
    # What sounds the same in other content is offered, and carried over only once somebody confirms it.
    (first / "film.flac").unlink()  # its fingerprint was taken with the verdict
    offered = place / "offered.csv"
    assert review.main(["suggest", "--out", str(offered), "--warehouse", str(warehouse)]) == 0
    with offered.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["title_id"], line["suggested_verdict"], float(line["shift_s"])) for line in lines] == [
        ("re-encoded.opus", "creative_intent", pytest.approx(0, abs=0.1)),
        ("re-encoded.opus", "genuine", pytest.approx(0, abs=0.1)),
        ("recut.flac", "creative_intent", pytest.approx(2, abs=0.1)),
        ("recut.flac", "genuine", pytest.approx(2, abs=0.1)),
    ]
    assert all(float(line["bit_error"]) < 0.1 and not line["verdict"] for line in lines)
    for line in lines[1:]:
        line["verdict"] = line["suggested_verdict"]
    with offered.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    assert review.main(["import", str(offered), "--reviewer", "b", "--warehouse", str(warehouse)]) == 0
    sources["reviews"] = table(spark, place, "reviews", "redelivery")
    left = analysis(spark, sources, "review_queue").collect()
    assert {(row.title_id, row.start_s) for row in left} == {("re-encoded.opus", 4.0), ("other.flac", 4.0)}


@pytest.mark.slow
def test_verdicts_may_be_written_beside_a_running_scan(place, spark):
    """Anything that appends to Delta may write reviews, while a scan commits to the other tables."""
    from deltalake import write_deltalake

    warehouse = place / "beside"
    tables.prepare(spark, Storage(spark, str(warehouse)))
    stopped, written = threading.Event(), []

    def reviewer():
        while not stopped.wait(0.2):
            number = len(written)
            row = {
                "content_hash": [f"h{number}"], "defect": ["loud"], "start_s": [1.0], "end_s": [2.0], "verdict": ["genuine"],
                "cause": [None], "reviewer": ["a"], "note": [None], "reviewed_at": [datetime.now(UTC)], "title_id": ["t"],
                "track": [0],
            }  # fmt: skip
            schema = pa.schema([("cause", pa.string()), ("note", pa.string()), ("track", pa.int32())])
            columns = {
                name: pa.array(values, schema.field(name).type if name in schema.names else None)
                for name, values in row.items()
            }
            write_deltalake(str(warehouse / "reviews"), pa.table(columns), mode="append")
            written.append(number)

    thread = threading.Thread(target=reviewer)
    thread.start()
    try:
        assert run(place, warehouse="beside") == 0
    finally:
        stopped.set()
        thread.join()
    assert len(written) > 3
    assert table(spark, place, "reviews", "beside").count() == len(written)
    assert table(spark, place, "segments", "beside").count() > 0
    assert table(spark, place, "scans", "beside").first().state == "finished"


def test_times_are_written_in_utc_wherever_the_driver_is(spark, monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        frame = spark.sql(
            "SELECT TIMESTAMP '2026-07-01 12:00:00Z' AS `at (UTC)`, CAST(NULL AS TIMESTAMP) AS never, 1 AS n"
        )
        assert tables.times_as_text(frame).collect() == [("2026-07-01T12:00:00.000000Z", None, 1)]
    finally:
        monkeypatch.undo()
        time.tzset()
