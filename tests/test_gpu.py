"""What needs a GPU; elsewhere these tests are skipped."""

import numpy as np
import pytest
import torch

from models import checkpoint
from models.precision import exactly
from models.segments import SegmentSource
from models.serving import Classifier
from models.training import Phase, TrainingSettings, train
from tests.signals import music_like
from udfs import contract

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
WEIGHTS = sorted(checkpoint.WEIGHTS.glob("*.safetensors"))


@pytest.fixture(scope="module")
def waveforms():
    """Float32 (64, samples): music, every other segment with hiss."""
    music = music_like(20.0, 48_000, np.random.default_rng(1))[0].astype(np.float32)
    segments = np.stack([music[start : start + 48_000] for start in range(0, 64 * 12_000, 12_000)])
    segments[1::2] += np.random.default_rng(2).normal(0, 0.01, segments[1::2].shape)
    return torch.from_numpy(segments.astype(np.float32))


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda path: path.stem)
def test_a_gpu_decides_as_a_cpu_does(weights, waveforms):
    network = checkpoint.load(weights)
    given = waveforms[:, : round(network.config.segment_s * network.config.sample_rate_hz)].contiguous()
    expected = Classifier(network, torch.device("cpu"), bf16=False)(given)
    found = Classifier(network, torch.device("cuda"))(given)
    assert (found - expected).abs().max() < 0.15
    assert (found - expected).abs().mean() < 0.003
    decides = (lambda scores: scores.argmax(-1)) if found.shape[-1] > 1 else (lambda scores: scores > 0.5)
    assert (decides(found) == decides(expected)).float().mean() > 0.99


def test_an_exact_layer_is_no_tf32():
    layer = torch.nn.Conv1d(16, 16, 15).cuda()
    x = torch.randn(8, 16, 4096, device="cuda")
    expected = layer.double()(x.double())
    layer = layer.float()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert (exactly(layer, x).double() - expected).abs().max() < 1e-5
        assert (layer(x).double() - expected).abs().max() > 1e-4


def test_a_gpu_without_memory_for_a_batch_gets_halves_of_it(waveforms, monkeypatch):
    served = Classifier(checkpoint.load(checkpoint.SHIPPED_CNN6), torch.device("cuda"))
    many = waveforms.repeat(16, 1)
    expected = torch.cat([served(part) for part in many.split(64)]).numpy()

    class Predictor:
        def predict(self, given):
            return served(torch.from_numpy(given)).numpy()

    class Contract:
        labels, frames = served.network.config.labels, 1

    monkeypatch.setattr(contract, "_most_segments", {})
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1.5e9 / torch.cuda.get_device_properties(0).total_memory)
    try:
        found = contract.predict(Predictor(), many.numpy(), Contract(), "cnn6/1")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert contract._most_segments["cnn6/1"] < len(many)
    assert np.abs(found - expected).max() < 0.01


def test_training_runs_on_a_gpu(tmp_path):
    path = tmp_path / "music.npy"
    np.save(path, (music_like(10.0, 48_000, np.random.default_rng(4)) * 32767).astype(np.int16))
    settings = TrainingSettings(
        batch_segments=24, phases=(Phase(1.0, 40),), validation_segments=6, validate_every_steps=20, replays=1
    )
    losses = {}
    source = SegmentSource([path], 48_000)
    _network, result = train(
        source, source, settings, tmp_path / "work", lambda step, metrics: losses.update({step: metrics["loss"]}),
        torch.device("cuda"),
    )  # fmt: skip
    assert losses[40] < losses[20]
    assert result["segments_simulated"] == 480
