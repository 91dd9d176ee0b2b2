"""The search for operating points: against the SQL filter, against trying everything, and as its user runs it."""

import json
import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import toy_models
from deltalake import DeltaTable
from sklearn.metrics import f1_score, precision_score, recall_score
from test_temporal_filter import random_title
from toy_models import LEVEL

from jobs import detect, operating_points, tables, tune, tuning, tuning_inputs
from jobs.labelled import Vocabulary, sought_in, vocabulary
from jobs.launch import PROJECT, AuscultError
from jobs.settings import OperatingPoint, ScanSettings
from jobs.storage import Storage
from jobs.temporal_filter import detect as filtered
from jobs.tuning import Objective
from udfs.contract import ShippedModel
from udfs.rolling import rises, rises_udf
from udfs.schemas import RISES, SEGMENTS, TRACKS


def test_counts_what_the_filter_finds_at_every_x(spark):
    """One pass must say for every X what the SQL filter finds with it, title by title."""
    rng = np.random.default_rng(0)
    titles = {f"t{number}": random_title(rng) for number in range(120)}
    points = {
        f"p{number}": OperatingPoint(threshold, x_ms / 1000, window_s, ("LFE",))
        for number, (threshold, window_s, x_ms) in enumerate(
            (threshold, window_s, x_ms)
            for threshold, window_s in [(0.4, 20.0), (0.5, 3.0), (0.8, 20.0), (0.5, 0.6)]
            for x_ms in (1, 250, 500, 750, 1000, 1250, 2500, 3000, 7000, 12000, 20000, 20001)
        )
    }
    rows = [
        (title, "h", 0, channel, name, "m", "1", start, end, dict.fromkeys(points, score), None, None, "s")
        for title, hits in titles.items()
        for start, end, score, channel, name in hits
    ]
    segments = spark.createDataFrame(rows, SEGMENTS)
    expected = {
        (row.title_id, row.defect): row["count"]
        for row in filtered(spark, segments, {("m", "1", name): point for name, point in points.items()})
        .groupBy("title_id", "defect").count().collect()
    }  # fmt: skip
    model, one = ShippedModel("m", "1", "", "", None), {"p0": points["p0"]}
    grid = (np.array([0.4, 0.5, 0.8]), np.array([0.6, 3.0, 20.0]))
    found = tuning_inputs.rises_of(spark, segments, model, one, *grid).toPandas()
    counted = {}
    for name, point in points.items():
        x_ms = round(point.min_detected_s * 1000)
        mine = found[(found["threshold"] == point.threshold) & (found["window_s"] == point.window_s)]
        for row in mine.rename(columns={"count": "often"}).itertuples():
            if count := int(row.often[(row.above_ms < x_ms) & (x_ms <= row.up_to_ms)].sum()):
                counted[row.title_id, name] = count
    assert counted == expected
    assert len(counted) > 500


def test_channels_merge_once_they_reach_the_threshold():
    """A channel that does not reach it lends the other one none of its length, as if it were not there."""
    rng = np.random.default_rng(3)
    for count in (1, 2, 50, 500):
        start = np.sort(rng.integers(0, 40, count) * 250)
        end, score = start + rng.integers(1, 5, count) * 250, rng.random(count)
        for threshold in (0.0, 0.5, 0.9):
            high = score >= threshold
            alone = pd.DataFrame({"start": start[high], "end": end[high]}).groupby("start").max().reset_index()
            merged = alone["start"].to_numpy(), alone["end"].to_numpy(), np.ones(len(alone))
            for found, expected in zip(
                rises(start, end, score, threshold, 2000), rises(*merged, threshold, 2000), strict=True
            ):
                np.testing.assert_array_equal(found, expected)


def test_rises_of_nothing():
    none = np.empty(0, dtype=np.int64)
    assert [len(part) for part in rises(none, none, np.empty(0), 0.5, 1000)] == [0, 0, 0]
    start = np.array([0, 1000])
    assert [len(part) for part in rises(start, start + 1000, np.array([np.nan, 0.1]), 0.5, 1000)] == [0, 0, 0]


