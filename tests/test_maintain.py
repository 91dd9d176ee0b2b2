"""Housekeeping on real Delta tables that a real scan wrote: nothing invented, nothing lost, nothing twice."""

import json
import os
import shutil
import threading
import time

import numpy as np
import pytest
import toy_models
from delta.tables import DeltaTable
from pyspark.sql import functions as F
from signals import music_like, write

from jobs import commits, consistency, maintain, scan
from jobs.launch import AuscultError
from jobs.lease import Lease
from jobs.plan import INCOMPLETE, TRANSIENT
from jobs.storage import Storage

FLAC, MP3 = "a b.flac", 'it\'s "x".mp3'  # a title's name is no SQL
SETTINGS = "operating_points:\n  loud: {threshold: 0.3, min_detected_s: 3.0, window_s: 5.0}\n"


@pytest.fixture(scope="module")
def scanned(module_folder, spark):
    """A home with two foreign models, a catalogue of two titles, and the warehouse that a scan made of them."""
    folder = module_folder
    toy_models.register_level(folder / "code")
    toy_models.register_frames(folder / "code")
    music = music_like(12.5, 48_000, np.random.default_rng(1)) * 0.5
    loud = music.copy()
    loud[:, 3 * 48_000 : 9 * 48_000] = np.sign(loud[:, 3 * 48_000 : 9 * 48_000]) * 0.9
    write(folder / "catalogue" / FLAC, loud, 44_100)
    write(folder / "catalogue" / MP3, music, 44_100)
    (folder / "settings.yaml").write_text(SETTINGS)
    assert rescan(folder, folder / "warehouse") == 0
    return folder


@pytest.fixture
def warehouse(scanned, tmp_path):
    """A copy of that warehouse."""
    return shutil.copytree(scanned / "warehouse", tmp_path / "warehouse")


def rescan(folder, warehouse, catalogue=None, models=("level", "frames")):
    chosen = [argument for model in models for argument in ("--model", f"models:/{model}@champion")]
    given = ["--catalogue", str(catalogue or folder / "catalogue"), "--warehouse", str(warehouse)]
    return scan.main([*given, "--settings", str(folder / "settings.yaml"), *chosen])


def maintained(warehouse, *options):
    return maintain.main(["--warehouse", str(warehouse), *options])


def rows(spark, warehouse, name, *without):
    frame = spark.read.format("delta").load(str(warehouse / name)).drop(*without)
    return sorted(map(str, frame.collect()))


def facts(spark, warehouse, *without):
    return {name: rows(spark, warehouse, name, *without) for name in consistency.KEYS}


def versions(spark, warehouse):
    names = [path.name for path in warehouse.iterdir() if (path / "_delta_log").exists()]
    return {name: DeltaTable.forPath(spark, str(warehouse / name)).history(1).first().version for name in names}


def append(frame, warehouse, name):
    frame.write.format("delta").mode("append").save(str(warehouse / name))


def problems(capsys):
    """Rows by kind, as printed; the first table where there are two."""
    found = {}
    for line in capsys.readouterr().out.splitlines():
        if line.startswith(("checked", "after")):
            break
        for kind in (*consistency.ADVICE, "unfinished chunks"):
            if line.startswith(kind):
                found[kind] = int(line[len(kind) :].split()[0])
    return found


@pytest.mark.slow
def test_a_clean_warehouse_is_left_alone(scanned, spark, capsys):
    before = versions(spark, scanned / "warehouse")
    assert maintained(scanned / "warehouse") == 0
    printed = capsys.readouterr().out
    # 13 segments of two channels, and 48 of a downmix, for each of two titles.
    assert "checked 4 groups (content, track, model version) with 148 segments, 2 tracks, 1 detections" in printed
    assert "problem" not in printed
    assert versions(spark, scanned / "warehouse") == before
    assert not (scanned / "warehouse" / "_lease.json").exists()


@pytest.mark.chaos
@pytest.mark.slow
def test_duplicates_are_counted_and_mended_to_what_was_there(scanned, warehouse, spark, capsys):
    before = facts(spark, warehouse)
    segments = spark.read.format("delta").load(str(warehouse / "segments"))
    mp3 = segments.where(F.col("title_id") == MP3).where("model = 'level' AND start_s < 3")
    append(mp3, warehouse, "segments")
    append(mp3.where("start_s = 0 AND channel = 1"), warehouse, "segments")  # of which there are two by now
    # An older scan's copy with another score goes too, whatever it says.
    old = segments.where(F.col("title_id") == FLAC).where("model = 'level' AND channel = 0 AND start_s = 5")
    stale = old.withColumn("scan_id", F.lit("2020")).withColumn("scores", F.expr("map('loud', 0.5F)"))
    append(stale.select(segments.columns), warehouse, "segments")
    for name in ("tracks", "detections"):
        append(spark.read.format("delta").load(str(warehouse / name)).limit(1), warehouse, name)
    assert maintained(warehouse, "--mend", "--dry-run") == maintain.EXIT_PROBLEMS
    expected = {"duplicates in tracks": 1, "duplicates in segments": 9, "duplicates in detections": 1}
    assert problems(capsys) == expected
    version = versions(spark, warehouse)["segments"]
    assert maintained(warehouse, "--mend") == 0
    assert problems(capsys) == expected
    assert facts(spark, warehouse) == before
    assert versions(spark, warehouse)["segments"] == version + 1  # one commit: no kill can come in between
    assert maintained(warehouse, "--check") == 0


