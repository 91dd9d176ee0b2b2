"""The scan from catalogue to tables, on real files, real Delta and real MLflow, with foreign models."""

import csv
import json
import os
import shutil
import threading
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pytest
import toy_models
from pyspark.sql import functions as F
from pyspark.sql.types import LongType, StructField, StructType
from signals import music_like, write

from jobs import commits, plan, planner, review, scan, tables
from jobs.analyses import analysis
from jobs.launch import AuscultError
from jobs.spot_check import register_defect_scores
from jobs.storage import Storage
from udfs.encode import AudioTrack, write_media
from udfs.fingerprint import is_available
from udfs.schemas import TABLES
from udfs.stages import WORK

SETTINGS = """
operating_points:
  loud: {threshold: 0.3, min_detected_s: 3.0, window_s: 5.0}
"""
FILES = {
    "music/a b.flac": 44_100,
    "music/x=1/b.mp3": 44_100,
    "_odd/.hidden.opus": 48_000,
    "été/c.m4a": 48_000,
}


@pytest.fixture(scope="module")
def place(module_folder):
    """A home with two foreign models, and a catalogue of good and broken files."""
    folder = module_folder
    toy_models.register_level(folder / "code")
    toy_models.register_frames(folder / "code")
    music = music_like(12.5, 48_000, np.random.default_rng(1)) * 0.5
    loud = music.copy()
    loud[:, 3 * 48_000 : 9 * 48_000] = np.sign(loud[:, 3 * 48_000 : 9 * 48_000]) * 0.9
    catalogue = folder / "catalogue"
    for number, (name, rate) in enumerate(FILES.items()):
        write(catalogue / name, loud if number == 0 else music, rate)
    write_media(
        catalogue / "film.mkv",
        [
            AudioTrack(music, 48_000, "stereo", "eng"),
            AudioTrack(np.repeat(music[:1], 6, axis=0), 48_000, "5.1", "fra"),
        ],
        picture=True,
    )
    write(catalogue / "half.wav", music)
    os.truncate(catalogue / "half.wav", (catalogue / "half.wav").stat().st_size // 2)
    (catalogue / "noise.mp3").write_bytes(np.random.default_rng(0).bytes(5000))
    (catalogue / "empty.flac").touch()
    (catalogue / "cover.jpg").write_bytes(b"x")
    (folder / "settings.yaml").write_text(SETTINGS)
    return folder


def run(place, *more, catalogue="catalogue", warehouse="warehouse"):
    return scan.main(
        [
            "--catalogue", str(place / catalogue), "--warehouse", str(place / warehouse),
            "--settings", str(place / "settings.yaml"), "--model", "models:/level@champion", *more,
        ]
    )  # fmt: skip


def table(spark, place, name, warehouse="warehouse"):
    return spark.read.format("delta").load(str(place / warehouse / name))


def segment_rows(spark, place, warehouse="warehouse"):
    """All of the table segments but the scan's id, comparable and sorted."""
    rows = table(spark, place, "segments", warehouse).drop("scan_id").collect()
    return sorted(
        tuple(tuple(sorted(value.items())) if isinstance(value, dict) else value for value in row) for row in rows
    )


@pytest.fixture(scope="module")
def scanned(place, spark):
    assert run(place) == 0
    return place


def test_tracks_tell_each_file_once(scanned, spark):
    rows = {(row.title_id, row.track): row for row in table(spark, scanned, "tracks").collect()}
    assert len(rows) == table(spark, scanned, "tracks").count()
    assert set(rows) == {
        *((name, 0) for name in FILES),
        ("film.mkv", 0), ("film.mkv", 1), ("half.wav", 0), ("noise.mp3", None), ("empty.flac", None),
    }  # fmt: skip
    assert {row.status for key, row in rows.items() if key[0] in FILES or key[0] == "film.mkv"} == {"ok"}
    assert rows["half.wav", 0].status == "partial"
    assert rows["half.wav", 0].error_code == "truncated"
    assert rows["empty.flac", None].error_code == "empty"
    assert rows["noise.mp3", None].status == "rejected"
    assert rows["film.mkv", 1].language == "fra"
    assert rows["film.mkv", 1].channel_layout == "5.1"
    for row in rows.values():
        if row.status == "ok":
            assert row.decoded_s == pytest.approx(12.5, abs=0.1)
            assert row.scored_with == ["decoder/1", "level/1"]


def test_segments_lie_on_the_titles_grid(scanned, spark):
    rows = table(spark, scanned, "segments").where("model = 'level'").collect()
    film = [row for row in rows if (row.title_id, row.track) == ("film.mkv", 1)]
    assert {row.channel_name for row in film} == {"FL", "FR", "FC", "LFE", "BL", "BR"}
    assert {row.channel for row in film} == set(range(6))
    by_place = {(row.title_id, row.track, row.channel, row.start_s) for row in rows}
    assert len(by_place) == len(rows)
    starts = sorted(row.start_s for row in film if row.channel == 0)
    assert starts[:-1] == [float(second) for second in range(12)]
    assert starts[-1] == pytest.approx(11.5, abs=0.01)  # ends where the track does
    for row in rows:
        assert row.end_s - row.start_s == 1.0
        assert set(row.scores) == {"quiet", "loud"}
        assert sum(row.scores.values()) == pytest.approx(1.0, abs=1e-5)


def test_detections_find_the_loud_stretch(scanned, spark):
    row, cut_off = table(spark, scanned, "detections").orderBy(F.desc("model")).collect()
    assert (cut_off.title_id, cut_off.defect, cut_off.model) == ("half.wav", "missing_audio", "decoder")
    assert (cut_off.start_s, cut_off.end_s) == pytest.approx((6.25, 12.5), abs=0.01)
    assert (row.title_id, row.track, row.defect, row.start_s, row.end_s) == ("music/a b.flac", 0, "loud", 3.0, 9.0)
    assert (row.detected_s, row.channels, row.threshold) == (6.0, ["FL", "FR"], 0.3)
    assert row.peak_score == pytest.approx(0.9, abs=0.02)


def test_scans_keep_what_was_done(scanned, spark):
    row = table(spark, scanned, "scans").orderBy("started_at").first()
    assert (row.state, row.titles_done, row.titles_rejected, row.titles_skipped) == ("finished", 6, 2, 0)
    assert row.audio_done_h == pytest.approx((6 * 12.5 + 6.25) / 3600, rel=0.02)
    assert row.models[0].name == "level"
    assert len(row.models[0].digest) == 64
    assert json.loads(row.settings)["operating_points"]["loud"]["threshold"] == 0.3


def test_scans_tell_where_the_time_went(scanned, spark):
    [stages] = [row.stages_s for row in table(spark, scanned, "scans").where("titles_done > 0").collect()][:1]
    waits = {"await_audio", "await_decoder", "await_model", "send", "plan", "score", "commit"}
    assert set(WORK) - {"front_end"} | waits == set(stages)  # the stand-in model counts no front end
    assert all(seconds >= 0 for seconds in stages.values())
    assert stages["decode"] > 0
    # What one thread does in turn fits into the time that the tasks had: two at a time here.
    for thread in (("model", "rows", "write", "await_audio"), ("decode", "resample", "send")):
        assert sum(stages[name] for name in thread) <= 2 * stages["score"]


def test_a_warehouse_of_an_earlier_version_gets_the_new_columns(place, spark, tmp_path):
    storage = Storage(spark, str(tmp_path / "warehouse"))
    earlier = [field for field in TABLES["scans"] if field.name not in ("stages_s", "audio_h_per_h")]
    tables.create(spark, storage.locate("scans"), StructType(earlier))
    spark.createDataFrame([("old",)], "scan_id string").write.format("delta").mode("append").save(
        storage.locate("scans")
    )
    tables.prepare(spark, storage)
    found = tables.read(spark, storage, "scans")
    assert {field.name: field.metadata for field in found.schema} == {
        field.name: field.metadata for field in TABLES["scans"]
    }
    [row] = found.collect()
    assert (row.scan_id, row.stages_s) == ("old", None)
    tables.prepare(spark, storage)  # and leaves them alone
    assert tables.read(spark, storage, "scans").count() == 1
    wrong = spark.createDataFrame([], StructType([StructField("scan_id", LongType())]))
    wrong.write.format("delta").save(str(tmp_path / "other" / "scans"))
    with pytest.raises(AuscultError, match=r"table scans has columns \['scan_id'\] of other types"):
        tables.prepare(spark, Storage(spark, str(tmp_path / "other")))


def test_rerun_decodes_nothing_and_changes_nothing(scanned, spark, monkeypatch):
    before = segment_rows(spark, scanned)
    tracks = sorted(map(str, table(spark, scanned, "tracks").collect()))
    detections = table(spark, scanned, "detections").collect()

    def forbidden(*_):
        raise AssertionError("a rerun opened a title")

    monkeypatch.setattr(planner.Planner, "probe", lambda self, titles: {} if not titles else forbidden())
    assert run(scanned) == 0
    assert segment_rows(spark, scanned) == before
    assert sorted(map(str, table(spark, scanned, "tracks").collect())) == tracks
    assert table(spark, scanned, "detections").collect() == detections


def test_every_reader_finds_the_same(scanned, spark):
    import duckdb
    from deltalake import DeltaTable

    for name in TABLES:
        count = table(spark, scanned, name).count()
        delta = DeltaTable(str(scanned / "warehouse" / name))
        assert delta.to_pyarrow_dataset().count_rows() == count
        fields = {field.name: field for field in delta.schema().fields}
        assert all(fields[column.name].metadata.get("comment") for column in TABLES[name])
        dataset = delta.to_pyarrow_dataset()  # noqa: F841 - DuckDB reads it by its name
        assert duckdb.sql("SELECT count(*) FROM dataset").fetchall() == [(count,)]
    segments = DeltaTable(str(scanned / "warehouse" / "segments")).to_pyarrow_dataset()  # noqa: F841
    query = "SELECT title_id, max(scores['loud']) AS loud FROM segments GROUP BY 1 ORDER BY 2 DESC"
    assert duckdb.sql(query).fetchall()[0][0] == "music/a b.flac"


@pytest.mark.slow
def test_other_operating_points_apply_to_stored_scores(scanned, spark, capsys):
    from jobs import detect

    lower = scanned / "lower.yaml"
    lower.write_text(SETTINGS.replace("threshold: 0.3, min_detected_s: 3.0", "threshold: 0.2, min_detected_s: 1.0"))
    shutil.copytree(scanned / "warehouse", scanned / "refiltered")
    given = ["--warehouse", str(scanned / "refiltered"), "--settings", str(lower)]
    columns = [name for name in TABLES["detections"].names if name != "scan_id"]

    def found(warehouse):
        return sorted(map(str, table(spark, scanned, "detections", warehouse).select(columns).collect()))

    before = found("refiltered")
    assert detect.main([*given, "--dry-run"]) == 0
    assert "nothing was written" in capsys.readouterr().out
    assert found("refiltered") == before
    for _ in range(2):  # the second time changes nothing
        assert detect.main(given) == 0
        rows = table(spark, scanned, "detections", "refiltered").where("model = 'level'").collect()
        assert {(row.threshold, row.min_detected_s) for row in rows} == {(0.2, 1.0)}
        runs = table(spark, scanned, "scans", "refiltered").where("catalogue = 'stored scores'")
        assert {row.scan_id for row in rows} <= {row.scan_id for row in runs.collect()}
    # What a scan with these points would have found.
    model = ["--model", "models:/level@champion", "--settings", str(lower)]
    assert scan.main(["--catalogue", str(scanned / "catalogue"), "--warehouse", str(scanned / "afresh"), *model]) == 0
    assert found("refiltered") == found("afresh") != before


@pytest.mark.slow
def test_a_changed_file_is_scanned_anew_and_only_that(place, spark, tmp_path):
    folder = tmp_path / "cat"
    shutil.copytree(place / "catalogue" / "music", folder)
    shutil.copy(place / "settings.yaml", tmp_path / "settings.yaml")
    assert run(tmp_path, catalogue="cat") == 0
    first = {row.title_id: row for row in table(spark, tmp_path, "tracks").collect()}
    assert table(spark, tmp_path, "detections").count() == 1
    quiet = music_like(8.0, 48_000, np.random.default_rng(9)) * 0.3
    write(folder / "a b.flac", quiet, 44_100)
    shutil.move(folder / "x=1" / "b.mp3", folder / "moved.mp3")  # the same content under another name is another title
    os.utime(folder / "moved.mp3")
    assert run(tmp_path, catalogue="cat") == 0
    second = {row.title_id: row for row in table(spark, tmp_path, "tracks").collect()}
    assert second["a b.flac"].content_hash != first["a b.flac"].content_hash
    assert second["a b.flac"].duration_s == pytest.approx(8.0, abs=0.1)
    assert second["moved.mp3"].content_hash == first["x=1/b.mp3"].content_hash
    assert second["x=1/b.mp3"].scan_id == first["x=1/b.mp3"].scan_id
    assert table(spark, tmp_path, "detections").count() == 0  # the loud stretch is gone
    rows = table(spark, tmp_path, "segments").where("title_id = 'a b.flac'").collect()
    assert len([row for row in rows if row.content_hash == second["a b.flac"].content_hash]) == 16
    os.utime(folder / "a b.flac")  # touched, not changed: opened once, not scored
    assert run(tmp_path, catalogue="cat") == 0
    assert table(spark, tmp_path, "segments").where("title_id = 'a b.flac'").count() == len(rows)
    [renewed] = table(spark, tmp_path, "tracks").where("title_id = 'a b.flac'").collect()
    kept = second["a b.flac"]
    assert renewed.modified_at > kept.modified_at
    assert (renewed.content_hash, renewed.decoded_s, renewed.status, renewed.scored_with) == (
        kept.content_hash, kept.decoded_s, kept.status, kept.scored_with,
    )  # fmt: skip
    [last] = table(spark, tmp_path, "scans").orderBy(F.desc("started_at")).limit(1).collect()
    assert (last.titles_done, last.audio_done_h) == (0, 0.0)


@pytest.mark.slow
def test_a_second_model_is_scored_alone_and_two_decode_once(place, spark, tmp_path, monkeypatch):
    shutil.copytree(place / "catalogue" / "music", tmp_path / "cat")
    shutil.copy(place / "settings.yaml", tmp_path / "settings.yaml")
    assert run(tmp_path, catalogue="cat", warehouse="one") == 0
    assert run(tmp_path, "--model", "models:/frames/1", catalogue="cat", warehouse="one") == 0
    assert run(tmp_path, "--model", "models:/frames@champion", catalogue="cat", warehouse="both") == 0
    assert segment_rows(spark, tmp_path, "one") == segment_rows(spark, tmp_path, "both")
    rows = table(spark, tmp_path, "segments", "both").where("model = 'frames'").collect()
    assert {(row.channel, row.channel_name) for row in rows} == {(-1, "MIX")}
    first = sorted((row.start_s, row.end_s) for row in rows if row.title_id == "a b.flac")[:2]
    assert first == [(0.0, 0.512), (0.256, 0.768)]
    assert all(set(row.scores) == {"low", "high"} for row in rows)
    tracks = table(spark, tmp_path, "tracks", "one").collect()
    assert {tuple(row.scored_with) for row in tracks} == {("decoder/1", "frames/1", "level/1")}


@pytest.mark.slow
def test_titles_whose_file_is_the_same_are_decoded_once(place, spark, tmp_path, monkeypatch):
    """Copies in the same chunk, in a later one and in a later scan, with one model and with two: rows as without sharing."""
    names = {"a.flac": "music/a b.flac", "b.mkv": "film.mkv", "noise.mp3": "noise.mp3", "half.wav": "half.wav"}
    for folder in ("one", "two", "three"):
        (tmp_path / "catalogue" / folder).mkdir(parents=True)
        for name, source in names.items():
            shutil.copy(place / "catalogue" / source, tmp_path / "catalogue" / folder / name)
    (tmp_path / "shared.yaml").write_text(SETTINGS + "chunk_channel_h_per_core: 0.01\ntasks_per_core: 1\n")
    (tmp_path / "apart.yaml").write_text(SETTINGS + "equal_titles_once: false\n")
    scored = []
    assign = plan.assign_tasks

    def counted(plans, tasks):
        spans, weights = assign(plans, tasks)
        for span in spans:  # the decoder's findings come along
            scored.append((span.title_id, span.track, tuple(key for key in span.models if key != "decoder/1")))
        return spans, weights

    monkeypatch.setattr(plan, "assign_tasks", counted)

    def scanned(how, *models, chunk=None):
        settings = tmp_path / f"{how}.yaml"
        if chunk is not None:
            settings = tmp_path / "large.yaml"
            settings.write_text(SETTINGS)
        scored.clear()
        options = [part for model in models for part in ("--model", f"models:/{model}@champion")]
        assert scan.main(
            ["--catalogue", str(tmp_path / "catalogue"), "--warehouse", str(tmp_path / how), "--settings", str(settings), *options]
        ) == 0  # fmt: skip
        return {(title_id.partition("/")[2], track, model) for title_id, track, models in scored for model in models}

    def rows(how):
        found = {}
        for name in ("segments", "detections", "tracks"):
            frame = spark.read.format("delta").load(str(tmp_path / how / name)).drop("scan_id")
            found[name] = sorted(str(row) for row in frame.collect())
        return found

    everything = scanned("apart", "level", "frames")
    assert len(scored) == 3 * len({(title, track) for title, track, _ in everything})
    kept = shutil.move(tmp_path / "catalogue" / "three", tmp_path / "three")
    assert scanned("shared", "level", chunk="large") <= everything  # one and two in one chunk
    assert len({(title, track) for title, track, _ in scored}) == len(scored) == len(everything) // 2
    shutil.move(kept, tmp_path / "catalogue" / "three")
    assert {model for _, _, model in scanned("shared", "level")} <= {"level/1"}  # three alone, of the table
    assert {title.partition("/")[2] for title, _, _ in scored} <= {"half.wav"}  # it is partial: nobody's model
    scanned("shared", "level", "frames")  # the second model, in several chunks
    assert {models for _, _, models in scored if models != ("frames/1",)} == set()
    assert Counter(title.partition("/")[2] for title, _, _ in scored)["a.flac"] == 1
    shared, apart = rows("shared"), rows("apart")
    for name in apart:
        assert shared[name] == apart[name], name
    assert len(shared["detections"]) >= 3
    scanned("shared", "level", "frames")
    assert scored == []


@pytest.mark.slow
@pytest.mark.parametrize("span_s", [2, 5])
def test_spans_and_tasks_do_not_show(place, scanned, spark, tmp_path, span_s):
    (tmp_path / "settings.yaml").write_text(
        SETTINGS
        + f"span_s: {span_s}\nfrom_start_span_s: {span_s}\ntasks_per_core: {6 - span_s}\nbatch_segments: 7\n"
        + f"chunk_channel_h_per_core: {0.004 * span_s}\n"
    )
    assert scan.main(
        [
            "--catalogue", str(place / "catalogue"), "--warehouse", str(tmp_path / "warehouse"),
            "--settings", str(tmp_path / "settings.yaml"), "--model", "models:/level@champion",
        ]
    ) == 0  # fmt: skip
    assert segment_rows(spark, tmp_path) == segment_rows(spark, scanned)
    assert table(spark, tmp_path, "detections").drop("scan_id").collect() == (
        table(spark, scanned, "detections").drop("scan_id").collect()
    )


def test_tasks_are_those_that_were_planned(spark):
    def count_rows(batches):  # nested, so that Spark ships it by value
        import pyarrow as pa

        yield pa.RecordBatch.from_pydict({"rows": pa.array([sum(batch.num_rows for batch in batches)], pa.int64())})

    rows = [(task, f"t{task}-{n}") for task in range(7) for n in range(task + 1)]
    frame = spark.createDataFrame(rows, "task int, title string").repartitionById(7, "task")
    sizes = frame.mapInArrow(count_rows, "rows long").collect()
    assert sorted(row.rows for row in sizes) == list(range(1, 8))


@pytest.mark.slow
@pytest.mark.parametrize("step", ["_append", "_append_detections", "merge_tracks"])
def test_an_interrupted_commit_is_finished_by_the_next_scan(place, spark, tmp_path, monkeypatch, step):
    shutil.copy(place / "settings.yaml", tmp_path / "settings.yaml")
    shutil.copytree(place / "catalogue" / "music", tmp_path / "catalogue")
    original = getattr(commits, step)

    def dies_after(*args, **kwargs):
        original(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(commits, step, dies_after)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    monkeypatch.setattr(commits, step, original)
    monkeypatch.setattr(scan.Scan, "_score_chunk", None)  # all there is to do is to finish the commit
    assert run(tmp_path) == 0
    rows = table(spark, tmp_path, "segments").collect()
    assert len(rows) == 2 * 2 * 13
    assert len({(row.title_id, row.track, row.channel, row.start_s) for row in rows}) == len(rows)
    assert table(spark, tmp_path, "detections").count() == 1
    assert table(spark, tmp_path, "tracks").count() == 2


@pytest.mark.slow
def test_what_an_accident_left_is_replaced_and_neighbours_stay(place, spark, tmp_path):
    """A track whose decoder hung is scored again by the next scan; the file's other track is left alone."""
    from delta.tables import DeltaTable

    (tmp_path / "catalogue").mkdir()
    shutil.copy(place / "catalogue" / "film.mkv", tmp_path / "catalogue")
    (tmp_path / "settings.yaml").write_text(
        "operating_points: {loud: {threshold: 0.01, min_detected_s: 1, window_s: 2}}\n"
    )
    assert run(tmp_path) == 0
    tracks = spark.read.format("delta").load(str(tmp_path / "warehouse" / "tracks"))
    before = segment_rows(spark, tmp_path)
    detections = sorted(map(str, table(spark, tmp_path, "detections").drop("scan_id").collect()))
    assert detections
    DeltaTable.forPath(spark, str(tmp_path / "warehouse" / "tracks")).update(
        "track = 1", {"status": "'partial'", "error_code": "'timeout'"}
    )
    first = tracks.first().scan_id
    assert run(tmp_path) == 0
    assert segment_rows(spark, tmp_path) == before
    assert sorted(map(str, table(spark, tmp_path, "detections").drop("scan_id").collect())) == detections
    rows = {row.track: row for row in table(spark, tmp_path, "tracks").collect()}
    assert rows[1].status == "ok"
    assert rows[0].scan_id == first != rows[1].scan_id
    (tmp_path / "catalogue" / "film.mkv").write_text("replaced by something else")
    assert run(tmp_path) == scan.EXIT_TOO_MANY_REJECTED
    assert table(spark, tmp_path, "detections").count() == 0
    assert [row.error_code for row in table(spark, tmp_path, "tracks").collect()] == ["not_media"]


@pytest.mark.slow
def test_a_title_that_was_away_or_another_for_a_while_is_stored_once(place, spark, tmp_path):
    catalogue = tmp_path / "catalogue"
    shutil.copytree(place / "catalogue" / "music", catalogue)
    (tmp_path / "settings.yaml").write_text(SETTINGS + "max_rejected_share: 1.0\n")
    listed = tmp_path / "list.csv"
    listed.write_text("title_id,uri\none,catalogue/a b.flac\ntwo,catalogue/x=1/b.mp3\n")
    assert run(tmp_path, catalogue="list.csv") == 0
    before = segment_rows(spark, tmp_path)
    detections = sorted(map(str, table(spark, tmp_path, "detections").drop("scan_id").collect()))
    # Away for one scan, as a disk that was not mounted.
    (catalogue / "a b.flac").rename(tmp_path / "kept.flac")
    assert run(tmp_path, catalogue="list.csv") == 0
    assert table(spark, tmp_path, "tracks").where("title_id = 'one'").first().error_code == "not_found"
    (tmp_path / "kept.flac").rename(catalogue / "a b.flac")
    assert run(tmp_path, catalogue="list.csv") == 0
    assert segment_rows(spark, tmp_path) == before
    assert sorted(map(str, table(spark, tmp_path, "detections").drop("scan_id").collect())) == detections
    # Another for one scan: what that one had stays under its content, and what comes back is there once.
    shutil.copy(catalogue / "a b.flac", tmp_path / "kept.flac")
    write(catalogue / "a b.flac", music_like(3.0, 48_000, np.random.default_rng(5)))
    assert run(tmp_path, catalogue="list.csv") == 0
    other = [row for row in segment_rows(spark, tmp_path) if row not in before]
    assert len(other) == 6
    shutil.copy(tmp_path / "kept.flac", catalogue / "a b.flac")
    assert run(tmp_path, catalogue="list.csv") == 0
    assert segment_rows(spark, tmp_path) == sorted([*before, *other])
    assert sorted(map(str, table(spark, tmp_path, "detections").drop("scan_id").collect())) == detections


def test_dry_run_prints_the_plan_and_writes_nothing(place, spark, capsys):
    assert run(place, "--dry-run", warehouse="untouched") == 0
    printed = capsys.readouterr().out
    assert "titles       8" in printed
    assert "rejected     2 titles" in printed
    assert "to score     7 tracks" in printed
    assert "too short" not in printed
    asks_more = place / "asks more.yaml"
    asks_more.write_text("operating_points:\n  loud: {threshold: 0.3, min_detected_s: 13.0, window_s: 20.0}\n")
    assert run(place, "--dry-run", "--settings", str(asks_more), warehouse="untouched") == 0
    assert "too short    loud 7 tracks last less" in capsys.readouterr().out
    assert not (place / "untouched" / "tracks").exists()


@pytest.mark.slow
def test_catalogue_tables_keep_their_columns(place, spark, tmp_path):
    csv = tmp_path / "list.csv"
    media = place / "catalogue"
    csv.write_text(
        "title_id,uri,genre,language,Running Time,status\n"
        f'001,"{media}/music/a b.flac",drama,deu,90,new\n'
        f"002,file://{media}/film.mkv,news,deu,,old\n"
        "003,ftp://host/x.wav,news,,,\n"
        "004,missing.wav,news,,,\n"
    )
    shutil.copy(place / "settings.yaml", tmp_path / "settings.yaml")
    assert run(tmp_path, catalogue="list.csv") == 0
    rows = {(row.title_id, row.track): row.asDict() for row in table(spark, tmp_path, "tracks").collect()}
    assert set(rows) == {("001", 0), ("002", 0), ("002", 1), ("003", None), ("004", None)}
    assert rows["001", 0]["genre"] == "drama"
    assert rows["001", 0]["language"] == "deu"
    assert rows["002", 1]["language"] == "fra"  # the track's own tag, with the catalogue's kept beside it
    assert rows["002", 1]["catalogue_language"] == "deu"
    assert rows["001", 0]["Running_Time"] == "90"
    assert rows["001", 0]["catalogue_status"] == "new"
    assert rows["001", 0]["status"] == "ok"
    assert rows["003", None]["error_code"] == "unsupported_scheme"
    assert rows["004", None]["error_code"] == "not_found"


@pytest.mark.slow
def test_too_many_rejected_is_told_by_the_exit_status(place, spark, tmp_path):
    (tmp_path / "catalogue").mkdir()
    (tmp_path / "catalogue" / "x.mp3").write_text("nothing")
    (tmp_path / "settings.yaml").write_text("max_rejected_share: 0.9\n")
    assert run(tmp_path) == scan.EXIT_TOO_MANY_REJECTED
    assert run(tmp_path) == scan.EXIT_TOO_MANY_REJECTED  # also when it was known before


def test_two_scans_of_one_warehouse_do_not_run_at_once(place, spark, tmp_path):
    from jobs.lease import Lease
    from jobs.storage import Storage

    shutil.copy(place / "settings.yaml", tmp_path / "settings.yaml")
    storage = Storage(spark, str(tmp_path / "warehouse"))
    storage.make_folder("")
    with Lease(storage, "other"), pytest.raises(AuscultError, match="scan other on"):
        scan.main(
            [
                "--catalogue",
                str(place / "catalogue"),
                "--warehouse",
                str(tmp_path / "warehouse"),
                "--model",
                "models:/level/1",
            ]
        )
    Path(tmp_path / "warehouse" / "_lease.json").write_text(
        json.dumps(
            {
                "scan_id": "dead",
                "host": os.uname().nodename,
                "pid": 4_000_000,
                "process_started": "1",
                "expires_at": 9e9,
            }
        )
    )
    with Lease(storage, "next") as lease:
        assert lease.was_abandoned


@pytest.fixture(scope="module")
def asked(scanned, spark):
    """The function defect_scores, and the tables that it is checked against."""
    assert register_defect_scores(spark, "models:/level@champion") == "level/1"
    table(spark, scanned, "tracks").createOrReplaceTempView("spot_tracks")
    table(spark, scanned, "segments").where("model = 'level'").createOrReplaceTempView("spot_segments")
    return scanned


def test_equals_the_scan_wherever_the_stretch_begins(asked, spark):
    rows = spark.sql(
        """
        SELECT title_id, track, begin, defect_scores(uri, track, begin, begin + 2.5D) AS said
        FROM spot_tracks CROSS JOIN (SELECT EXPLODE(ARRAY(0D, 3.4D, 7D, 12.2D)) AS begin)
        WHERE status = 'ok'
        """
    ).collect()
    stored = {}
    for row in spark.table("spot_segments").collect():
        stored[row.title_id, row.track, row.channel, row.start_s] = row.scores
    assert len(rows) == 24
    for row in rows:
        assert row.said.error is None
        starts = sorted({segment.start_s for segment in row.said.segments})
        of_track = {start_s for title_id, track, _, start_s in stored if (title_id, track) == (row.title_id, row.track)}
        assert starts == sorted(start_s for start_s in of_track if row.begin - 1 < start_s < row.begin + 2.5)
        for segment in row.said.segments:
            expected = stored[row.title_id, row.track, segment.channel, segment.start_s]
            # AAC's decoder draws noise anew; the rest is the same to the bit.
            assert segment.scores == pytest.approx(expected, abs=5e-3)
        assert row.said.scores["loud"] == max(segment.scores["loud"] for segment in row.said.segments)


def test_says_why_there_is_nothing(asked, spark):
    uri = spark.table("spot_tracks").where("title_id = 'film.mkv'").first().uri
    broken = spark.table("spot_tracks").where("title_id = 'noise.mp3'").first().uri
    cases = [
        (uri, 7, 0.0, 2.0, "there is no audio track 7"),
        (uri, 0, 5.0, 5.0, "expected 0 <= start_s < end_s"),
        (None, 0, 0.0, 1.0, "found NULL"),
        (uri, 0, 100.0, 101.0, "no segment"),
        ("ftp://host/film.mkv", 0, 0.0, 1.0, "mount the storage"),
        (uri.removeprefix("file://") + ".gone", 0, 0.0, 1.0, ""),
        (broken, 0, 0.0, 1.0, ""),
    ]
    frame = spark.createDataFrame([case[:4] for case in cases], "uri string, track int, start_s double, end_s double")
    rows = frame.select(F.expr("defect_scores(uri, track, start_s, end_s)").alias("said")).collect()
    for case, row in zip(cases, rows, strict=True):
        assert row.said.scores is None
        assert row.said.error
        assert case[4] in row.said.error


def test_an_unknown_version_is_named(asked, spark):
    with pytest.raises(AuscultError, match="level"):
        register_defect_scores(spark, "models:/level/99")


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