def evidence_of(held_s, is_defective, groups=None):
    """Evidence with one threshold and window a column of `held_s` (titles, windows); each title is an hour long."""
    held = np.round(np.asarray(held_s, dtype=float) * 1000).astype(np.int64)[:, None, :]
    windows = np.arange(1, held.shape[2] + 1) * 100.0
    keys = [(0, window) for window in range(held.shape[2])]
    titles = np.arange(len(held))
    return tuning.Evidence(
        [f"t{title}" for title in titles], np.array([0.5]), windows, held,
        {key: np.zeros(len(held), dtype=np.int64)[held[:, 0, key[1]] > 0] for key in keys},
        {key: held[:, 0, key[1]][held[:, 0, key[1]] > 0] for key in keys},
        {key: np.ones((held[:, 0, key[1]] > 0).sum(), dtype=np.int64) for key in keys},
        {key: titles[held[:, 0, key[1]] > 0] for key in keys},
        np.asarray(is_defective, dtype=bool),
        titles if groups is None else np.asarray(groups),
        np.ones(len(held)),
    )  # fmt: skip


def test_no_x_is_better_than_the_chosen_one():
    rng = np.random.default_rng(0)
    for _ in range(10):
        truth = rng.random(40) < 0.3
        truth[0] = True
        held = np.round(rng.random((40, 3)) * 30 + 10 * truth[:, None] * rng.random((40, 3)), 1) * (
            rng.random((40, 3)) < 0.8
        )
        evidence = evidence_of(held, truth)
        points = tuning.curve(evidence)
        tried = [(window, x, held[:, window] >= x) for window in range(3) for x in np.unique(held[:, window]) if x > 0]
        best = tuning.choose(points, Objective("f1"))
        assert best["f1"] == pytest.approx(max(f1_score(truth, said) for *_, said in tried))
        best = tuning.choose(points, Objective("precision", 0.6))
        reachable = [said for *_, said in tried if recall_score(truth, said) >= 0.6]
        if reachable:
            assert best["precision"] == pytest.approx(max(precision_score(truth, said) for said in reachable))
        else:
            assert best is None
        best = tuning.choose(points, Objective("recall", 12.0))
        assert best["recall"] == pytest.approx(
            max((recall_score(truth, said) for *_, said in tried if 100 * said.sum() / 40 <= 12.0), default=0)
        )
        # What the row promises is what its point says.
        said = evidence.says(best["threshold"], best["min_detected_s"], best["window_s"])
        assert precision_score(truth, said) == pytest.approx(best["precision"])
        assert 100 * said.sum() / 40 == pytest.approx(best["detections_per_100_h"])
        front = tuning.front(points)
        assert front["recall"].is_monotonic_increasing
        for row in points.itertuples():  # none is beaten by what is kept in what it is better at
            kept = front[front["recall"] >= row.recall]
            assert kept["precision"].max() >= row.precision
            assert kept["detections_per_100_h"].min() <= row.detections_per_100_h
        assert len(front) < len(points)


def test_x_keeps_away_from_both_sides():
    evidence = evidence_of([[30.0], [28.0], [4.0], [0.0]], [True, True, False, False])
    best = tuning.choose(tuning.curve(evidence), Objective())
    assert best["min_detected_s"] == 16.0


def test_cross_validation_does_not_flatter():
    """Scores that know nothing: fitted on everything they seem to, on titles left out they do not."""
    rng = np.random.default_rng(1)
    truth = np.arange(60) % 3 == 0
    evidence = evidence_of(rng.random((60, 30)) * 30, truth)
    fitted = tuning.choose(tuning.curve(evidence), Objective())
    says = tuning.cross_validate(evidence, Objective(), folds=5, seed=0)
    honest = tuning.figures(says, truth, evidence.groups, 200, 0)["f1"]
    assert fitted["f1"] > 0.6
    assert honest.value < fitted["f1"] - 0.08
    assert honest.low < honest.value < honest.high
    assert tuning.cross_validate(evidence_of([[1.0], [2.0]], [True, False]), Objective(), 5, 0) is None


def test_titles_of_one_recording_stay_together():
    """Ten copies a recording, told apart by their recording alone: nothing may be learned from a copy."""
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(20), 10)
    truth = rng.permutation(np.arange(20) % 2 == 0)[groups]
    held = rng.random((20, 8))[groups] * 30
    says = tuning.cross_validate(evidence_of(held, truth, groups), Objective("f1"), 5, 0)
    apart = tuning.cross_validate(evidence_of(held, truth), Objective("f1"), 5, 0)
    assert f1_score(truth, apart) > f1_score(truth, says)