@pytest.mark.chaos
@pytest.mark.slow
def test_gaps_are_marked_and_filled_by_the_next_scan(scanned, warehouse, spark, capsys):
    before = facts(spark, warehouse, "scan_id", "scored_with")
    segments = DeltaTable.forPath(spark, str(warehouse / "segments"))
    flac, mp3 = F.col("title_id") == FLAC, F.col("title_id") == MP3
    level, frames = F.col("model") == "level", F.col("model") == "frames"
    segments.delete(flac & level & F.col("start_s").isin(3.0, 4.0) & (F.col("channel") == 0))
    segments.delete(flac & frames)
    segments.delete(mp3 & level & (F.col("channel") == 1))
    segments.delete(mp3 & frames & (F.col("start_s") > 8))
    assert maintained(warehouse) == maintain.EXIT_PROBLEMS
    found = problems(capsys)
    assert found[consistency.BETWEEN] == 2
    assert found[consistency.CHANNELS] == 13
    assert found[consistency.NOTHING] == pytest.approx(48, abs=2)
    assert found[consistency.ENDS] == pytest.approx(15, abs=2)
    assert len(found) == 4
    kept = rows(spark, warehouse, "segments")
    assert maintained(warehouse, "--mend") == 0
    assert "2 tracks wait for the next scan" in capsys.readouterr().out
    assert rows(spark, warehouse, "segments") == kept
    assert INCOMPLETE in TRANSIENT
    assert rescan(scanned, warehouse) == 0
    assert facts(spark, warehouse, "scan_id", "scored_with") == before
    assert maintained(warehouse) == 0


@pytest.mark.slow
def test_last_segments_are_expected_where_another_channel_has_one(warehouse, spark, capsys):
    segments = DeltaTable.forPath(spark, str(warehouse / "segments"))
    off_grid = "abs(start_s / hop - round(start_s / hop)) > 0.01"
    level = "model = 'level' AND " + off_grid.replace("hop", "1.0")
    segments.delete(f"{level} AND channel = 0 AND title_id = '{FLAC}'")
    assert maintained(warehouse) == maintain.EXIT_PROBLEMS
    assert problems(capsys) == {consistency.BETWEEN: 1}
    segments.delete(level)  # as an earlier version left them
    segments.delete("model = 'frames' AND " + off_grid.replace("hop", "0.256"))
    assert maintained(warehouse) == 0
    assert "with 142 segments" in capsys.readouterr().out


@pytest.mark.slow
def test_a_last_segment_in_the_middle_of_a_track_says_nothing_of_the_others(warehouse, spark, capsys):
    """Where sound is missing at the end of a span, its last segment ends where the sound does."""
    where = (F.col("title_id") == MP3) & (F.col("model") == "level")
    segments = DeltaTable.forPath(spark, str(warehouse / "segments"))
    segments.update(where & F.col("start_s").between(4.5, 5.5), {"start_s": "start_s - 0.6", "end_s": "end_s - 0.6"})
    segments.delete(where & (F.col("start_s") == 6))
    DeltaTable.forPath(spark, str(warehouse / "tracks")).update(F.col("title_id") == MP3, {"status": F.lit("partial")})
    assert maintained(warehouse) == 0
    assert problems(capsys) == {}


@pytest.mark.slow
def test_what_damage_left_out_is_no_gap(warehouse, spark, capsys):
    DeltaTable.forPath(spark, str(warehouse / "segments")).delete("start_s BETWEEN 3 AND 5 OR start_s > 8")
    tracks = DeltaTable.forPath(spark, str(warehouse / "tracks"))
    tracks.update(set={"status": "'partial'", "error_code": "'decode_errors'"})
    assert maintained(warehouse) == 0
    capsys.readouterr()
    DeltaTable.forPath(spark, str(warehouse / "segments")).delete(
        (F.col("title_id") == FLAC) & (F.col("model") == "level")
    )
    assert maintained(warehouse) == maintain.EXIT_PROBLEMS
    assert set(problems(capsys)) == {consistency.NOTHING}


