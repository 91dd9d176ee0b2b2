"""Scans of a catalogue that was scanned before, wholly or in part: what changed is done anew, and nothing twice."""

import json
import os
import shutil
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from level_catalogue import SETTINGS, prepare, run, segment_rows, table
from pyspark.sql import functions as F
from signals import music_like, write

from jobs import balancing, commits, detect, maintain, scan, scan_run
from jobs.launch import AuscultError
from jobs.report_source import Source
from jobs.storage import Storage


@pytest.fixture(scope="module")
def place(module_folder):
    return prepare(module_folder)


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
    assign = balancing.assign_tasks

    def counted(plans, tasks):
        spans, weights = assign(plans, tasks)
        for span in spans:  # the decoder's findings come along
            scored.append((span.title_id, span.track, tuple(key for key in span.models if key != "decoder/1")))
        return spans, weights

    monkeypatch.setattr(scan_run, "assign_tasks", counted)

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
@pytest.mark.parametrize("step", ["_append", "_append_detections", "merge_tracks"])
def test_an_interrupted_commit_is_finished_by_the_next_scan(place, spark, tmp_path, monkeypatch, capsys, step):
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
    monkeypatch.setattr(scan_run.ScanRun, "_score_chunk", None)  # all there is to do is to finish the commit
    capsys.readouterr()
    assert run(tmp_path) == 0
    rows = table(spark, tmp_path, "segments").collect()
    assert len(rows) == 2 * 2 * 13
    assert len({(row.title_id, row.track, row.channel, row.start_s) for row in rows}) == len(rows)
    assert table(spark, tmp_path, "detections").count() == 1
    assert table(spark, tmp_path, "tracks").count() == 2
    # What the first one did is told with the second, which had nothing left to do.
    first, second = table(spark, tmp_path, "scans").orderBy("started_at").collect()
    assert (first.state, first.titles_done, first.titles_rejected, first.audio_done_h > 0) == ("failed", 2, 0, True)
    assert (second.titles_done, second.titles_skipped) == (0, 2)
    assert (
        f"detections of this scan and of the interrupted ones before it, {first.scan_id}:\n" in capsys.readouterr().out
    )
    source = Source(spark, Storage(spark, str(tmp_path / "warehouse")), None)
    assert source.detections.count() == 1
    assert source.scan is not None
    assert {name: source.scan[name] for name in ("scan_id", "went_on_with", "titles_done", "titles_skipped")} == {
        "scan_id": second.scan_id, "went_on_with": [first.scan_id], "titles_done": 2, "titles_skipped": 0,
    }  # fmt: skip


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
def test_what_an_earlier_version_rejected_is_scored_when_asked_to(place, spark, tmp_path):
    from delta.tables import DeltaTable

    shutil.copytree(place / "catalogue" / "music", tmp_path / "catalogue")
    shutil.copy(place / "settings.yaml", tmp_path / "settings.yaml")
    assert run(tmp_path) == 0
    before = segment_rows(spark, tmp_path)
    DeltaTable.forPath(spark, str(tmp_path / "warehouse" / "segments")).delete("title_id = 'a b.flac'")
    DeltaTable.forPath(spark, str(tmp_path / "warehouse" / "tracks")).update(
        "title_id = 'a b.flac'",
        {"status": "'rejected'", "error_code": "'bad_format'", "track": "NULL", "content_hash": "NULL"},
    )
    assert run(tmp_path) == 0
    assert run(tmp_path, "--retry", "not_media") == 0
    assert len(segment_rows(spark, tmp_path)) == len(before) // 2
    assert run(tmp_path, "--retry", "bad_format") == 0
    assert segment_rows(spark, tmp_path) == before
    assert {row.status for row in table(spark, tmp_path, "tracks").collect()} == {"ok"}


