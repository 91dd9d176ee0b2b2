import numpy as np
import pytest
import torch
from scipy import signal
from signals import music_like

from models import checkpoint, clicks
from models.clicks import FRAME, ClickSource, post_processed, shelf
from models.defects.underrun import QUIETEST
from models.tasks import best_f1
from models.training import Phase, begun, settings_from, train

RATE, SAMPLES = 44_100, 16_384
SEGMENT_S = SAMPLES / RATE


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    for number in range(3):
        sound = 0.5 * music_like(3.0, RATE, np.random.default_rng(number))
        np.save(folder / f"{number}.npy", (sound * 32767).astype(np.int16))
    return sorted(folder.iterdir())


@pytest.mark.parametrize("is_varied", [True, False])
def test_pairs_differ_by_clicks_alone(recordings, is_varied):
    source = ClickSource(recordings, RATE, is_varied=is_varied)
    seen = 0
    for number in range(40):
        (clean, none), (clicked, target) = source.draw(SEGMENT_S, np.random.default_rng(number))
        assert clean.shape == clicked.shape == (SAMPLES,)
        assert none.shape == target.shape == (SAMPLES // FRAME,)
        assert not none.any()
        assert target.any()
        assert np.isfinite(clicked).all()
        assert np.abs(clicked).max() <= (1.5 if is_varied else 1.0)  # a resampler overshoots, as a scan's does
        on_grid = all(np.allclose(np.round(x * 32768), x * 32768, atol=1e-3) for x in (clean, clicked))
        if on_grid and not is_varied:  # no codec has spread the click
            seen += 1
            changed = np.flatnonzero(clean != clicked)
            begin, end = changed[0] // FRAME, (changed[-1] + 1) // FRAME
            assert set(np.flatnonzero(target)) <= {begin, end}
            if len(changed) <= 3:
                assert target[begin] == 1
            loud = np.abs(np.diff(clicked, 2)) > 2 * np.abs(np.diff(clean, 2)).max() + 0.02
            assert set(np.flatnonzero(loud) // FRAME) <= {f + d for f in np.flatnonzero(target) for d in (-1, 0)}
    assert is_varied or seen > 10


def test_the_shipped_network_finds_a_click_wherever_a_scan_keeps_its_outputs():
    network = checkpoint.load(checkpoint.WEIGHTS / "clicks.safetensors")
    margin = network.config.margin // FRAME
    music = 0.5 * music_like(1.0, RATE, np.random.default_rng(1), channels=1)[0, 4_000 : 4_000 + SAMPLES]
    kept = np.arange(margin, SAMPLES // FRAME - margin)
    waveforms = np.repeat(music[None], 1 + len(kept), axis=0)
    waveforms[1 + np.arange(len(kept)), kept * FRAME + FRAME // 2] += 0.5
    with torch.inference_mode():
        clean, *scores = torch.sigmoid(network(torch.from_numpy(waveforms))).numpy()
    assert clean.max() < 0.1
    for frame, score in zip(kept, scores, strict=True):
        assert score.argmax() == frame
        assert score[frame] > 0.7


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 48_000, 96_000])
def test_clicks_arise_at_the_rates_of_titles(recordings, rate_hz, monkeypatch):
    monkeypatch.setattr(clicks, "OTHER_RATE_SHARE", 1.0)
    monkeypatch.setattr(clicks, "OTHER_RATES_HZ", (rate_hz,))
    monkeypatch.setattr(clicks, "UNDERRUN_SHARE", 0.0)
    for effect in ("post_processed", "through_codec"):
        monkeypatch.setattr(clicks, effect, lambda section, *_: section)
    source = ClickSource(recordings, RATE)
    for number in range(12):
        (clean, _), (clicked, target) = source.draw(SEGMENT_S, np.random.default_rng(number))
        assert clean.shape == clicked.shape == (SAMPLES,)
        change = np.abs(clicked - clean)
        spectrum = np.abs(np.fft.rfft(clicked - clean)) ** 2
        below = np.arange(len(spectrum)) / SEGMENT_S <= rate_hz / 2
        assert spectrum[below].sum() > 0.97 * spectrum.sum()
        # A sample of the title lasts several of the detector's, and its filter rings.
        loud = np.flatnonzero(change > 0.5 * change.max())
        reach = int(np.ceil(3 * RATE / rate_hz))
        assert all(target[max(at - reach, 0) // FRAME : at // FRAME + 2].any() for at in loud)
        for frame in np.flatnonzero(target):
            assert change[max(frame * FRAME - 1, 0) : (frame + 1) * FRAME + reach].max() > 0.2 * QUIETEST


def test_the_same_seed_draws_the_same_pair(recordings):
    source = ClickSource(recordings, RATE)
    first, again = (source.draw(SEGMENT_S, np.random.default_rng(7)) for _ in range(2))
    for (a, b), (c, d) in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)


@pytest.mark.parametrize("is_high", [True, False])
def test_shelves_lift_one_side_and_leave_the_other(is_high):
    _, response = signal.sosfreqz(shelf(1_000.0, -4.0, is_high, RATE), [20.0, 1_000.0, 20_000.0], fs=RATE)
    low, middle, high = 20 * np.log10(np.abs(response))
    assert (high if is_high else low) == pytest.approx(-4.0, abs=0.1)
    assert (low if is_high else high) == pytest.approx(0.0, abs=0.1)
    assert middle == pytest.approx(-2.0, abs=0.1)


def test_post_processing_is_mild_and_keeps_length_and_silence():
    sound = music_like(1.0, RATE, np.random.default_rng(0))[0] * 0.5
    for seed in range(20):
        processed = post_processed(sound, RATE, np.random.default_rng(seed))
        assert processed.shape == sound.shape
        assert processed.dtype == np.float32
        assert np.sqrt(np.mean(processed**2)) / np.sqrt(np.mean(sound**2)) == pytest.approx(1.0, abs=0.6)
        assert not post_processed(np.zeros(2_000, np.float32), RATE, np.random.default_rng(seed)).any()


def test_best_f1_is_that_of_every_threshold_tried():
    rng = np.random.default_rng(3)
    scores = np.concatenate([rng.beta(5, 2, 300), rng.beta(1, 6, 4_000)])
    truth = np.arange(len(scores)) < 300
    bins = (scores * 1000).astype(int)
    found = best_f1(np.bincount(bins[truth], minlength=1001), np.bincount(bins[~truth], minlength=1001))

    def f1(threshold):
        said = bins >= threshold
        return 2 * (said & truth).sum() / (said.sum() + truth.sum())

    assert found["f1"] == pytest.approx(max(f1(threshold) for threshold in range(1001)))
    assert f1(round(found["threshold"] * 1000)) == pytest.approx(found["f1"])


def test_a_click_detector_trains_and_is_judged_by_f1(recordings, tmp_path):
    settings = settings_from(
        {
            "task": "clicks", "architecture": "hooknet", "network": {"growth": 2, "prior": 0.3}, "sample_rate_hz": RATE,
            "batch_segments": 8, "validation_segments": 8, "validate_every_steps": 15, "loader_workers": 1,
        }
    )  # fmt: skip
    settings = settings.__class__(**{**vars(settings), "phases": (Phase(SEGMENT_S, 30),)})
    losses = []
    _, result = train(
        settings.source(recordings, is_varied=True),
        settings.source(recordings, is_varied=False),
        settings,
        tmp_path,
        lambda step, metrics: losses.append((metrics["loss"], metrics["validation_f1"])),
        torch.device("cpu"),
    )
    assert len(losses) == 2
    assert losses[1][0] < losses[0][0]
    assert 0 <= result["f1"] <= 1
    assert {"precision", "recall", "threshold"} <= result.keys()


def test_a_network_that_cannot_learn_the_task_is_refused():
    with pytest.raises(ValueError, match=r"architecture: expected one of \['hooknet'\], found 'cnn6'"):
        settings_from({"task": "clicks", "architecture": "cnn6"})
    with pytest.raises(
        ValueError, match=r"task: expected one of \['artifacts', 'clicks', 'mp3_glitches'\], found 'clocks'"
    ):
        settings_from({"task": "clocks"})


def test_a_training_begins_with_weights_of_another_label(tmp_path):
    clicks_network = checkpoint.build("hooknet", {"growth": 2, "label": "click"})
    checkpoint.save(clicks_network, tmp_path / "w.safetensors", half=False)
    settings = settings_from(
        {"task": "mp3_glitches", "architecture": "hooknet", "network": {"growth": 2, "label": "mp3_glitch"}}
    )
    network = begun(settings, tmp_path / "w.safetensors")
    assert network.config.labels == ("mp3_glitch",)
    assert all(parameter.requires_grad for parameter in network.parameters())
    for name, weights in clicks_network.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], weights)
    for other, message in (
        (
            {"task": "mp3_glitches", "architecture": "hooknet", "network": {"growth": 3}},
            "does not fit the settings' network",
        ),
        ({"task": "artifacts", "architecture": "dscnn"}, "expected weights of dscnn, found hooknet"),
    ):
        with pytest.raises(ValueError, match=message):
            begun(settings_from(other), tmp_path / "w.safetensors")


@pytest.mark.slow
def test_simulate_register_scan_evaluate(home, spark, tmp_path, monkeypatch, capsys):
    """A detector of frames goes the way of every other one; its events are in the table segments, and evaluate counts them."""
    from signals import write

    from jobs import evaluate, register, registry, simulate

    monkeypatch.setattr(spark, "stop", lambda: None)  # the tests' session outlives the job
    for number in range(3):
        write(tmp_path / "clean" / f"{number}.wav", 0.5 * music_like(6.0, 48_000, np.random.default_rng(number)))
    labelled = tmp_path / "labelled"
    planting = ["--defects", "clicks", "--mean-interval-s", "1", "--seed", "4"]
    assert simulate.main(["--catalogue", str(tmp_path / "clean"), "--out", str(labelled), *planting]) == 0
    torch.manual_seed(0)
    network = checkpoint.build("hooknet", {"growth": 2, "prior": 0.5}).eval()  # says something of every frame
    checkpoint.save(network, tmp_path / "w.safetensors")
    assert register.main(["--weights", str(tmp_path / "w.safetensors"), "--name", "clicks"]) == 0
    [model] = registry.resolve(["models:/clicks@champion"])
    assert model.shipped.contract.frames == 128
    capsys.readouterr()
    assert evaluate.main(["--catalogue", str(labelled), "--model", "models:/clicks@champion"]) == 0
    printed = capsys.readouterr().out
    assert "| clicks/1 | all | " in printed
    segments = spark.read.format("delta").load(str(labelled / "warehouse" / "segments"))
    rows = segments.where("title_id = 'clean/0.flac' AND channel = 0").orderBy("start_s").collect()
    assert rows[0].start_s == 0
    assert rows[-1].end_s == pytest.approx(6.0, abs=FRAME / RATE)
    # The events are those frames of the network's own output, segment by segment, that reach the contract's score.
    frame_s = FRAME / RATE
    for row in rows:
        lengths = [len(event.scores) for event in row.events]
        assert all(
            event.end_s - event.start_s == pytest.approx(n * frame_s)
            for event, n in zip(row.events, lengths, strict=True)
        )
        assert all(score >= model.shipped.contract.event_score for event in row.events for score in event.scores)
        assert max([0.0, *(max(event.scores) for event in row.events)]) in (0.0, pytest.approx(row.scores["click"]))
    figures = spark.read.format("delta").load(str(labelled / "warehouse" / "evaluations"))
    metrics = {row.metric for row in figures.where("facet = 'all'").collect()}
    assert {"threshold", "precision", "false_events_per_hour"} <= metrics
