"""An ML engineer's walk on tiny data: simulate, train, evaluate, register, scan, compare; and training itself."""

import numpy as np
import pytest
import yaml
from signals import music_like, write

from jobs import evaluate, register, registry, scan, simulate, train
from jobs.launch import AuscultError

SETTINGS = {
    "batch_segments": 4,
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
    assert run.data.metrics["segments_seen"] == 16
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
    printed = capsys.readouterr().out
    assert "0 titles scored" in printed  # the comparison has scanned them
    assert f"| audio-artifacts/1 | {accuracy['1']:.3f} (" in printed
    pictures = {item.path for item in client.list_artifacts(run.info.run_id, "evaluation")}
    assert pictures == {"evaluation/confusion.png", "evaluation/recall_by_severity.png"}
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


def test_a_killed_training_goes_on_where_it_was(tmp_path):
    import torch

    from models.training import Phase, SegmentSource, TrainingSettings
    from models.training import train as train_network

    files = []
    for number in range(3):
        path = tmp_path / f"{number}.npy"
        np.save(path, (music_like(3.0, 48_000, np.random.default_rng(number)) * 32767).astype(np.int16))
        files.append(path)
    settings = TrainingSettings(
        batch_segments=4, phases=(Phase(0.25, 4),), validation_segments=4, validate_every_steps=2, seed=3
    )
    source = lambda: SegmentSource(files, 48_000, 0.36)  # noqa: E731
    device = torch.device("cpu")
    losses: dict = {}

    def note(step, metrics):
        losses[step] = metrics["loss"]

    train_network(source(), source(), settings, tmp_path / "whole", note, device)
    undisturbed = dict(losses)
    losses.clear()

    def killed_before_step_4_is_saved(step, metrics):
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_network(source(), source(), settings, tmp_path / "again", killed_before_step_4_is_saved, device)
    _network, result = train_network(source(), source(), settings, tmp_path / "again", note, device)
    assert losses == {4: pytest.approx(undisturbed[4], rel=1e-3)}
    assert result["segments_seen"] == 16


def test_what_is_wrong_is_told(tmp_path):
    with pytest.raises(AuscultError, match="settings"):
        train.main(["--clean", "x", "--settings", str(tmp_path / "none.yaml")])
    with pytest.raises(AuscultError, match="there is no such file"):
        train.main(["--clean", "x", "--start-from", str(tmp_path / "none")])


def test_segments_carry_what_their_label_says(tmp_path):
    from models.cnn6 import LABELS
    from models.training import SegmentSource

    path = tmp_path / "a.npy"
    np.save(path, (music_like(20.0, 48_000, np.random.default_rng(1)) * 20_000).astype(np.int16))
    source = SegmentSource([path], 48_000, 0.36)
    rng = np.random.default_rng(0)
    drawn = [source.draw(1.0, rng) for _ in range(150)]
    labels = np.array([label for _, label in drawn])
    assert all(segment.shape == (48_000,) and segment.dtype == np.float32 for segment, _ in drawn)
    assert np.abs([segment for segment, _ in drawn]).max() <= 1.0
    assert set(labels) == set(range(len(LABELS)))
    assert 0.25 < (labels == 0).mean() < 0.5
    again = [source.draw(1.0, r)[0] for r in [np.random.default_rng(0)] for _ in range(3)]
    for first, second in zip(drawn, again, strict=False):
        np.testing.assert_array_equal(first[0], second)