@pytest.fixture(scope="module")
def place(tmp_path_factory, prepared_store, spark):
    """A warehouse of thirty titles with made-up scores of a real registered model; every third is loud for long."""
    folder = tmp_path_factory.mktemp("tune")
    (folder / "mlflow").mkdir()
    shutil.copy(next(prepared_store.rglob("*.db")), folder / "mlflow" / "mlflow.db")
    patch = pytest.MonkeyPatch()
    patch.setenv("AUSCULT_HOME", str(folder))
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    toy_models.register_level(folder / "code")
    storage = Storage(spark, str(folder / "warehouse"))
    tables.prepare(spark, storage)
    rng = np.random.default_rng(3)
    rows, tracks, labels = [], [], ["title_id,defect"]
    for number in range(30):
        title, broken = f"t{number:02d}", number % 3 == 0
        score = np.clip(rng.normal(0.3, 0.1, 600), 0, 1)
        if broken:
            begin = int(rng.integers(0, 500))
            score[begin : begin + 60] = rng.random(60) < 0.6
        else:  # as loud, never for long
            score[rng.integers(0, 600, 12)] = 0.95
        rows += [
            (title, f"h{number}", 0, 0, "FC", "level", "1", float(s), s + 1.0, {"loud": float(p), "quiet": 1 - float(p)}, None, None, "s")
            for s, p in enumerate(score)
        ]  # fmt: skip
        known = {
            "title_id": title, "uri": f"/{title}", "content_hash": f"h{number}", "track": 0, "duration_s": 600.0,
            "decoded_s": 600.0, "status": "ok", "scored_with": ["level/1"], "scan_id": "s",
        }  # fmt: skip
        tracks.append(tuple(known.get(name) for name in TRACKS.names))
        labels.append(f"{title},{'loud' if broken else ''}")
    spark.createDataFrame(rows, SEGMENTS).write.format("delta").mode("append").save(storage.locate("segments"))
    spark.createDataFrame(tracks, TRACKS).write.format("delta").mode("append").save(storage.locate("tracks"))
    (folder / "labels.csv").write_text("\n".join(labels) + "\n")
    yield folder
    patch.undo()


def run(place, *more, labels="labels.csv"):
    return tune.main(
        ["--warehouse", str(place / "warehouse"), "--labels", str(place / labels), "--model", "models:/level@champion", *more]
    )  # fmt: skip


@pytest.mark.slow
def test_the_way_from_labels_to_detections(place, spark, capsys):
    """Seek, keep, apply to stored scores: the titles that the chosen point promises are those detected."""
    assert run(place, "--note", "first", "--curve", str(place / "curve.csv")) == 0
    said = capsys.readouterr().out
    assert "30 labelled titles" in said
    points = DeltaTable(str(place / "warehouse" / "operating_points")).to_pandas()
    [row] = points[points["note"] == "first"].to_dict("records")
    assert (row["model"], row["defect"], row["titles"], row["defective_titles"]) == ("level", "loud", 30, 10)
    assert row["objective"] == "f1"
    assert row["f1"] > 0.9
    assert row["f1_low"] <= row["f1"] <= row["f1_high"]
    curve = pd.read_csv(place / "curve.csv")
    kept = DeltaTable(str(place / "warehouse" / "operating_curves")).to_pandas()
    kept = kept[kept["version"] == row["version"]]
    assert len(kept) == len(curve) > 0
    warehouse = str(place / "warehouse")
    assert (
        detect.main(["--warehouse", warehouse, "--operating-points", str(row["version"]), "--model", "models:/level/1"])
        == 0
    )
    found = DeltaTable(f"{warehouse}/detections").to_pandas()
    assert {(row["threshold"], row["min_detected_s"], row["window_s"])} == set(
        found[["threshold", "min_detected_s", "window_s"]].itertuples(index=False, name=None)
    )
    assert set(found["title_id"]) == {f"t{number:02d}" for number in range(0, 30, 3)}
    assert 100 * len(found) / 5 == pytest.approx(row["detections_per_100_h"])
    last = spark.read.format("delta").load(f"{warehouse}/scans").orderBy("started_at", ascending=False).first()
    [applied] = json.loads(last.settings)["applied_points"]
    assert applied["min_detected_s"] == row["min_detected_s"]


