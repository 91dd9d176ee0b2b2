import numpy as np
import pytest
import torch

from models import checkpoint
from models.cnn6 import Cnn6, Cnn6Config
from models.features import LogMel
from models.serving import Classifier, fold_batch_norm


@pytest.fixture(scope="module")
def segments(music):
    return torch.from_numpy(np.concatenate([music[:, i * 48_000 : (i + 1) * 48_000] for i in range(20)]))


def test_parameter_count_is_the_papers():
    assert checkpoint.parameter_count(Cnn6()) == 4_569_797


def test_log_mel_has_the_papers_shape_and_librosas_values(segments):
    import librosa

    ours = LogMel()(segments[:3])
    assert ours.shape == (3, 94, 128)
    for waveform, mel in zip(segments[:3].numpy(), ours.numpy(), strict=True):
        power = librosa.feature.melspectrogram(
            y=waveform, sr=48_000, n_fft=1024, hop_length=512, n_mels=128, fmin=50, fmax=22_000, pad_mode="reflect"
        )
        reference = 10 * np.log10(np.maximum(power, 1e-10))
        np.testing.assert_allclose(mel.T, reference, atol=0.1)  # decibels; float32 rounds near the floor of -100


def test_folded_batch_norm_says_the_same(segments):
    torch.manual_seed(0)
    network = Cnn6()
    network.train()(segments)  # gives batch norm statistics that are not the identity
    network.eval()
    with torch.inference_mode():
        torch.testing.assert_close(fold_batch_norm(network)(segments), network(segments), atol=2e-4, rtol=1e-3)


def test_bf16_stays_within_a_hundredth_of_float32(segments):
    network = checkpoint.load(checkpoint.SHIPPED)
    device = torch.device("cpu")
    difference = Classifier(network, device, bf16=True)(segments) - Classifier(network, device, bf16=False)(segments)
    assert difference.abs().max() < 1e-2


def test_scores_do_not_depend_on_the_batch(segments):
    classifier = Classifier(checkpoint.load(checkpoint.SHIPPED), torch.device("cpu"), bf16=False)
    together = classifier(segments[:8])
    alone = torch.cat([classifier(segments[i : i + 1]) for i in range(8)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_checkpoint_round_trip(tmp_path, segments):
    network = Cnn6(Cnn6Config(widths=(8, 8, 16, 16), labels=("clean", "bad"))).eval()
    checkpoint.save(network, tmp_path / "w.safetensors", half=False)
    read = checkpoint.load(tmp_path / "w.safetensors")
    assert read.config == network.config
    torch.testing.assert_close(read(segments[:2]), network(segments[:2]))


def test_foreign_weights_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="architecture cnn6"):
        checkpoint.load(tmp_path / "w.safetensors")


def test_shipped_weights_are_small():
    assert checkpoint.SHIPPED.stat().st_size < 12_000_000
