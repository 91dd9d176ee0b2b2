"""Model versions are measured on a catalogue of people's own, by a file of labels that they wrote."""

import dataclasses
import json

import numpy as np
import pytest
import toy_models
from signals import write

from jobs import class_evaluation, evaluate, event_evaluation, labelled, register, sql
from jobs.launch import AuscultError
from jobs.registry import ResolvedModel
from jobs.settings import DEFAULTS
from jobs.storage import Storage
from udfs.contract import ModelContract, ShippedModel

CLASSES = ("fine", "hum", "speech")
KNOWN = labelled.vocabulary([toy_models.LEVEL], DEFAULTS)
HEAD = "title_id;defect;start_s;end_s;channels;group\n"


@pytest.fixture
def films(tmp_path):
    """Films of 10 s: a loud stretch of 2.5 to 5.5 s on the right channel, loud throughout (two), quiet; and one that is none."""
    folder, time_s = tmp_path / "films", np.arange(480_000) / 48_000
    quiet = np.full((2, len(time_s)), 0.05, dtype=np.float32)
    loud = np.full_like(quiet, 0.9)
    half = quiet.copy()
    half[1, (time_s >= 2.5) & (time_s < 5.5)] = 0.9
    for name, waveform in {"half.wav": half, "loud.flac": loud, "quiet.wav": quiet, "unknown.wav": loud}.items():
        write(folder / name, waveform)
    (folder / "broken.wav").write_text("x")
    return folder


