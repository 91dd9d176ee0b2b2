"""An ML engineer's walk on tiny data: simulate, train, evaluate, register, scan, compare; and training itself."""

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


def _files(folder):
    files = []
    for number in range(3):
        path = folder / f"{number}.npy"
        np.save(path, (music_like(3.0, 48_000, np.random.default_rng(number)) * 32767).astype(np.int16))
        files.append(path)
    return files


def test_replays_cost_no_simulation(tmp_path):
    import torch

    from models.segments import SegmentSource
    from models.training import Phase, TrainingSettings
    from models.training import train as train_network

    source = SegmentSource(_files(tmp_path), 48_000)
    settings = TrainingSettings(
        batch_segments=6,
        phases=(Phase(0.25, 3), Phase(0.5, 4)),
        validation_segments=6,
        validate_every_steps=7,
        replays=2,
        loader_workers=0,
    )
    losses = {}
    _network, result = train_network(
        source,
        source,
        settings,
        tmp_path / "work",
        lambda step, metrics: losses.update({step: metrics["loss"]}),
        torch.device("cpu"),
    )
    assert losses.keys() == {7}
    assert np.isfinite(losses[7])
    assert (result["segments_seen"], result["segments_simulated"]) == (42, 18)


def test_a_killed_training_goes_on_where_it_was(tmp_path):
    import torch

    from models.segments import SegmentSource
    from models.training import Phase, TrainingSettings
    from models.training import train as train_network

    files = _files(tmp_path)
    settings = TrainingSettings(
        batch_segments=6, phases=(Phase(0.25, 4),), validation_segments=6, validate_every_steps=2, seed=3
    )
    source = lambda: SegmentSource(files, 48_000)  # noqa: E731
    device = torch.device("cpu")
    losses: dict = {}

    def note(step, metrics):
        losses[step] = metrics["loss"]

    whole, _result = train_network(source(), source(), settings, tmp_path / "whole", note, device)
    undisturbed = dict(losses)
    losses.clear()

    def killed_before_step_4_is_saved(step, metrics):
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_network(source(), source(), settings, tmp_path / "again", killed_before_step_4_is_saved, device)
    network, result = train_network(source(), source(), settings, tmp_path / "again", note, device)
    assert losses == {4: pytest.approx(undisturbed[4], rel=1e-3)}
    assert result["segments_seen"] == 24
    for (name, kept), expected in zip(network.state_dict().items(), whole.state_dict().values(), strict=True):
        torch.testing.assert_close(kept, expected, rtol=1e-2, atol=1e-3, msg=name)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_what_is_kept_is_the_average_of_the_last_steps(tmp_path, decay):
    import torch

    from models.segments import SegmentSource
    from models.training import Phase, TrainingSettings
    from models.training import train as train_network

    settings = TrainingSettings(
        batch_segments=6, phases=(Phase(0.25, 8),), validation_segments=6, validate_every_steps=1, loader_workers=0,
        ema_decay=decay,
    )  # fmt: skip
    source = SegmentSource(_files(tmp_path), 48_000)
    steps: dict = {}

    def note(step, metrics):
        if step > 1:  # the state of the step before
            steps[step - 1] = torch.load(tmp_path / "work" / "state.pt", weights_only=True)

    train_network(source, source, settings, tmp_path / "work", note, torch.device("cpu"))
    steps[8] = torch.load(tmp_path / "work" / "state.pt", weights_only=True)
    weights = [decay ** (8 - step) * (1 - decay) for step in (5, 6, 7, 8)]  # by when the average is that long
    for name, parameter in steps[8]["averaged"].items():
        if parameter.is_floating_point():
            expected = sum(w * steps[step]["network"][name] for step, w in zip((5, 6, 7, 8), weights, strict=True))
            expected = expected + decay**4 * steps[4]["averaged"][name]
            torch.testing.assert_close(parameter, expected, rtol=1e-3, atol=1e-5, msg=name)
        else:
            assert parameter == steps[8]["network"][name]


