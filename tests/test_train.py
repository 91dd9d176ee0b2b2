"""An ML engineer's walk on tiny data: simulate, train, evaluate, register, scan, compare."""

import numpy as np
import pytest
import yaml
from signals import music_like, write

from jobs import evaluate, register, registry, scan, simulate, train
from jobs.launch import AuscultError

SETTINGS = {
    "batch_segments": 6,
    "phases": [{"segment_s": 0.25, "steps": 2}, {"segment_s": 0.5, "steps": 2}],
    "validation_segments": 6,
    "validate_every_steps": 2,
    "validation_share": 0.25,
    "seconds_per_file": 4.0,
}


@pytest.fixture
def clean(tmp_path):
    folder = tmp_path / "clean"
    for number, name in enumerate(["a.wav", "b.flac", "c.mp3", "d.opus"]):
        write(folder / name, music_like(5.0, 48_000, np.random.default_rng(number)))
    (folder / "broken.wav").write_text("x")
    return folder


def aliases(client):
    # Text from a server, numbers from the embedded store.
    return {alias: str(number) for alias, number in client.get_registered_model("audio-artifacts").aliases.items()}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_simulate_train_evaluate_register_scan_compare(home, clean, spark, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(spark, "stop", lambda: None)  # the tests' session outlives the job
    labelled, warehouse = tmp_path / "labelled", tmp_path / "warehouse"
    assert register.main([]) == 0  # the shipped weights are the first champion
    simulation = ["--catalogue", str(clean), "--out", str(labelled), "--mean-interval-s", "1", "--seed", "4"]
    assert simulate.main([*simulation, "--format", "flac", "--format", "mp3"]) == 0
    settings = tmp_path / "train.yaml"
    settings.write_text(yaml.safe_dump(SETTINGS))
    assert train.main(["--clean", str(clean), "--settings", str(settings)]) == 0
    client = registry.client()
    experiment = client.get_experiment_by_name(registry.EXPERIMENT)
    [run] = client.search_runs([experiment.experiment_id], "attributes.run_name LIKE 'train%'")
    assert run.data.metrics["segments_seen"] == 24
    assert 0 <= run.data.metrics["best_balanced_accuracy"] <= 1
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 2
    assert run.data.params["recordings"] == "3"

    # Four steps make no champion: without a comparison it stays challenger, and with one it is told why.
    assert register.main(["--run-id", run.info.run_id]) == 0
    assert aliases(client) == {"champion": "1", "challenger": "2"}
    assert "--compare-on" in client.get_model_version("audio-artifacts", "2").description
    assert register.main(["--run-id", run.info.run_id, "--compare-on", str(labelled)]) == 0
    assert aliases(client) == {"champion": "1", "challenger": "2"}
    assert "worse than version 1" in client.get_model_version("audio-artifacts", "2").description
    figures = spark.read.format("delta").load(str(labelled / "warehouse" / "evaluations"))
    accuracy = {
        row.model_version: row.value
        for row in figures.where("facet = 'all' AND metric = 'balanced_accuracy'").collect()
    }
    assert accuracy["2"] < accuracy["1"]

    capsys.readouterr()
    both = ["--model", "models:/audio-artifacts@champion", "--model", "models:/audio-artifacts@challenger"]
    assert evaluate.main(["--catalogue", str(labelled), *both]) == 0
    printed = capsys.readouterr()
    assert "0 titles scored" in printed.err  # the comparison has scanned them
    assert f"| audio-artifacts/1 | {accuracy['1']:.3f} (" in printed.out
    pictures = {item.path for item in client.list_artifacts(run.info.run_id, "evaluation")}
    assert pictures == {f"evaluation/{name}.png" for name in ("confusion", "precision_recall", "recall_by_severity")}
    assert client.get_run(run.info.run_id).data.metrics["evaluation.balanced_accuracy"] == pytest.approx(accuracy["2"])

    assert register.main(["--run-id", run.info.run_id, "--force", "to try it"]) == 0
    version = client.get_model_version_by_alias("audio-artifacts", "champion")
    assert (str(version.version), version.tags["forced_because"]) == ("2", "to try it")
    assert scan.main(["--catalogue", str(clean), *both[:2], "--warehouse", str(warehouse)]) == 0
    assert (
        scan.main(["--catalogue", str(clean), "--model", "models:/audio-artifacts/1", "--warehouse", str(warehouse)])
        == 0
    )
    compared = spark.sql(
        "SELECT COUNT(*) AS segments, AVG(ABS(a.scores['hum'] - b.scores['hum'])) AS apart FROM {rows} AS a JOIN {rows} AS b "
        "USING (title_id, track, channel, start_s) WHERE a.model_version = '1' AND b.model_version = '2'",
        rows=spark.read.format("delta").load(str(warehouse / "segments")),
    ).first()
    assert compared.segments == 4 * 2 * 5
    assert compared.apart > 0


def test_int8_is_kept_where_it_holds_the_figure(home, clean, spark, tmp_path, monkeypatch):
    import torch

    from models import checkpoint, quantization, serving, training

    if not serving.has_int8():
        pytest.skip("the processor has no VNNI")
    monkeypatch.setattr(spark, "stop", lambda: None)
    given = ["--clean", str(clean), "--settings", str(tmp_path / "train.yaml"), "--steps", "0"]
    shipped = checkpoint.WEIGHTS / "clicks.safetensors"
    shape = {"task": "clicks", "architecture": "hooknet", "network": {"label": "click", "growth": 6}}
    settings = {**SETTINGS, **shape, "sample_rate_hz": 44_100, "validation_segments": 40}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(AuscultError, match="--steps: expected at least 1, or 0 with --start-from, found 0"):
        train.main(given)
    known, weights = checkpoint.load(shipped), {}
    monkeypatch.setattr(quantization, "MOST_LEFT_OUT", 0)  # the search has its own test
    for loss in (2.0, -2.0):  # whatever it costs; whatever it gains
        monkeypatch.setattr(training, "INT8_LOSS", loss)
        work = tmp_path / f"work {loss}"
        assert train.main([*given, "--start-from", str(shipped), "--work", str(work)]) == 0
        weights[loss] = checkpoint.load(work / "weights.safetensors")
        for name, tensor in known.state_dict().items():
            assert torch.equal(weights[loss].state_dict()[name], tensor)
    every_layer = quantization.activation_ranges(known, torch.zeros(2, known.config.samples)).keys()
    assert weights[2.0].ranges.keys() == every_layer
    assert every_layer >= known.ranges.keys() > set()  # of what is shipped, blocks may be left out
    assert not weights[-2.0].ranges
    client = registry.client()
    experiment = client.get_experiment_by_name(registry.EXPERIMENT)
    for run in client.search_runs([experiment.experiment_id], "attributes.run_name LIKE 'train%'"):
        assert run.data.metrics["best_int8_f1"] == pytest.approx(run.data.metrics["best_f1"], abs=0.3)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_workers_learn_what_one_does(home, clean, spark, tmp_path, monkeypatch):
    from dataclasses import replace

    from models import checkpoint
    from models.dscnn import DsCnn, DsCnnConfig

    monkeypatch.setattr(spark, "stop", lambda: None)
    start = tmp_path / "start.safetensors"  # without dropout, whose dice are each process' own
    checkpoint.save(DsCnn(replace(DsCnnConfig(), dropout=0.0)), start, half=False)
    settings = tmp_path / "train.yaml"
    settings.write_text(yaml.safe_dump({**SETTINGS, "phases": [{"segment_s": 1.0, "steps": 4}]}))
    for workers in (1, 2):
        given = ["--clean", str(clean), "--settings", str(settings), "--start-from", str(start)]
        assert train.main([*given, "--workers", str(workers), "--work", str(tmp_path / f"work{workers}")]) == 0
    client = registry.client()
    experiment = client.get_experiment_by_name(registry.EXPERIMENT)
    runs = client.search_runs([experiment.experiment_id], "attributes.run_name LIKE 'train%'")
    losses = {
        run.data.params["workers"]: [metric.value for metric in client.get_metric_history(run.info.run_id, "loss")]
        for run in runs
    }
    assert len(losses["1"]) == 2
    assert losses["2"] == pytest.approx(losses["1"], rel=0.02)  # bfloat16 where the processor has it
    one, two = (run.data.metrics["best_balanced_accuracy"] for run in runs)
    assert one == pytest.approx(two, abs=0.2)  # of six segments


def test_what_is_wrong_is_told(tmp_path):
    with pytest.raises(AuscultError, match="settings"):
        train.main(["--clean", "x", "--settings", str(tmp_path / "none.yaml")])
    with pytest.raises(AuscultError, match="there is no such file"):
        train.main(["--clean", "x", "--start-from", str(tmp_path / "none")])
    with pytest.raises(AuscultError, match="batch_segments: expected a multiple of 21"):
        train.main(["--clean", "x", "--workers", "7"])
    with pytest.raises(AuscultError, match="at least 1"):
        train.main(["--clean", "x", "--workers", "0"])