@pytest.mark.slow
def test_a_version_is_measured_by_a_file_of_labels(home, films, spark, tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.setattr(spark, "stop", lambda: None)
    toy_models.register(tmp_path, "level", toy_models.LEVEL_CODE, toy_models.LEVEL.to_metadata(), 48_000)
    labels = tmp_path / "labels.csv"
    labels.write_text(
        HEAD
        + "half.wav;loud;2,5;5,5;1;a\nloud.flac;loud;;;;a\nquiet.wav;;;;;a\nbroken.wav;loud;;;;\nnowhere.wav;loud;;;;\n"
    )
    arguments = ["--catalogue", str(films), "--labels", str(labels), "--model", "models:/level@champion"]
    assert evaluate.main(arguments) == 0
    printed = capsys.readouterr()
    assert "1 labelled titles are not in the catalogue and left out, the first: nowhere.wav" in caplog.text
    assert "1 labelled titles have no track that level/1 has scored" in caplog.text
    assert "the first: broken.wav" in caplog.text
    # A segment counts where the stretch touches it: four on the right channel, of which two are loud for half a second only.
    rows = spark.read.format("delta").load(str(home / "warehouse" / "evaluations")).collect()
    found = {(row.facet_value, row.label, row.metric): (row.value, row.segments) for row in rows}
    assert found["all", "loud", "recall"] == (1.0, 24)
    assert found["all", "quiet", "recall"] == (1.0, 36)
    assert found["wav", "loud", "recall"][1] == 4
    assert found["flac", "loud", "recall"] == (1.0, 20)
    assert "| level/1 | 1.000 (" in printed.out

    # The gate takes them, too: a version that hears nothing is worse.
    deaf = toy_models.LEVEL_CODE.replace(".clip(0, 1)", ".clip(0, 0)")
    version = toy_models.register(tmp_path, "level", deaf, toy_models.LEVEL.to_metadata(), 48_000, alias=None)
    arguments = ["--model", f"models:/level/{version}", "--compare-on", str(films), "--labels", str(labels)]
    assert register.main(arguments) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    assert f"is the challenger: worse than version 1 on {films}: balanced accuracy -0.5" in told
    assert told.startswith(f"models:/level/{version} at ")


def scored(spark, *segments):
    """Segments of one second on one channel: (title_id, start_s, label that wins)."""
    return spark.createDataFrame(
        [
            (title, 0, 0, start_s, start_s + 1.0, "m", "1", {name: 0.9 if name == said else 0.05 for name in CLASSES})
            for title, start_s, said in segments
        ],
        "title_id string, track int, channel int, start_s double, end_s double, model string, model_version string, "
        "scores map<string, float>",
    )


def test_segments_with_nothing_but_another_detectors_defect_count_for_nothing(films, spark, tmp_path, caplog):
    contract = ModelContract(48_000, 1.0, 1.0, CLASSES, ("fine", "speech"))
    (tmp_path / "labels.csv").write_text(
        HEAD + "half.wav;hum;1;2;;\nhalf.wav;click;1;4;;\nquiet.wav;fine;;;;\nloud.flac;speech;0;9;;\n"
    )
    known = labelled.vocabulary([contract], DEFAULTS)
    catalogue = labelled.by_people(spark, str(films), str(tmp_path / "labels.csv"), known)
    storage = Storage(spark, str(tmp_path / "warehouse"))
    segments = scored(
        spark,
        ("half.wav", 1.0, "hum"),  # both: it is to be found
        ("half.wav", 2.0, "hum"), ("half.wav", 3.0, "fine"),  # another's alone
        ("half.wav", 4.0, "fine"), ("quiet.wav", 0.0, "speech"), ("loud.flac", 0.0, "hum"),
    )  # fmt: skip
    segments.write.format("delta").save(storage.locate("segments"))
    model = ResolvedModel(ShippedModel("m", "1", "", "", contract), tmp_path)
    found = class_evaluation.count(spark, catalogue, storage, model)
    assert "m/1 knows no click: 2 segments of 6, in which nothing else lies, are left out of its figures" in caplog.text
    assert found.matrices().sum(axis=0).tolist() == [[2, 1], [0, 1]]
    of_hum = found.scores[found.scores["class"] == "hum"]
    assert (of_hum["defective_segments"].sum(), of_hum["other_segments"].sum()) == (1, 3)


def test_events_where_another_detectors_defect_is_labelled_are_made_up(films, spark, tmp_path, caplog):
    contract = ModelContract(48_000, 1.0, 1.0, ("click", "glitch"), frames=8)
    (tmp_path / "labels.csv").write_text(HEAD + "half.wav;click;1;2;;\nhalf.wav;hum;3;6;;\n")
    known = labelled.vocabulary([contract], DEFAULTS)
    catalogue = labelled.by_people(spark, str(films), str(tmp_path / "labels.csv"), known)
    event = [{"label": "click", "start_s": 4.0, "end_s": 4.1, "scores": [0.9]}]
    segments = spark.createDataFrame(
        [("half.wav", 0, 0, 0.0, 10.0, "m", "1", event)],
        "title_id string, track int, channel int, start_s double, end_s double, model string, model_version string, "
        "events array<struct<label: string, start_s: double, end_s: double, scores: array<float>>>",
    )
    storage = Storage(spark, str(tmp_path / "warehouse"))
    segments.write.format("delta").save(storage.locate("segments"))
    model = ResolvedModel(ShippedModel("m", "1", "", "", contract), tmp_path)
    found = event_evaluation.count(spark, catalogue, storage, model)
    assert "m/1 knows no hum: what it finds where that is labelled (1 times) counts as made up" in caplog.text
    assert found.counts("click").sum(axis=0)[:4].tolist() == [0, 1, 0, 1]
    assert found.counts("glitch").sum(axis=0)[:4].tolist() == [0, 0, 0, 0]


def test_zero_is_a_value(films, spark, tmp_path):
    """Of a group, a channel and a title, whether a file holds text or numbers; nothing is None, NaN or blank."""
    (films / "0").write_bytes((films / "quiet.wav").read_bytes())
    rows = [
        {"title_id": "half.wav", "defect": "loud", "group": 0, "channels": 0, "track": 0, "start_s": 0, "end_s": 1},
        {"title_id": "quiet.wav", "defect": " ", "group": False, "start_s": float("nan")},
        {"title_id": "loud.flac", "defect": "loud", "group": "0", "channels": "0 1", "end_s": None},
        {"title_id": "loud.flac", "defect": "loud", "group": float("nan"), "channels": []},
        {"title_id": 0, "defect": None, "group": ""},
    ]
    (tmp_path / "labels.json").write_text(json.dumps(rows))
    settings = dataclasses.replace(DEFAULTS, ignored_suffixes=())
    found = labelled.by_people(spark, str(films), str(tmp_path / "labels.json"), KNOWN, settings)
    groups = {row.title_id: row.clean_title_id for row in found.titles.collect()}
    assert groups == {"half.wav": "0", "quiet.wav": "False", "loud.flac": "0", "0": "0"}
    labels = [(row.title_id, row.track, row.channels) for row in found.labels.collect()]
    assert sorted(labels, key=str) == [("half.wav", 0, [0]), ("loud.flac", None, None), ("loud.flac", None, [0, 1])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\nhalf.wav\n", "row 1: expected title_id and defect .*, found the columns name"),
        (HEAD + "half.wav;loud;2;;;\n", "row 1: expected 0 <= start_s < end_s, found 2 and None"),
        (HEAD + "quiet.wav;;;;;\nhalf.wav;loud;5;2;;\n", "row 2: expected 0 <= start_s < end_s, found 5 and 2"),
        (HEAD + "half.wav;loud;soon;2;;\n", "row 1: start_s: expected a number, found 'soon'"),
        (HEAD + "half.wav;quiet;;;;\nhalf.wav;lowd;1;2;;\n", "row 2: defect: expected one of click, .*, found 'lowd'"),
        (HEAD + "half.wav;loud;1;2;FR;\n", "row 1: channels: expected indices from 0, .*, found 'FR'"),
        (HEAD + "elsewhere.wav;loud;1;2;;\n", "none of their titles is in the catalogue .*the first: 'elsewhere.wav'"),
        (HEAD, "none of their titles is in the catalogue .*no rows"),
    ],
)
def test_what_is_wrong_with_labels(films, spark, tmp_path, text, message):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(AuscultError, match=message):
        labelled.by_people(spark, str(films), str(path), KNOWN)