def test_what_was_simulated_before_a_kill_counts(tmp_path):
    import torch

    from models.segments import SegmentSource
    from models.training import Phase, TrainingSettings
    from models.training import train as train_network

    source = SegmentSource(_files(tmp_path), 48_000)
    settings = TrainingSettings(
        batch_segments=6, phases=(Phase(0.25, 6),), validation_segments=6, validate_every_steps=2, replays=2,
        loader_workers=0,
    )  # fmt: skip

    def killed_before_step_4_is_saved(step, metrics):
        if step == 4:
            raise KeyboardInterrupt

    rest = (source, source, settings, tmp_path / "work")
    with pytest.raises(KeyboardInterrupt):
        train_network(*rest, killed_before_step_4_is_saved, torch.device("cpu"))
    _network, result = train_network(*rest, lambda step, metrics: None, torch.device("cpu"))
    # Of the first two steps one; what is replayed is lost with the process, so the third is simulated, and the sixth.
    assert (result["segments_seen"], result["segments_simulated"]) == (36, 18)


def test_segments_come_again_at_another_level_with_their_targets():
    import torch

    from models.replay import Replay

    rng = torch.Generator().manual_seed(1)
    kept = Replay(5, torch.device("cpu"), seed=2)
    last: list[torch.Tensor] = []
    for _ in range(4):
        batch = torch.randn(3, 64, generator=rng)
        last += batch
        kept.add(batch, batch[:, 0])  # a target that tells which segment it belongs to
    segments, targets = kept.draw(400)
    seen, factors = set(), []
    for segment, target in zip(segments, targets, strict=True):
        [place] = [number for number, known in enumerate(last) if known[0] == target]
        seen.add(place)
        factor = segment / last[place]
        assert torch.allclose(factor, factor[0].expand(64), rtol=1e-4)
        factors.append(float(factor[0]))
    assert seen == set(range(7, 12))  # the latest five
    assert 0.49 < min(map(abs, factors)) < 0.6 < 0.9 < max(map(abs, factors)) <= 1.0
    assert {np.sign(factor) for factor in factors} == {-1, 1}
    kept.add(torch.ones(2, 32), torch.ones(2))  # shorter ones
    assert kept.draw(9)[0].shape == (9, 32)


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
    assert every_layer > known.ranges.keys()  # one block is left out of what is shipped
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


def test_batch_norm_over_two_processes_is_that_over_all_segments(tmp_path):
    # gloo in two threads is not to be had; two processes of this interpreter are.
    import subprocess
    import sys

    script = tmp_path / "halves.py"
    script.write_text(
        "import sys, torch\n"
        "from torch import distributed, nn\n"
        "from models.distributed import synced\n"
        "rank = int(sys.argv[1])\n"
        "distributed.init_process_group('gloo', init_method=f'file://{sys.argv[2]}', rank=rank, world_size=2)\n"
        "torch.manual_seed(0)\n"
        "whole, target = torch.randn(6, 3, 4, 5) * 5 - 60, torch.randn(6, 3, 4, 5)\n"
        "expected = nn.Sequential(nn.BatchNorm2d(3))\n"
        "found = synced(nn.Sequential(nn.BatchNorm2d(3)), torch.device('cpu'))\n"
        "mine = slice(3 * rank, 3 * rank + 3)\n"
        "x, y = whole.clone().requires_grad_(), whole[mine].clone().requires_grad_()\n"
        "a, b = expected(x), found(y)\n"
        "(a * target).sum().backward(); (b * target[mine]).sum().backward()\n"
        "torch.testing.assert_close(b, a[mine], rtol=1e-4, atol=1e-4)\n"
        "torch.testing.assert_close(y.grad, x.grad[mine], rtol=1e-3, atol=1e-4)\n"
        "for name, value in expected.state_dict().items():\n"
        "    torch.testing.assert_close(found.state_dict()[name], value, rtol=1e-4, atol=1e-4)\n"
        "found.eval(), expected.eval()\n"
        "torch.testing.assert_close(found(y), expected(x)[mine])\n"
    )
    halves = [
        subprocess.Popen([sys.executable, str(script), str(rank), str(tmp_path / "meet")], stderr=subprocess.PIPE)
        for rank in (0, 1)
    ]
    for half in halves:
        _, errors = half.communicate(timeout=120)
        assert half.returncode == 0, errors.decode()