@pytest.mark.slow
def test_tables_of_an_earlier_version_get_the_columns_that_they_lack(place, spark, tmp_path, monkeypatch):
    """Whoever comes first: a filter over stored scores, or the bringing in of what a dead scan had scored."""
    shutil.copytree(place / "catalogue" / "music", tmp_path / "catalogue")
    shutil.copy(place / "settings.yaml", tmp_path / "settings.yaml")

    def dies(*args, **kwargs):
        raise KeyboardInterrupt

    def as_before(name, *columns):
        frame = table(spark, tmp_path, name).drop(*columns).toArrow()
        frame = spark.createDataFrame(frame)
        frame.write.format("delta").mode("overwrite").option("overwriteSchema", "true").save(
            f"{tmp_path}/warehouse/{name}"
        )

    original = commits._commit_chunk
    monkeypatch.setattr(commits, "_commit_chunk", dies)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    monkeypatch.setattr(commits, "_commit_chunk", original)
    as_before("segments", "line_up_hz", "events")
    as_before("scans", "stages_s")
    assert maintain.main(["--warehouse", f"{tmp_path}/warehouse", "--mend"]) == 0
    assert len(segment_rows(spark, tmp_path)) == 2 * 2 * 13
    as_before("scans", "stages_s")
    assert detect.main(["--warehouse", f"{tmp_path}/warehouse", "--settings", f"{tmp_path}/settings.yaml"]) == 0
    assert table(spark, tmp_path, "scans").orderBy("started_at").collect()[-1].state == "finished"


@pytest.mark.slow
def test_two_folders_of_the_same_names_do_not_replace_each_other(place, spark, tmp_path):
    for folder in ("one", "two"):
        shutil.copytree(place / "catalogue" / "music", tmp_path / folder)
    shutil.copy(place / "settings.yaml", tmp_path / "settings.yaml")
    assert run(tmp_path, catalogue="one") == 0
    before = segment_rows(spark, tmp_path)
    assert run(tmp_path, catalogue="two") == 0  # a copy is the same title at another place
    assert segment_rows(spark, tmp_path) == before
    write(tmp_path / "one" / "a b.flac", music_like(5.0, 48_000, np.random.default_rng(9)), 44_100)
    for more in ((), ("--dry-run",)):
        with pytest.raises(
            AuscultError, match=r"knows title 'a b\.flac' as file://.*/two/a%20b\.flac, which is still there"
        ):
            run(tmp_path, *more, catalogue="one")
    assert segment_rows(spark, tmp_path) == before
    assert {
        row.uri.split("/")[-2] for row in table(spark, tmp_path, "tracks").where("title_id = 'a b.flac'").collect()
    } == {"two"}
    one, two = (tmp_path / name / "a b.flac" for name in ("one", "two"))
    one.write_bytes(one.read_bytes()[: two.stat().st_size].ljust(two.stat().st_size, b"\0"))
    with pytest.raises(AuscultError, match="is another file of this name; the rows of one would replace"):
        run(tmp_path, catalogue="one")  # of the same size: its content tells
    (tmp_path / "mount").symlink_to("two")
    shutil.copy(one, two)
    assert run(tmp_path, catalogue="mount") == 0  # by another path, and replaced since
    shutil.copy(place / "catalogue" / "music" / "a b.flac", two)
    assert run(tmp_path, catalogue="two") == 0
    for folder in ("one", "two"):
        (tmp_path / folder / "list.csv").write_text("uri\na b.flac\n")
        with pytest.raises(AuscultError, match="is another file of this name") if folder == "one" else nullcontext():
            run(tmp_path, catalogue=f"{folder}/list.csv")  # a path in a table is no better name
    shutil.rmtree(tmp_path / "two")  # it has moved, and a file was replaced
    assert run(tmp_path, catalogue="one") == 0
    assert segment_rows(spark, tmp_path) != before


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


def test_two_scans_of_one_warehouse_do_not_run_at_once(place, spark, tmp_path):
    from jobs.lease import Lease

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