@pytest.mark.slow
def test_orphans_go_and_old_content_stays(warehouse, spark, capsys):
    before = facts(spark, warehouse)
    for name, count in (("segments", 7), ("detections", 1)):
        some = spark.read.format("delta").load(str(warehouse / name)).limit(count)
        some = spark.createDataFrame(some.collect(), some.schema)  # read once: the table grows below
        columns = some.columns
        append(some.withColumn("title_id", F.lit("nobody's")).select(columns), warehouse, name)
        append(some.withColumn("content_hash", F.lit("before")).select(columns), warehouse, name)
    assert maintained(warehouse, "--mend") == 0
    assert problems(capsys) == {consistency.UNKNOWN_SEGMENTS: 7, consistency.UNKNOWN_DETECTIONS: 2}
    after = facts(spark, warehouse)
    assert after["detections"] == before["detections"]
    assert len(after["segments"]) == len(before["segments"]) + 7
    assert sum("content_hash='before'" in row for row in after["segments"]) == 7


@pytest.mark.slow
def test_changed_content_is_no_problem(scanned, warehouse, spark, tmp_path):
    catalogue = shutil.copytree(scanned / "catalogue", tmp_path / "catalogue")
    first = rows(spark, warehouse, "segments")
    write(catalogue / FLAC, music_like(8.0, 48_000, np.random.default_rng(9)) * 0.3, 44_100)
    (catalogue / MP3).write_bytes(b"no sound any more")
    listed = tmp_path / "list.jsonl"  # with title_ids, for the other folder's files of these names are still there
    listed.write_text("\n".join(json.dumps({"title_id": name, "uri": f"catalogue/{name}"}) for name in (FLAC, MP3)))
    rescan(scanned, warehouse, listed)
    assert set(first) < set(rows(spark, warehouse, "segments"))  # all of it is kept under its content hash
    assert maintained(warehouse) == 0


