"""An ML engineer's walk on tiny data: train, register, scan with the new version."""

import numpy as np
import pytest
import yaml
from signals import music_like, write

from jobs import register, registry, scan, train
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


def test_train_register_scan(home, clean, spark, tmp_path, monkeypatch):
    monkeypatch.setattr(spark, "stop", lambda: None)  # the tests' session outlives the job
    settings = tmp_path / "train.yaml"
    settings.write_text(yaml.safe_dump(SETTINGS))
    assert train.main(["--clean", str(clean), "--settings", str(settings)]) == 0
    client = registry.client()
    experiment = client.get_experiment_by_name(registry.EXPERIMENT)
    [run] = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["segments_seen"] == 16
    assert 0 <= run.data.metrics["best_balanced_accuracy"] <= 1
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 2
    assert run.data.params["recordings"] == "3"
    assert register.main(["--run-id", run.info.run_id]) == 0
    for name in ("a.wav", "b.flac"):
        assert (clean / name).exists()
    assert scan.main(["--catalogue", str(clean), "--limit", "2", "--warehouse", str(tmp_path / "warehouse")]) == 0
    rows = spark.read.format("delta").load(str(tmp_path / "warehouse" / "segments")).collect()
    assert {row.model_version for row in rows} == {"1"}
    assert all(sum(row.scores.values()) == pytest.approx(1, abs=0.02) for row in rows)
    assert register.main([]) == 0  # the shipped weights become version 2
    assert registry.resolve(["models:/audio-artifacts@champion"])[0].shipped.version == "2"


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