def test_a_label_holds_for_its_track_and_channels_or_for_all(films, spark, tmp_path):
    rows = [
        {"title_id": "half.wav", "defect": "loud", "start_s": 1, "end_s": 2, "track": 1, "channels": [0, 1]},
        {"title_id": "quiet.wav", "defect": "loud", "start_s": 1, "end_s": 2, "group": "b"},
    ]
    (tmp_path / "labels.json").write_text(json.dumps(rows))
    known = labelled.by_people(spark, str(films), str(tmp_path / "labels.json"), KNOWN)
    scores = {"loud": 0.9, "quiet": 0.1}
    event = [{"label": "loud", "start_s": 1.5, "end_s": 1.6, "scores": [0.9]}]
    segments = spark.createDataFrame(
        [
            (title, track, channel, second, second + 1.0, scores, event if second == 1.0 and channel == 1 else [])
            for title in ("half.wav", "quiet.wav")
            for track in (0, 1)
            for channel in (0, 1, 2)
            for second in (0.0, 1.0, 2.0)
        ],
        "title_id string, track int, channel int, start_s double, end_s double, scores map<string, float>, "
        "events array<struct<label: string, start_s: double, end_s: double, scores: array<float>>>",
    )
    judged = spark.sql(sql.text("judged"), segments=segments, titles=known.titles, labels=known.labels)
    counted = judged.where("defect = 'loud'").groupBy("clean_title_id").count().collect()
    assert {row.clean_title_id: row["count"] for row in counted} == {"half.wav": 2, "b": 6}
    matched = spark.sql(
        sql.text("event_matches"),
        segments=segments, titles=known.titles, labels=known.labels, tolerance_s=0.01,
        sought=spark.createDataFrame([("loud",)], "label string"),
    ).toPandas()  # fmt: skip
    counts = matched.groupby(["clean_title_id", "is_planted", "is_met"])["events"].sum().to_dict()
    assert counts == {
        ("half.wav", True, True): 1,  # on channel 1
        ("half.wav", True, False): 1,  # on channel 0
        ("half.wav", False, True): 1,
        ("half.wav", False, False): 1,  # of the other track
        ("b", True, True): 1,  # on whichever
        ("b", False, True): 2,
    }