@pytest.mark.chaos
@pytest.mark.slow
def test_a_commit_that_was_cut_off_is_finished_and_not_taken_for_orphans(scanned, spark, tmp_path, monkeypatch, capsys):
    original = commits._append_detections

    def dies_after(*args, **kwargs):
        original(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(commits, "_append_detections", dies_after)
    with pytest.raises(KeyboardInterrupt):
        rescan(scanned, tmp_path / "warehouse")
    monkeypatch.setattr(commits, "_append_detections", original)
    capsys.readouterr()
    assert maintained(tmp_path / "warehouse") == maintain.EXIT_PROBLEMS
    assert problems(capsys) == {"unfinished chunks": 1}
    with Lease(Storage(spark, str(tmp_path / "warehouse")), "another"):  # as if its scan were alive
        assert maintained(tmp_path / "warehouse") == 0
        assert "scan another is at work" in capsys.readouterr().out
        with pytest.raises(AuscultError, match="scan another on"):
            maintained(tmp_path / "warehouse", "--mend")
    assert maintained(tmp_path / "warehouse", "--mend") == 0
    assert facts(spark, tmp_path / "warehouse", "scan_id") == facts(spark, scanned / "warehouse", "scan_id")


@pytest.mark.slow
def test_compaction_keeps_rows_beside_appends(warehouse, spark, capsys):
    for name in ("operating_points", "operating_curves", "scans"):
        shutil.rmtree(warehouse / name)
    location = str(warehouse / "notes")  # a table that another job added
    for number in range(8):
        spark.range(number, number + 1).repartition(1).write.format("delta").mode("append").save(location)
    before = facts(spark, warehouse)
    stopped, written = threading.Event(), []

    def appends():
        while not stopped.is_set():
            spark.range(100 + len(written), 101 + len(written)).write.format("delta").mode("append").save(location)
            written.append(1)

    thread = threading.Thread(target=appends)
    thread.start()
    try:
        assert maintained(warehouse, "--compact") == 0
    finally:
        stopped.set()
        thread.join()
    assert written
    history = DeltaTable.forPath(spark, location).history().where("operation = 'OPTIMIZE'").collect()
    assert int(history[0].operationMetrics["numRemovedFiles"]) >= 8
    assert int(history[0].operationMetrics["numAddedFiles"]) == 1
    assert spark.read.format("delta").load(location).count() == 8 + len(written)
    assert facts(spark, warehouse) == before
    assert "notes" in capsys.readouterr().out


@pytest.mark.slow
def test_vacuum_deletes_only_what_is_old(warehouse, spark, capsys):
    for name in ("operating_points", "operating_curves", "reviews", "tracks", "detections"):
        shutil.rmtree(warehouse / name)
    with pytest.raises(AuscultError, match="time travel"):
        maintained(warehouse, "--vacuum", "--retain-h", "1")
    segments = warehouse / "segments"
    kept = rows(spark, warehouse, "segments")
    DeltaTable.forPath(spark, str(segments)).update("start_s = 0", {"scan_id": "scan_id"})
    for hours in (10, 300, 1000):
        (segments / f"stray-{hours}.parquet").touch()
        os.utime(segments / f"stray-{hours}.parquet", (time.time() - hours * 3600,) * 2)
    strays = lambda: {path.name for path in segments.glob("stray*")}  # noqa: E731
    assert maintained(warehouse, "--vacuum", "--dry-run") == 0
    assert "segments             2" in capsys.readouterr().out
    assert len(strays()) == 3
    # Delta by itself heeds no hours but 0.
    assert maintained(warehouse, "--vacuum", "--retain-h", "720") == 0
    assert strays() == {"stray-10.parquet", "stray-300.parquet"}
    files = set(segments.glob("part*"))
    assert maintained(warehouse, "--vacuum", "--retain-h", "0", "--force-retention") == 0
    assert strays() == set()
    assert set(segments.glob("part*")) < files  # what the update replaced
    assert rows(spark, warehouse, "segments") == kept
    assert spark.conf.get("spark.databricks.delta.retentionDurationCheck.enabled", None) is None
    DeltaTable.forPath(spark, str(warehouse / "scans")).update(
        set={"state": "'running'", "started_at": "current_timestamp() - INTERVAL 9 DAYS"}
    )
    with pytest.raises(AuscultError, match="has been running for 216"):
        maintained(warehouse, "--vacuum")


@pytest.mark.slow
def test_a_dry_run_writes_nothing(warehouse, spark, capsys):
    for name in ("operating_points", "operating_curves", "reviews"):
        shutil.rmtree(warehouse / name)
    DeltaTable.forPath(spark, str(warehouse / "segments")).delete("start_s = 4")
    before = versions(spark, warehouse), sorted(warehouse.rglob("*"))
    assert maintained(warehouse, "--mend", "--compact", "--vacuum", "--dry-run") == maintain.EXIT_PROBLEMS
    assert (versions(spark, warehouse), sorted(warehouse.rglob("*"))) == before
    assert "nothing was written" in capsys.readouterr().out


def test_a_wrong_warehouse_is_one_line(spark, tmp_path):
    for location in (tmp_path / "none", f"nosuch://{tmp_path}"):
        with pytest.raises(AuscultError, match="warehouse") as caught:
            maintained(location)
        assert "\n" not in str(caught.value)
    spark.range(1).write.format("delta").save(str(tmp_path / "other" / "t"))
    with pytest.raises(AuscultError, match="no table detections, segments, tracks; scan first"):
        maintained(tmp_path / "other")


@pytest.mark.slow
def test_titles_that_are_gone_are_told_of_and_forgotten_when_asked_to(
    scanned, warehouse, spark, tmp_path, capsys, caplog
):
    """Only those of this catalogue, only on demand, and not where a storage seems to be away."""
    before = facts(spark, warehouse)
    shutil.copytree(scanned / "catalogue", tmp_path / "catalogue")
    other = tmp_path / "other.csv"
    other.write_text("title_id,uri\n" + "".join(f"{name},catalogue/{FLAC}\n" for name in ("x", "y", "z")))
    caplog.set_level("INFO")
    assert rescan(scanned, warehouse, catalogue=other) == 0
    other.write_text(f"title_id,uri\nx,catalogue/{FLAC}\ny,catalogue/{FLAC}\n")
    caplog.clear()
    assert rescan(scanned, warehouse, catalogue=other) == 0
    assert "1 titles that were scanned from this catalogue are not in it any more (z)" in caplog.text
    caplog.clear()
    assert rescan(scanned, warehouse) == 0
    assert "not in it any more" not in caplog.text  # what the other catalogue had is nothing to this one
    assert maintained(warehouse, "--forget-gone", str(other), "--dry-run") == 0
    assert "1 titles of catalogue" in capsys.readouterr().out
    assert {"x", "y", "z"} <= {
        row.title_id for row in spark.read.format("delta").load(str(warehouse / "tracks")).collect()
    }
    assert maintained(warehouse, "--forget-gone", str(other)) == 0
    for name in consistency.KEYS:
        titles = {row.title_id for row in spark.read.format("delta").load(str(warehouse / name)).collect()}
        assert {"x", "y"} <= titles, name
        assert "z" not in titles, name
    other.write_text("title_id,uri\nnew,catalogue/a.flac\n")
    with pytest.raises(AuscultError, match="2 of 2 titles would be forgotten"):
        maintained(warehouse, "--forget-gone", str(other))
    assert maintained(warehouse, "--forget-gone", str(other), "--force-forget") == 0
    assert facts(spark, warehouse) == before
    other.write_text("title_id,uri\n")
    with pytest.raises(AuscultError, match="there are no titles in it; is its storage mounted"):
        maintained(warehouse, "--forget-gone", str(other))