def test_what_is_wrong_is_told(tmp_path):
    with pytest.raises(AuscultError, match="settings"):
        train.main(["--clean", "x", "--settings", str(tmp_path / "none.yaml")])
    with pytest.raises(AuscultError, match="there is no such file"):
        train.main(["--clean", "x", "--start-from", str(tmp_path / "none")])
    with pytest.raises(AuscultError, match="batch_segments: expected a multiple of 21"):
        train.main(["--clean", "x", "--workers", "7"])
    with pytest.raises(AuscultError, match="at least 1"):
        train.main(["--clean", "x", "--workers", "0"])


def test_silent_recordings_end_the_drawing(tmp_path):
    """Without an end to it, a folder of silence would train for ever."""
    from models.segments import NoRoomForDefects
    from models.tasks import TASKS

    np.save(tmp_path / "silence.npy", np.zeros((1, 96_000), dtype=np.int16))
    source = TASKS["artifacts"].source([tmp_path / "silence.npy"], 48_000, 4, False)  # hum would do, clipping cannot
    with pytest.raises(NoRoomForDefects, match="silent"):
        source.draw(0.5, np.random.default_rng(0))


def test_segments_carry_what_their_label_says(tmp_path):
    from models.cnn6 import LABELS
    from models.segments import SegmentSource

    path = tmp_path / "a.npy"
    np.save(path, (music_like(20.0, 48_000, np.random.default_rng(1)) * 20_000).astype(np.int16))
    source = SegmentSource([path], 48_000)
    rng = np.random.default_rng(0)
    groups = [source.draw(1.0, rng) for _ in range(50)]
    drawn = [pair for group in groups for pair in group]
    labels = np.array([label for _, label in drawn])
    assert all(segment.shape == (48_000,) and segment.dtype == np.float32 for segment, _ in drawn)
    assert np.abs([segment for segment, _ in drawn]).max() <= 1.6  # what is resampled after clipping overshoots
    assert set(labels) == set(range(len(LABELS)))
    for group in groups:
        assert group[0][1] == 0
        assert len({label for _, label in group}) == source.group == 3
    again = [source.draw(1.0, r) for r in [np.random.default_rng(0)] for _ in range(3)]
    for first, second in zip(groups, again, strict=False):
        for (segment, label), (same, its_label) in zip(first, second, strict=True):
            np.testing.assert_array_equal(segment, same)
            assert label == its_label


def test_a_group_differs_in_its_defects_alone(tmp_path):
    from models.cnn6 import LABELS
    from models.segments import SegmentSource

    path = tmp_path / "a.npy"
    np.save(path, (music_like(20.0, 48_000, np.random.default_rng(1)) * 20_000).astype(np.int16))
    source = SegmentSource([path], 48_000, defects=4, is_varied=False)
    rng = np.random.default_rng(2)
    heard = dict.fromkeys(LABELS[1:], 0)
    for _ in range(20):
        (clean, _), *others = source.draw(1.0, rng)
        assert {LABELS[label] for _, label in others} == set(LABELS[1:])
        is_coded = len(np.unique(np.round(clean * 32768) - clean * 32768)) > 1
        for segment, label in others:
            difference = segment - clean
            assert np.abs(difference).max() > 0
            if is_coded:
                continue
            heard[LABELS[label]] += 1
            if LABELS[label] == "hum":  # one line in the spectrum, where it is on for all of the segment
                power = np.abs(np.fft.rfft(difference * np.hanning(48_000))) ** 2
                assert power.argmax() < 1250
            if LABELS[label] == "distortion":
                changed = difference != 0
                assert np.ptp(np.abs(segment[changed])) <= 2 / 32768
    assert min(heard.values()) > 0


@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 96_000])
def test_defects_of_another_rate_are_those_of_a_file_that_is_resampled(tmp_path, monkeypatch, rate_hz):
    from models import segments
    from models.cnn6 import LABELS

    monkeypatch.setattr(segments, "OTHER_RATE_SHARE", 1.0)
    monkeypatch.setattr(segments, "OTHER_RATES_HZ", (rate_hz,))
    monkeypatch.setattr(segments, "through_codec", lambda waveform, rate, rng: waveform)
    path = tmp_path / "a.npy"
    np.save(path, (music_like(20.0, 48_000, np.random.default_rng(1)) * 20_000).astype(np.int16))
    source = segments.SegmentSource([path], 48_000, defects=4)
    rng, frequency_hz = np.random.default_rng(3), np.fft.rfftfreq(48_000, 1 / 48_000)
    for _ in range(6):
        for segment, label in source.draw(1.0, rng):
            assert segment.shape == (48_000,)
            assert segment.dtype == np.float32
            power = np.abs(np.fft.rfft(segment * np.hanning(48_000))) ** 2
            above = power[frequency_hz > 0.55 * rate_hz]
            assert above.sum() <= 1e-3 * power.sum(), LABELS[label]  # half of the rate is all that such a file holds
            if LABELS[label] == "distortion":  # flat before, not any more
                at_top = np.abs(segment) == np.abs(segment).max()
                assert at_top.sum() <= 2