def test_a_new_search_is_a_new_version(place, spark, capsys):
    assert run(place) == 0
    before = DeltaTable(str(place / "warehouse" / "operating_points")).to_pandas()
    assert run(place, "--maximise", "recall", "--budget", "100") == 0
    assert run(place, "--maximise", "precision", "--at-recall", "0.5", "--dry-run") == 0
    points = DeltaTable(str(place / "warehouse" / "operating_points")).to_pandas()
    assert len(points) == len(before) + 1
    assert points["version"].max() == before["version"].max() + 1
    assert set(points["objective"]) == {"f1", "recall_within_100_detections_per_100_h"}
    storage = Storage(spark, str(place / "warehouse"))
    base = {("level", "1", "loud"): OperatingPoint(0.123), ("level", "1", "other"): OperatingPoint(0.456)}
    latest = operating_points.from_table(spark, storage, "latest", base)
    assert latest["level", "1", "other"] == base["level", "1", "other"]
    newest = points.sort_values("version").iloc[-1]
    assert latest["level", "1", "loud"].min_detected_s == newest["min_detected_s"]
    with pytest.raises(AuscultError, match="expected latest or one of the versions"):
        operating_points.from_table(spark, storage, "77", base)
    with pytest.raises(AuscultError, match="they are for level/1, wanted is another/1"):
        operating_points.from_table(spark, storage, "1", {("another", "1", "loud"): OperatingPoint()})


