"""What a training begins with: other weights of the project, of other classes, PANNs checkpoints."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from signals import music_like

from models import checkpoint, defects
from models.pretrained import begin
from models.segments import SegmentSource
from models.tasks import TASKS, classes_of
from models.training import begun, settings_from, train

SMALL = {"widths": (4, 6, 8, 10)}


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def panns_checkpoint(path, *, is_old, extra=None):
    """As PANNs' main.py saves it: its own front end, 64 mel bands, 527 classes, and the state of its sampler in arrays."""
    network = checkpoint.build("cnn6", {**SMALL, "labels": tuple(map(str, range(527))), "front_end": {"n_mels": 64}})
    for block in (network.bn0, network.blocks[1].bn1):
        block.weight.data.uniform_(0.5, 1.5)
        block.running_mean.uniform_(-30.0, -10.0)
    weights = network.state_dict()
    weights |= {
        "spectrogram_extractor.stft.conv_real.weight": torch.zeros(513, 1, 1024),
        "spectrogram_extractor.stft.conv_imag.weight": torch.zeros(513, 1, 1024),
        "logmel_extractor.melW": torch.zeros(513, 64),
    }
    sampler = {"indexes": np.arange(7), "pointer": np.int64(3), "queue": [1, 2]}
    saved = {"iteration": 600_000, "model": weights, "sampler": sampler, **(extra or {})}
    torch.save(saved, path, _use_new_zipfile_serialization=not is_old)
    if is_old:  # as NumPy 1 called it
        pickled = path.read_bytes()
        assert b"numpy._core.multiarray" in pickled
        path.write_bytes(pickled.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    return network


@pytest.mark.parametrize("is_old", [True, False])
def test_a_cnn6_begins_with_a_panns_checkpoint(tmp_path, is_old):
    path = tmp_path / "Cnn6_mAP=0.343.pth"
    panns = panns_checkpoint(path, is_old=is_old)
    network = begin("cnn6", SMALL, path)
    own, given = network.state_dict(), panns.state_dict()
    for name, tensor in given.items():
        if not name.startswith(("bn0.", "fc_audioset.")):
            torch.testing.assert_close(own[name], tensor, msg=name)
    assert own["fc_audioset.weight"].shape == (5, 10)
    for name in ("bn0.weight", "bn0.running_mean"):  # 128 bands of 64: the ends stay, and what is between lies between
        assert own[name].shape == (128,)
        assert own[name][[0, -1]].tolist() == pytest.approx(given[name][[0, -1]].tolist())
        assert given[name][31:33].min() <= own[name][63] <= given[name][31:33].max()
    assert all(parameter.requires_grad for parameter in network.parameters())
    said = network.eval()(torch.zeros(2, 48_000)).exp()
    torch.testing.assert_close(said.sum(dim=1), torch.ones(2))


def test_a_checkpoint_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    panns_checkpoint(tmp_path / "hostile.pth", is_old=False, extra={"sampler": Hostile()})
    with pytest.raises(ValueError, match=r"hostile.pth: cannot be read without running what is in it"):
        begin("cnn6", SMALL, tmp_path / "hostile.pth")
    assert not (tmp_path / "ran").exists()


def test_what_is_no_such_checkpoint_is_told(tmp_path):
    torch.save({"model": {"conv1.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    with pytest.raises(
        ValueError, match=r"other.pth: expected a checkpoint of PANNs' Cnn6, found none of its weights bn0"
    ):
        begin("cnn6", SMALL, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"list.pth: expected a checkpoint of PANNs' Cnn6"):
        begin("cnn6", SMALL, tmp_path / "list.pth")
    panns_checkpoint(tmp_path / "panns.pth", is_old=False)
    with pytest.raises(
        ValueError, match=r"expected weights of dscnn, found a checkpoint of PyTorch: only cnn6 begins so"
    ):
        begin("dscnn", {}, tmp_path / "panns.pth")
    with pytest.raises(ValueError, match=r"does not fit the settings' network .*size mismatch for conv_block1"):
        begin("cnn6", {}, tmp_path / "panns.pth")  # the paper's widths
    cut_off = (tmp_path / "panns.pth").read_bytes()
    for length in (3000, len(cut_off) // 2):
        (tmp_path / "cut.pth").write_bytes(cut_off[:length])
        with pytest.raises(ValueError, match=r"cut.pth: expected a checkpoint of PyTorch; it is damaged"):
            begin("cnn6", SMALL, tmp_path / "cut.pth")
    checkpoint.save(checkpoint.build("cnn6", SMALL), tmp_path / "small.safetensors", half=False)
    with pytest.raises(ValueError, match=r"small.safetensors: does not fit the settings' network"):
        begin("cnn6", {**SMALL, "widths": (4, 6, 8, 12), "labels": ("fine", "hum")}, tmp_path / "small.safetensors")
    (tmp_path / "song.mp3").write_bytes(b"ID3 of something else")
    with pytest.raises(ValueError, match=r"song.mp3: expected a safetensors file, found something else"):
        begin("cnn6", {}, tmp_path / "song.mp3")


@pytest.mark.parametrize(("architecture", "layer"), [("cnn6", "fc_audioset"), ("dscnn", "fc_out")])
def test_classes_that_both_have_keep_their_outputs(tmp_path, architecture, layer):
    shape = SMALL if architecture == "cnn6" else {"stem": 4, "stages": ((6, 1),), "hidden": 10}
    before = checkpoint.build(architecture, shape)
    getattr(before, layer).bias.data.uniform_(-1.0, 1.0)
    checkpoint.save(before, tmp_path / "w.safetensors", half=False)
    labels = ("no_defect", "dropout", "click")
    network = begin(architecture, {"labels": labels}, tmp_path / "w.safetensors")
    assert network.config.labels == labels
    own, given = network.state_dict(), before.state_dict()
    for name, tensor in given.items():
        if not name.startswith(layer):
            torch.testing.assert_close(own[name], tensor, msg=name)
    for name in (f"{layer}.weight", f"{layer}.bias"):
        torch.testing.assert_close(own[name][[0, 2]], given[name][[0, 4]])
        assert not any(torch.equal(own[name][1], row) for row in given[name])


@pytest.fixture
def dropouts(monkeypatch):
    """A defect that the project does not have, as the README says to add one: sound that is gone for some ten milliseconds."""

    def draw(waveform, sample_rate, rng):
        length = int(rng.integers(round(0.01 * sample_rate), round(0.05 * sample_rate)))
        return {"start": int(rng.integers(0, waveform.shape[1] - length)), "length": length}

    def apply(waveform, sample_rate, rng, *, start, length):
        defective = waveform.copy()
        defective[:, start : start + length] = 0.0
        return defective, defective != waveform

    monkeypatch.setitem(defects.SIMULATORS, "dropout", SimpleNamespace(draw=draw, apply=apply))
    monkeypatch.setitem(defects.LABEL_OF, "dropout", "dropout")
    monkeypatch.setitem(defects.SEVERITY, "dropout", "largest jump, share of full scale")
    monkeypatch.setitem(defects.OF_TASK, "dropouts", ("dropout",))
    monkeypatch.setattr("models.segments.BRIEF", defects.BRIEF | {"dropout"})
    monkeypatch.setitem(TASKS, "dropouts", classes_of("dropouts"))


def test_a_detector_of_another_defect_is_trained(dropouts, tmp_path):
    files = []
    for number in range(3):
        files.append(tmp_path / f"{number}.npy")
        np.save(files[-1], (music_like(3.0, 48_000, np.random.default_rng(number)) * 32767).astype(np.int16))
    plain = SegmentSource(files, 48_000, 1, is_varied=False, task="dropouts")
    for number in range(6):
        (clean, no_defect), (gone, dropout) = plain.draw(1.0, np.random.default_rng(number))
        assert (no_defect, dropout) == (0, 1)
        assert ((gone == 0.0) & (clean != 0.0)).sum() > 200 or not np.array_equal(gone, clean)  # a codec blurs it
    values = {
        "task": "dropouts", "defects_per_clean": 1, "batch_segments": 8, "validation_segments": 16,
        "validate_every_steps": 6, "loader_workers": 0, "phases": [{"segment_s": 1.0, "steps": 6}],
        "peak_learning_rate": 2e-3,
    }  # fmt: skip
    settings = settings_from(values)
    source = settings.source(files, is_varied=True)
    assert (source.task, source.group) == ("dropouts", 2)
    with pytest.raises(ValueError, match="defects_per_clean: expected at most 1, what the task dropouts has, found 2"):
        settings_from({**values, "defects_per_clean": 2})
    with pytest.raises(ValueError, match="network: labels are the task's"):
        settings_from({**values, "network": {"labels": ["fine", "gone"]}})
    assert begun(settings, None).config.labels == ("no_defect", "dropout")
    network, result = train(
        source, settings.source(files, is_varied=False), settings, tmp_path / "work", lambda step, metrics: None,
        torch.device("cpu"), start_from=checkpoint.SHIPPED,
    )  # fmt: skip
    assert network.config.labels == ("no_defect", "dropout")
    assert result["confusion"].shape == (2, 2)
    assert result["confusion"].sum() == 16
