"""The figures of an evaluation against scikit-learn's, on rows as the scan and the simulation write them."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference

from jobs import class_evaluation, event_evaluation, sql
from jobs.class_evaluation import ClassEvaluation
from jobs.event_evaluation import EventEvaluation

CLASSES = ("no_defect", "hum", "click")


@pytest.fixture(scope="module")
def catalogue(spark):
    """Twelve files of 30 s on two channels: segments with scores, and where defects were planted."""
    rng = np.random.default_rng(0)
    titles, labels, segments = [], [], []
    for number in range(12):
        title, defect = f"t{number}", CLASSES[number % 3]
        titles.append((title, f"clean{number % 4}", ["flac", "mp3"][number % 2], None))
        if defect != "no_defect":
            events = [(3.25, 9.5), (20.0, 20.001)]
            events = [{"start_s": a, "end_s": b} for a, b in events]
            labels.append((title, [0, None][number % 2], defect, defect, [0], events, 0.3 * number))
        for channel in (0, 1):
            for start in range(30):
                is_hit = defect != "no_defect" and channel == 0 and (3 <= start < 10 or start == 20)
                weights = rng.random(3) + np.array([0.3, *(is_hit * (defect == name) for name in CLASSES[1:])])
                scores = dict(zip(CLASSES, (float(value) for value in weights / weights.sum()), strict=True))
                segments.append((title, 0, channel, float(start), start + 1.0, scores))
    return {
        "segments": spark.createDataFrame(
            segments,
            "title_id string, track int, channel int, start_s double, end_s double, scores map<string, float>",
        ),
        "titles": spark.createDataFrame(titles, "title_id string, clean_title_id string, format string, kind string"),
        "labels": spark.createDataFrame(
            labels,
            "title_id string, track int, defect string, simulator string, channels array<int>, "
            "events array<struct<start_s: double, end_s: double>>, severity double",
        ),
    }


@pytest.fixture(scope="module")
def truth(catalogue):
    """The same in pandas, worked out another way: one row per segment."""
    frame = catalogue["segments"].toPandas()
    planted = catalogue["labels"].toPandas().set_index("title_id")["defect"]
    second = frame["start_s"].astype(int)
    is_hit = (frame["channel"] == 0) & (second.between(3, 9) | (second == 20)) & frame["title_id"].isin(planted.index)
    frame["truth"] = np.where(is_hit, frame["title_id"].map(planted), "no_defect")
    frame["said"] = [max(scores, key=scores.get) for scores in frame["scores"]]
    return frame


@pytest.fixture(scope="module")
def evaluation(spark, catalogue):
    judged = spark.sql(sql.text("judged"), **catalogue)
    names = spark.createDataFrame([(name, name) for name in CLASSES], "label string, class string")
    counts = spark.sql(sql.text("evaluation"), judged=judged, classes=names, clean="no_defect").toPandas()
    scores = spark.sql(sql.text("precision_recall"), judged=judged, classes=names).toPandas()
    return ClassEvaluation("m", "1", CLASSES, counts, scores)


def test_counts_and_rates_are_those_of_scikit_learn(evaluation, truth):
    matrix = evaluation.matrices().sum(axis=0)
    np.testing.assert_array_equal(matrix, reference.confusion_matrix(truth["truth"], truth["said"], labels=CLASSES))
    rows = {(row["facet_value"], row["label"], row["metric"]): row for row in evaluation.figures()}
    assert rows["all", None, "balanced_accuracy"]["value"] == pytest.approx(
        reference.balanced_accuracy_score(truth["truth"], truth["said"])
    )
    recalls = reference.recall_score(truth["truth"], truth["said"], labels=CLASSES, average=None)
    precisions = reference.precision_score(truth["truth"], truth["said"], labels=CLASSES, average=None)
    for index, label in enumerate(CLASSES):
        assert rows["all", label, "recall"]["value"] == pytest.approx(recalls[index])
        assert rows["all", label, "precision"]["value"] == pytest.approx(precisions[index])
    of_mp3 = truth[truth["title_id"].isin([f"t{number}" for number in range(1, 12, 2)])]
    assert rows["mp3", None, "balanced_accuracy"]["value"] == pytest.approx(
        reference.balanced_accuracy_score(of_mp3["truth"], of_mp3["said"])
    )


@pytest.mark.parametrize("label", CLASSES[1:])
def test_precision_and_recall_by_score_are_those_of_scikit_learn(evaluation, truth, label):
    precision, recall, score = evaluation.precision_recall(label)
    rounded = [np.floor(np.float32(scores[label]) * 1000) / 1000 for scores in truth["scores"]]
    expected = reference.average_precision_score(truth["truth"] == label, rounded)
    assert class_evaluation.average_precision(precision, recall) == pytest.approx(expected)
    assert recall[-1] == 1.0
    assert (np.diff(score) < 0).all()


def test_pictures_are_drawn(evaluation, tmp_path):
    made = evaluation.draw_pictures(evaluation.figures(), tmp_path)
    assert [path.name for path in made] == ["confusion.png", "precision_recall.png", "recall_by_severity.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in made)


@pytest.fixture(scope="module")
def events(spark):
    """Three files of two clean titles: what was planted and what was found, a few of each kind by hand."""

    def event(start_s, *scores):
        return {"label": "click", "start_s": start_s, "end_s": start_s + 0.003 * len(scores), "scores": list(scores)}

    titles = [("a", "one", "flac", "music"), ("b", "one", "mp3", "music"), ("c", "two", "flac", "speech")]
    labels = [
        (
            "a",
            0,
            "click",
            "click_offset",
            [0],
            [{"start_s": t, "end_s": t + 1e-5} for t in (1.0, 2.0, 3.0)],
            0.5,
            "share of full scale",
        ),
        ("b", 0, "click", "underrun", [0, 1], [{"start_s": 1.0, "end_s": 1.02}], -4.5, "change, dB"),
        (
            "c",
            0,
            "hum",
            "hum",
            [0],
            [{"start_s": 0.0, "end_s": 9.0}],
            3.0,
            "signal to defect, dB",
        ),  # nothing that this model is for
    ]
    segments = [
        ("a", 0, 0, 0.0, 10.0, [event(0.999, 0.6, 0.95), event(2.002, 0.7), event(5.0, 0.8)]),  # two met, one made up
        ("a", 0, 1, 0.0, 10.0, [event(1.0, 0.55)]),  # on a channel where nothing is
        ("b", 0, 0, 0.0, 10.0, [event(1.0, 0.9), event(1.018, 0.9)]),  # begin and end of one under-run
        ("b", 0, 1, 0.0, 10.0, []),
        ("c", 0, 0, 0.0, 20.0, [event(4.0, 0.99)]),
    ]
    found = spark.sql(
        sql.text("event_matches"),
        segments=spark.createDataFrame(
            segments,
            "title_id string, track int, channel int, start_s double, end_s double, "
            "events array<struct<label: string, start_s: double, end_s: double, scores: array<float>>>",
        ),
        titles=spark.createDataFrame(titles, "title_id string, clean_title_id string, format string, kind string"),
        labels=spark.createDataFrame(
            labels,
            "title_id string, track int, defect string, simulator string, channels array<int>, "
            "events array<struct<start_s: double, end_s: double>>, severity double, severity_unit string",
        ),
        sought=spark.createDataFrame([("click",)], "label string"),
        tolerance_s=0.003,
    ).toPandas()
    hours = pd.DataFrame(
        [("one", "flac", "music", 20 / 3600), ("one", "mp3", "music", 20 / 3600), ("two", "flac", "speech", 20 / 3600)],
        columns=["clean_title_id", "format", "kind", "hours"],
    )
    return EventEvaluation("clicks", "1", ("click",), 0.003, found, hours)


def test_events_are_matched_within_a_frame_on_their_channel(events):
    whole = events.counts("click").sum(axis=0)
    # Planted: three on a's one channel, one on each of b's two; the third of a and b's second channel are missed.
    assert whole[:2].tolist() == [3, 2]
    # Found: two of a and two of b meet; one of a, one on its other channel and one of c do not.
    assert whole[2:4].tolist() == [4, 3]
    assert events.counts("click", where={"kind": "speech"}).sum(axis=0)[:4].tolist() == [0, 0, 0, 1]
    assert events.counts("click", where={"format": "mp3"}).sum(axis=0)[:4].tolist() == [1, 1, 2, 0]
    assert events.counts("click", threshold=0.85).sum(axis=0)[:4].tolist() == [2, 3, 3, 1]


@pytest.fixture(scope="module")
def kinds(spark):
    """One file with two kinds of events, and a third that the model does not know."""

    def event(label, start_s, score):
        return {"label": label, "start_s": start_s, "end_s": start_s + 0.003, "scores": [score]}

    labels = [
        ("a", 0, "click", None, [0], [{"start_s": t, "end_s": t + 1e-5} for t in (1.0, 2.0)], None, None),
        ("a", 0, "glitch", None, [0], [{"start_s": 3.0, "end_s": 3.1}], None, None),
        ("a", 0, "buzz", None, [0], [{"start_s": 5.0, "end_s": 6.0}], None, None),
    ]
    found = [
        event("click", 1.0, 0.9),
        event("click", 2.0, 0.8),
        event("click", 3.05, 0.9),  # where the other kind is
        event("glitch", 3.0, 0.6),
        event("glitch", 5.5, 0.4),  # where something else is
        event("quiet", 1.0, 0.9),  # a label of clean sound
    ]
    matched = spark.sql(
        sql.text("event_matches"),
        segments=spark.createDataFrame(
            [("a", 0, 0, 0.0, 10.0, found)],
            "title_id string, track int, channel int, start_s double, end_s double, "
            "events array<struct<label: string, start_s: double, end_s: double, scores: array<float>>>",
        ),
        titles=spark.createDataFrame(
            [("a", "one", "flac", None)], "title_id string, clean_title_id string, format string, kind string"
        ),
        labels=spark.createDataFrame(
            labels,
            "title_id string, track int, defect string, simulator string, channels array<int>, "
            "events array<struct<start_s: double, end_s: double>>, severity double, severity_unit string",
        ),
        sought=spark.createDataFrame([("click",), ("glitch",)], "label string"),
        tolerance_s=0.003,
    ).toPandas()
    hours = pd.DataFrame([("one", "flac", None, 10 / 3600)], columns=["clean_title_id", "format", "kind", "hours"])
    return EventEvaluation("both", "1", ("click", "glitch"), 0.003, matched, hours)


def test_kinds_of_events_are_counted_apart(kinds, tmp_path):
    assert kinds.counts("click").sum(axis=0)[:4].tolist() == [2, 0, 2, 1]
    assert kinds.counts("glitch").sum(axis=0)[:4].tolist() == [1, 0, 1, 1]
    assert kinds.thresholds == {"click": 0.8, "glitch": 0.6}  # each its own
    rows = {(row["facet_value"], row["label"], row["metric"]): row for row in kinds.figures()}
    assert rows["all", "click", "precision"]["value"] == pytest.approx(2 / 3)
    assert rows["all", "glitch", "f1"]["value"] == 1.0
    assert rows["all", None, "f1"]["value"] == pytest.approx((0.8 + 1) / 2)
    assert rows["all", None, "f1"]["segments"] == 3
    text = event_evaluation.table([kinds], {"both/1": kinds.figures()})
    assert "| both/1, click | all | 0.8000 (" in text
    assert "| both/1, glitch | all | 1.0000 (" in text
    assert kinds.figure == "mean F1"
    difference = kinds.difference_from(kinds, np.random.default_rng(0))
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)
    assert all(path.exists() for path in kinds.draw_pictures(kinds.figures(), tmp_path))


def test_one_title_says_little(kinds, evaluation):
    """A figure that is perfect on one title is no certainty."""
    for row in kinds.figures():
        if row["metric"] in ("f1", "precision", "recall"):
            assert row["low"] < 0.6
            assert row["low"] < row["value"] <= row["high"]
    counts = evaluation.counts[evaluation.counts["clean_title_id"].isin(["clean0", "clean1"])].copy()
    counts["said"] = counts["truth"]
    perfect = ClassEvaluation("m", "1", CLASSES, counts, evaluation.scores)
    for row in perfect.figures():
        if row["low"] is not None:
            assert (row["value"], row["high"]) == (1.0, 1.0)
            assert 0.2 < row["low"] < 0.7


def test_event_figures_are_worked_out_from_the_counts(events, tmp_path):
    assert event_evaluation.recall(events.counts("click").sum(axis=0)) == pytest.approx(3 / 5)
    assert event_evaluation.precision(events.counts("click").sum(axis=0)) == pytest.approx(4 / 7)
    best = max(
        (float(event_evaluation.f1(events.counts("click", threshold=step / 100).sum(axis=0))), step)
        for step in range(50, 100)
    )[0]
    rows = {(row["facet"], row["facet_value"], row["metric"]): row for row in events.figures()}
    assert rows["all", "all", "f1"]["value"] == pytest.approx(best)
    threshold = rows["all", "all", "threshold"]["value"]
    whole = events.counts("click", threshold=threshold).sum(axis=0)
    assert rows["all", "all", "false_events_per_hour"]["value"] == pytest.approx(whole[3] / (60 / 3600))
    assert rows["severity", "click_offset 0.4..0.6", "recall"]["segments"] == 3
    assert rows["severity", "underrun -10..0 dB", "recall"]["segments"] == 2  # where the unit is one of decibels
    assert {name.name for name in events.draw_pictures(events.figures(), tmp_path)} == {
        "precision_recall.png",
        "recall_by_severity.png",
    }
    difference = events.difference_from(events, np.random.default_rng(0))
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)
    assert "| clicks/1 | all | " in event_evaluation.table([events], {"clicks/1": events.figures()})
