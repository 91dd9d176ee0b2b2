"""The scan from catalogue to tables, on real files, real Delta and real MLflow, with foreign models."""

import json
import shutil

import pyarrow as pa
import pytest
from level_catalogue import FILES, SETTINGS, prepare, run, segment_rows, table
from pyspark.sql import functions as F
from pyspark.sql.types import LongType, StructField, StructType

from jobs import planner, scan, tables
from jobs.launch import AuscultError
from jobs.spot_check import register_defect_scores
from jobs.storage import Storage
from udfs.schemas import TABLES
from udfs.stages import WORK


@pytest.fixture(scope="module")
def place(module_folder):
    return prepare(module_folder)


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

        yield pa.RecordBatch.from_pydict({"rows": pa.array([sum(batch.num_rows for batch in batches)], pa.int64())})

    rows = [(task, f"t{task}-{n}") for task in range(7) for n in range(task + 1)]
    frame = spark.createDataFrame(rows, "task int, title string").repartitionById(7, "task")
    sizes = frame.mapInArrow(count_rows, "rows long").collect()
    assert sorted(row.rows for row in sizes) == list(range(1, 8))


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