@pytest.mark.slow
def test_two_searches_at_once_get_two_versions(place, spark):
    storage = Storage(spark, str(place / "both"))
    tables.prepare(spark, storage)
    row = {
        "model": "m",
        "model_version": "1",
        "defect": "loud",
        "threshold": 0.5,
        "min_detected_s": 1.0,
        "window_s": 2.0,
    }
    names = dict.fromkeys(tables.TABLES["operating_points"].names) | row | {"ignored_channels": []}
    versions = []
    threads = [
        threading.Thread(target=lambda: versions.append(operating_points.add(spark, storage, [names], []))) for _ in range(3)
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(versions) == [1, 2, 3]
    assert sorted(DeltaTable(str(place / "both" / "operating_points")).to_pandas()["version"]) == [1, 2, 3]


def test_verdicts_are_labels_too(place, spark):
    storage = Storage(spark, str(place / "warehouse"))
    when = "TIMESTAMP '2026-01-01'"
    spark.sql(
        f"""SELECT * FROM VALUES
        ('h0', 'loud', 1D, 2D, 'genuine', 'a', {when}), ('h0', 'loud', 5D, 6D, 'false_positive', 'a', {when}),
        ('h1', 'loud', 1D, 2D, 'genuine', 'a', {when}), ('h1', 'loud', 1D, 2D, 'creative_intent', 'b', {when} + INTERVAL 1 DAY),
        ('h2', 'loud', 1D, 2D, 'unsure', 'a', {when})
        AS t(content_hash, defect, start_s, end_s, verdict, reviewer, reviewed_at)"""
    ).selectExpr("*", "CAST(NULL AS STRING) cause", "CAST(NULL AS STRING) note", "CAST(NULL AS STRING) title_id", "CAST(NULL AS INT) track").write.format("delta").mode("append").save(storage.locate("reviews"))  # fmt: skip
    labelled = tuning_inputs.read_labels(spark, storage, "reviews", Vocabulary(frozenset({"loud"})))
    assert labelled.titles == ["t00", "t01"]
    assert labelled.defects == [frozenset({"loud"}), frozenset()]
    assert labelled.undecided == {"loud": frozenset({"t02"})}


def test_what_nobody_has_decided_is_neither_right_nor_wrong(spark, tmp_path):
    """A title counts for a defect once every detection of it there is decided, and for others whatever is open of this one."""
    storage = Storage(spark, str(tmp_path))
    tables.prepare(spark, storage)

    def add(name, *rows):
        schema = tables.TABLES[name]
        values = [tuple(row.get(column) for column in schema.names) for row in rows]
        spark.createDataFrame(values, schema).write.format("delta").mode("append").save(storage.locate(name))

    def stretch(number, defect, start_s, end_s, verdict=None, day=1):
        when = datetime(2026, 1, day, tzinfo=UTC)
        content = {"title_id": f"t{number}", "content_hash": f"h{number}", "track": 0}
        return {
            **content,
            "defect": defect,
            "start_s": start_s,
            "end_s": end_s,
            "verdict": verdict,
            "reviewed_at": when,
        }

    add("tracks", *({"title_id": f"t{number}", "content_hash": f"h{number}", "track": 0} for number in range(8)))
    add(
        "detections",
        stretch(0, "hum", 1.0, 9.0),  # judged right
        stretch(1, "hum", 1.0, 9.0),  # judged wrong
        stretch(2, "hum", 1.0, 9.0), stretch(2, "hum", 20.0, 29.0),  # of two one judged right
        stretch(3, "hum", 1.0, 9.0), stretch(3, "hiss", 1.0, 9.0),  # of one defect not judged at all
        stretch(4, "hum", 1.0, 9.0),  # nobody was here
        stretch(5, "hum", 1.0, 9.0),  # unsure
        # 6: judged by other bounds, and once more since
        stretch(6, "hum", 2.0, 9.5),
    )  # fmt: skip
    add(
        "reviews",
        stretch(0, "hum", 1.0, 9.0, "genuine"),
        stretch(1, "hum", 1.0, 9.0, "false_positive"),
        stretch(2, "hum", 1.0, 9.0, "genuine"),
        stretch(3, "hum", 1.0, 9.0, "false_positive"),
        stretch(5, "hum", 1.0, 9.0, "unsure"),
        stretch(6, "hum", 1.0, 9.0, "false_positive"), stretch(6, "hum", 2.0, 8.0, "genuine", day=2),
        stretch(7, "humm", 1.0, 9.0, "genuine"),
    )  # fmt: skip
    found = tuning_inputs.read_labels(spark, storage, "reviews", Vocabulary(frozenset({"hum", "hiss"})))
    assert dict(zip(found.titles, found.defects, strict=True)) == {
        "t0": {"hum"}, "t1": set(), "t3": set(), "t6": {"hum"},
    }  # fmt: skip
    assert found.undecided == {"hum": {"t2", "t4", "t5"}, "hiss": {"t3"}}


def test_an_undecided_title_is_left_out_of_its_defect_alone(place, spark, caplog):
    storage = Storage(spark, str(place / "warehouse"))
    titles = [f"t{number:02d}" for number in range(30)]
    known = [frozenset({"loud"}) if number % 3 == 0 else frozenset() for number in range(30)]
    labelled = tuning_inputs.Labelled(
        titles, np.arange(30), known, {"loud": frozenset({"t00", "t01", "elsewhere"}), "quiet": frozenset({"t02"})}
    )
    points = {"loud": OperatingPoint(0.5, 5.0, 10.0), "quiet": OperatingPoint(0.5, 5.0, 10.0)}
    grid = tuning_inputs.Grid((0.5,), (10.0,), 2, 10, 0)
    found = tuning_inputs.gathered(spark, storage, ShippedModel("level", "1", "", "", LEVEL), labelled, points, grid)
    assert found["loud"].titles == titles[2:]
    assert found["loud"].is_defective.sum() == 9
    assert len(found["loud"].held_ms) == len(found["loud"].hours) == len(found["loud"].groups) == 28
    assert found["quiet"].titles == [*titles[:2], *titles[3:]]
    assert "loud: 3 titles are left out, with detections of it that nobody has decided" in caplog.text
    # What the search says of titles is still put together title by title.
    objective = Objective()
    outcomes = {defect: tune._seek(mine, points[defect], objective, grid) for defect, mine in found.items()}
    tune._print(outcomes, found, points, objective, grid)


def test_bad_input_is_named(place, tmp_path, capsys):
    with pytest.raises(AuscultError, match=r"labels .*nowhere.csv: there is no such file"):
        run(place, labels="nowhere.csv")
    (place / "odd.csv").write_text("title,defect\nx,loud\n")
    with pytest.raises(AuscultError, match="row 1: expected title_id and defect"):
        run(place, labels="odd.csv")
    (place / "strangers.csv").write_text("title_id,defect\nx,loud\n")
    with pytest.raises(AuscultError, match="has scored none of the 1 labelled titles"):
        run(place, labels="strangers.csv")
    (place / "misspelt.csv").write_text("title_id,defect\nt00,loud\nt01,luod\n")
    with pytest.raises(AuscultError, match=r"row 2: defect: expected one of click, .*, loud, .*, found 'luod'"):
        run(place, labels="misspelt.csv")
    (place / "clean.csv").write_text("title_id,defect\nt01,\nt02,\n")
    with pytest.raises(AuscultError, match="no defect has a point"):
        run(place, labels="clean.csv")
    with pytest.raises(AuscultError, match=r"--curve .*there is no folder"):
        run(place, "--curve", str(tmp_path / "nowhere" / "curve.csv"))
    for text, said in [
        ("a: 1", "expected the keys"),
        ("thresholds: [2]\nwindows_s: [1]\nfolds: 5\nresamples: 1\nseed: 0", "thresholds"),
    ]:
        (tmp_path / "grid.yaml").write_text(text)
        with pytest.raises(AuscultError, match=said):
            run(place, "--grid", str(tmp_path / "grid.yaml"))
    for more in (["--maximise", "recall"], ["--budget", "3"], ["--maximise", "precision", "--at-recall", "2"]):
        with pytest.raises(SystemExit):
            run(place, *more)
    capsys.readouterr()


def test_labels_of_other_detectors_are_known(place, spark, capsys, caplog):
    """Built in or by a scan of the warehouse; titles with them count as free of the defects that are tuned."""
    known = vocabulary([LEVEL], ScanSettings())
    assert {"loud", "hum", "click", "mp3_glitch", "packet_error"} <= known.defects
    assert "default" not in known.defects
    assert known.clean == {"quiet"}
    storage = Storage(spark, str(place / "other"))
    assert sought_in(spark, storage) == set()
    tables.prepare(spark, storage)
    points = {("theirs", "2", "crackle"): OperatingPoint()}
    tables.begin_scan(spark, storage, tables.new_scan("s", "/c", ScanSettings(), [], points, None))
    assert sought_in(spark, storage) == {"crackle"}

    (place / "more.csv").write_text((place / "labels.csv").read_text() + "t01,click\nt02,quiet\n")
    assert run(place, "--dry-run", labels="more.csv") == 0
    assert "level/1 knows no click; titles with nothing else count as free of its defects" in caplog.text
    assert "loud             10" in capsys.readouterr().out


def test_the_shipped_grid_is_readable():
    grid = tuning_inputs.read_grid(PROJECT / "conf" / "tune.yaml")
    assert len(grid.thresholds) == 20
    assert len(grid.windows_s) == 10
    assert {"default", "hum", "click"} <= set(ScanSettings().operating_points)


def test_arrow_in_arrow_out():
    """The UDF's columns fit its schema, whatever the order of the batch's own."""
    import pyarrow as pa

    moments = [[{"start_ms": 0, "end_ms": 1000, "score": 0.9}, {"start_ms": 1000, "end_ms": 2000, "score": 0.2}], []]
    batch = pa.RecordBatch.from_pydict({
        "defect": ["a", "a"], "title_id": ["t", "u"], "track": pa.array([0, 1], pa.int32()), "moments": pa.array(
            moments, pa.list_(pa.struct([("start_ms", pa.int64()), ("end_ms", pa.int64()), ("score", pa.float64())])))
    })  # fmt: skip
    [out] = rises_udf([0.1, 0.5], [500, 2000])([batch])
    assert out.schema.names == RISES.names
    assert [(row["threshold"], row["window_s"], row["up_to_ms"], row["count"]) for row in out.to_pylist()] == [
        (0.1, 0.5, [500], [2]), (0.1, 2.0, [2000], [1]), (0.5, 0.5, [500], [1]), (0.5, 2.0, [1000], [1]),
    ]  # fmt: skip
    assert Path(PROJECT, "jobs/sql/moments.sql").exists()