def test_muting_is_silent_to_the_sample():
    from models.segments import muting

    rng = np.random.default_rng(0)
    for _ in range(50):
        gain = muting(57_600, 48_000, rng)
        assert gain.shape == (57_600,)
        assert gain.dtype == np.float32
        assert 0.0 <= gain.min() <= gain.max() <= 1.0
        assert 0.02 < (gain == 0.0).mean() < 1.0
        assert np.abs(np.diff(gain)).max() < 0.25  # no shorter than a tenth of a millisecond from one to the other


def test_what_is_planted_sounds_on_where_the_recording_is_muted(tmp_path, monkeypatch):
    from models import segments
    from models.cnn6 import LABELS

    for name in ("OTHER_RATE", "LOWERED", "SILENT"):
        monkeypatch.setattr(segments, f"{name}_SHARE", 0.0)
    monkeypatch.setattr(segments, "MUTED_SHARE", 1.0)
    monkeypatch.setattr(segments, "through_codec", lambda waveform, rate, rng: waveform)
    path = tmp_path / "a.npy"
    np.save(path, (music_like(20.0, 48_000, np.random.default_rng(1)) * 20_000).astype(np.int16))
    source = segments.SegmentSource([path], 48_000, defects=4)
    rng = np.random.default_rng(3)
    shares = []
    for _ in range(15):
        (clean, _), *others = source.draw(1.0, rng)
        silent = clean == 0.0
        [noisy] = [segment for segment, label in others if LABELS[label] == "hiss"]
        if silent.mean() > 0.1 and (noisy != clean).mean() > 0.99:
            shares.append((noisy[silent] != 0.0).mean())
    assert len(shares) > 5
    assert min(shares) > 0.9


@pytest.mark.parametrize("name", ["rain", "wind", "ambience", "record_surface", "held_notes", "synthesiser", "drums"])
@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_sounds_that_are_meant_are_not_the_defects_they_resemble(name, rate_hz):
    from models.intended import SOUNDS

    for seed in range(5):
        sound = SOUNDS[name](rate_hz, rate_hz, np.random.default_rng(seed))
        assert sound.shape == (rate_hz,)
        assert sound.dtype == np.float32
        assert np.sqrt(np.mean(sound**2)) == pytest.approx(1.0, rel=1e-3)
        np.testing.assert_array_equal(sound, SOUNDS[name](rate_hz, rate_hz, np.random.default_rng(seed)))
        power = np.abs(np.fft.rfft(sound * np.hanning(rate_hz))) ** 2
        thirds = [part.mean() for part in np.array_split(power[rate_hz // 40 :], 8)]
        if name in ("rain", "wind", "ambience", "record_surface"):  # not white
            assert max(thirds) > 4 * min(thirds)
        else:  # no single steady line: a pure tone through a Hann window keeps all its power within 2 Hz
            peak = int(power.argmax())
            assert power[max(peak - 2, 0) : peak + 3].sum() < 0.999 * power.sum()


def test_a_moment_of_a_sound_that_is_meant_is_never_silent():
    from models.intended import SOUNDS

    for name in SOUNDS:
        for seed in range(200):
            sound = SOUNDS[name](2_000, 44_100, np.random.default_rng(seed))
            assert np.isfinite(sound).all()
            assert np.abs(sound).max() > 0


def test_a_driven_amplifier_bends_and_keeps_the_peak():
    from models.intended import driven

    clean = music_like(2.0, 48_000, np.random.default_rng(0))[0]
    heard = driven(clean, np.random.default_rng(1))
    assert heard.shape == clean.shape
    assert np.abs(heard).max() == pytest.approx(np.abs(clean).max(), rel=1e-3)
    top = np.abs(heard) > 0.999 * np.abs(heard).max()
    assert top.mean() < 0.01  # rounded, not clipped
