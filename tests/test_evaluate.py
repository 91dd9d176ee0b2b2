"""The figures of an evaluation against scikit-learn's, on rows as the scan and the simulation write them."""

import numpy as np
import pytest
from sklearn import metrics as reference

from jobs import evaluate
from jobs.evaluate import Evaluation

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
            labels.append((title, defect, defect, [0], [{"start_s": a, "end_s": b} for a, b in events], 0.3 * number))
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
            "title_id string, defect string, simulator string, channels array<int>, "
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
    judged = evaluate._sql(spark, "judged", **catalogue)
    names = spark.createDataFrame([(name, name) for name in CLASSES], "label string, class string")
    counts = evaluate._sql(spark, "evaluation", judged=judged, classes=names, clean="no_defect").toPandas()
    scores = evaluate._sql(spark, "precision_recall", judged=judged, classes=names).toPandas()
    return Evaluation("m", "1", CLASSES, counts, scores)


def test_counts_and_rates_are_those_of_scikit_learn(evaluation, truth):
    matrix = evaluation.matrices().sum(axis=0)
    np.testing.assert_array_equal(matrix, reference.confusion_matrix(truth["truth"], truth["said"], labels=CLASSES))
    rows = {(row["facet_value"], row["label"], row["metric"]): row for row in evaluate.figures(evaluation)}
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
    precision, recall, score = evaluate.precision_recall(evaluation, label)
    rounded = [np.floor(np.float32(scores[label]) * 1000) / 1000 for scores in truth["scores"]]
    expected = reference.average_precision_score(truth["truth"] == label, rounded)
    assert evaluate.average_precision(precision, recall) == pytest.approx(expected)
    assert recall[-1] == 1.0
    assert (np.diff(score) < 0).all()


def test_pictures_are_drawn(evaluation, tmp_path):
    made = evaluate.draw_pictures(evaluation, evaluate.figures(evaluation), tmp_path)
    assert [path.name for path in made] == ["confusion.png", "precision_recall.png", "recall_by_severity.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in made)
