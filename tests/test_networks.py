import json
import time

import numpy as np
import pytest
import torch

from models import checkpoint, quantization
from models.cnn6 import LABELS, Cnn6, Cnn6Config
from models.dscnn import ClickFilters, DsCnn, DsCnnConfig
from models.features import LogMel, ToneSpectrum, WaveformStatistics, whiten
from models.hooknet import HookNet, HookNetConfig
from models.runtimes import compiled_by_openvino
from models.serving import Classifier, fold_batch_norm, has_bf16, has_int8


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


SHIPPED = [checkpoint.SHIPPED, checkpoint.SHIPPED_CNN6]


@pytest.mark.parametrize("weights", SHIPPED)
def test_a_hum_is_heard_at_whole_frequencies_and_between(weights):
    """Whole ones are periodic in a segment of a second, which no real hum is: what knows only them is deaf to others."""
    rng = np.random.default_rng(0)
    rate_hz = 48_000
    time_s = np.arange(rate_hz) / rate_hz
    network = checkpoint.load(weights)
    for between_hz in (0.0, 0.03, 0.25, 0.5, 0.8):
        hums = np.stack(
            [
                rng.uniform(0.03, 0.3) * np.sin(2 * np.pi * (rng.integers(40, 1200) + between_hz) * time_s)
                + rng.uniform(-1, 1, rate_hz) / 32768
                for _ in range(12)
            ]
        )
        with torch.inference_mode():
            said = network(torch.from_numpy(hums.astype(np.float32))).argmax(dim=1)
        assert (said == LABELS.index("hum")).float().mean() >= 0.75, between_hz


@pytest.mark.parametrize("weights", SHIPPED)
def test_bf16_stays_within_a_hundredth_of_float32(segments, weights):
    network = checkpoint.load(weights)
    device = torch.device("cpu")
    difference = Classifier(network, device, bf16=True)(segments) - Classifier(network, device, bf16=False)(segments)
    assert difference.abs().max() < 1e-2


@pytest.mark.parametrize("weights", SHIPPED)
def test_openvino_says_the_same(segments, weights):
    network, device = checkpoint.load(weights), torch.device("cpu")
    ours = Classifier(network, device, bf16=False)
    theirs = Classifier(network, device, bf16=False, runtime="openvino")
    for count in (1, 5, 20):  # it compiles for no particular size of batch
        torch.testing.assert_close(theirs(segments[:count]), ours(segments[:count]), atol=1e-5, rtol=0)


def test_openvino_leaves_its_threads_on_every_core(monkeypatch):
    """Pinned, those of all workers of a machine would share its first cores."""
    import openvino

    compiled = []

    class Core(openvino.Core):
        def compile_model(self, *given):
            compiled.append(super().compile_model(*given))
            return compiled[-1]

    monkeypatch.setattr(openvino, "Core", Core)
    Classifier(checkpoint.load(checkpoint.SHIPPED), torch.device("cpu"), runtime="openvino")
    assert [model.get_property("ENABLE_CPU_PINNING") for model in compiled] == [False]


IN_INT8 = [checkpoint.SHIPPED_CNN6, checkpoint.WEIGHTS / "clicks.safetensors"]
needs_bf16 = pytest.mark.skipif(not has_bf16(torch.device("cpu")), reason="the processor has no AVX512-BF16")
needs_int8 = pytest.mark.skipif(not has_int8(), reason="the processor has no VNNI")


@needs_int8
@pytest.mark.parametrize("weights", IN_INT8, ids=lambda path: path.stem)
def test_int8_decides_as_float32_does(segments, weights):
    network, device = checkpoint.load(weights), torch.device("cpu")
    heard = segments[:, : round(network.config.segment_s * network.config.sample_rate_hz)].clone()
    heard[:, 9_000] += 0.8  # a click
    ours = Classifier(network, device, bf16=False)(heard)
    theirs = Classifier(network, device, runtime="openvino-int8")(heard)
    error = (theirs - ours).abs().mean()
    assert error > 0  # it is int8
    if network.config.labels == ("click",):
        assert error < 1e-2
        assert (ours[:, 70] > 0.9).any()
        assert ((theirs > 0.9) != (ours > 0.9)).sum() <= 2  # of 2,560
    else:  # of synthetic chords it is less sure than of music: some lie next to the border of two classes
        assert error < 3e-2
        assert (theirs.argmax(dim=1) == ours.argmax(dim=1)).float().mean() >= 0.9


@needs_int8
@pytest.mark.parametrize("kind", ["cnn6", "hooknet"])
def test_int8_computes_what_rounding_by_hand_does(segments, kind):
    """Against PyTorch's own rounding of activations to the ranges, and of weights by output channel."""
    torch.manual_seed(1)
    small = {"cnn6": {"widths": (8, 8, 16, 16)}, "hooknet": {"growth": 2}}[kind]
    network = checkpoint.build(kind, small)
    heard = segments[:, : round(network.config.segment_s * network.config.sample_rate_hz)]
    network.train()(heard)  # gives batch norm statistics that are not the identity
    if kind == "hooknet":
        network.head.weight.data.mul_(100)  # which begins near nothing
    network = fold_batch_norm(network)
    network.ranges = quantization.activation_ranges(network, heard)
    convolutions = {name for name, layer in network.named_modules() if isinstance(layer, quantization.CONVOLUTIONS)}
    exact = {id(layer) for outer in network.exact for layer in outer.modules()}
    assert network.ranges.keys() == {name for name in convolutions if id(network.get_submodule(name)) not in exact}
    assert min(low for low, _ in network.ranges.values()) < 0 or kind == "cnn6"
    with torch.inference_mode():
        in_float32 = network.classify(*network.hear(heard[:8]))
        in_openvino = compiled_by_openvino(network, bf16=False, int8=True)(*network.hear(heard[:8]))
        for name, (low, high) in network.ranges.items():
            layer = network.get_submodule(name)
            steps = (0, 255) if low == 0 else (-128, 127)
            scale = max(high / steps[1], low / steps[0] if steps[0] else 0.0)
            layer.register_forward_pre_hook(
                lambda layer, given, scale=scale, steps=steps: (
                    torch.fake_quantize_per_tensor_affine(given[0], scale, 0, *steps),
                )
            )
            axis = 1 if isinstance(layer, torch.nn.ConvTranspose1d) else 0
            largest = layer.weight.abs().amax(dim=[other for other in range(layer.weight.dim()) if other != axis])
            layer.weight.copy_(
                torch.fake_quantize_per_channel_affine(
                    layer.weight, largest / 127, torch.zeros(len(largest), dtype=torch.int32), axis, -127, 127
                )
            )
        by_hand = network.classify(*network.hear(heard[:8]))
    error = (by_hand - in_float32).abs().mean()
    assert error > 1e-4  # rounding shows
    assert (in_openvino - by_hand).abs().mean() < 0.4 * error  # what lies between two steps goes either way


@needs_bf16
def test_openvino_in_bf16_stays_within_two_hundredths_of_float32(segments):
    network, device = checkpoint.load(checkpoint.SHIPPED), torch.device("cpu")
    in_float32 = Classifier(network, device, runtime="openvino")(segments)
    in_bf16 = Classifier(network, device, runtime="openvino-bf16")(segments)
    assert not torch.equal(in_bf16, in_float32)
    assert (in_bf16 - in_float32).abs().max() < 2e-2


def test_what_a_processor_or_a_network_lacks_is_left_out(segments, monkeypatch):
    """From int8 to bfloat16 to float32; a network that must be kept exact goes from int8 to float32 at once."""

    def scores(weights, runtime, bf16=None):
        network = checkpoint.load(weights)
        heard = segments[:4, : round(network.config.segment_s * network.config.sample_rate_hz)]
        return Classifier(network, torch.device("cpu"), runtime=runtime, bf16=bf16)(heard)

    default, cnn6, clicks = checkpoint.SHIPPED, checkpoint.SHIPPED_CNN6, checkpoint.WEIGHTS / "clicks.safetensors"
    assert not checkpoint.load(default).ranges
    assert torch.equal(scores(default, "openvino-int8"), scores(default, "openvino-bf16"))
    assert torch.equal(scores(clicks, "openvino-bf16"), scores(clicks, "openvino"))
    monkeypatch.setattr("models.serving.has_int8", lambda: False)
    assert torch.equal(scores(cnn6, "openvino-int8"), scores(cnn6, "openvino-bf16"))
    assert torch.equal(scores(clicks, "openvino-int8"), scores(clicks, "openvino"))
    monkeypatch.setattr("models.serving.has_bf16", lambda device: False)
    for weights in (default, cnn6):
        assert torch.equal(scores(weights, "openvino-int8"), scores(weights, "openvino", bf16=False))


def test_ranges_of_other_layers_are_refused():
    network = fold_batch_norm(checkpoint.load(checkpoint.SHIPPED_CNN6))
    network.ranges = {"conv_block9.conv1": (0.0, 1.0)}
    with pytest.raises(ValueError, match=r"expected the layers \['conv_block9.conv1'\]"):
        compiled_by_openvino(network, bf16=False, int8=True)


def test_a_runtime_that_is_not_there_is_named(monkeypatch):
    network = checkpoint.load(checkpoint.SHIPPED)
    with pytest.raises(ValueError, match="expected one of torch, openvino, openvino-bf16, openvino-int8, found 'tvm'"):
        Classifier(network, torch.device("cpu"), runtime="tvm")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install openvino"):
        Classifier(network, torch.device("cpu"), runtime="openvino")


@pytest.mark.parametrize("weights", SHIPPED)
def test_scores_do_not_depend_on_the_batch(segments, weights):
    classifier = Classifier(checkpoint.load(weights), torch.device("cpu"), bf16=False)
    together = classifier(segments[:8])
    alone = torch.cat([classifier(segments[i : i + 1]) for i in range(8)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("weights", SHIPPED)
def test_front_ends_are_counted_apart(segments, weights):
    classifier = Classifier(checkpoint.load(weights), torch.device("cpu"))
    started = time.perf_counter()
    classifier(segments[:8])
    assert 0 < classifier.front_end_s < time.perf_counter() - started


def test_checkpoint_round_trip(tmp_path, segments):
    network = Cnn6(Cnn6Config(widths=(8, 8, 16, 16), labels=("clean", "bad"))).eval()
    network.ranges = {"conv_block2.conv1": (-0.5, 7.25)}
    checkpoint.save(network, tmp_path / "w.safetensors", half=False)
    read = checkpoint.load(tmp_path / "w.safetensors")
    assert read.config == network.config
    assert read.ranges == network.ranges
    torch.testing.assert_close(read(segments[:2]), network(segments[:2]))


def test_the_small_network_costs_less_than_a_tenth_and_folds_exactly(segments):
    from torch.utils.flop_counter import FlopCounterMode

    def flops(network):
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            network.eval()(segments[:1])
        return counter.get_total_flops()

    torch.manual_seed(0)
    small = DsCnn()
    assert flops(small) < 0.1 * flops(Cnn6())
    small.train()(segments)
    small.eval()
    with torch.inference_mode():
        torch.testing.assert_close(fold_batch_norm(small)(segments), small(segments), atol=2e-4, rtol=1e-3)


def test_small_network_round_trip(tmp_path, segments):
    network = DsCnn(DsCnnConfig(stem=8, stages=((8, 1), (16, 2)), labels=("clean", "bad"))).eval()
    checkpoint.save(network, tmp_path / "w.safetensors", half=False)
    read = checkpoint.load(tmp_path / "w.safetensors")
    assert read.config == network.config
    torch.testing.assert_close(read(segments[:2]), network(segments[:2]))


def test_waveform_statistics_tell_clipping_and_clicks_and_ignore_gain(segments):
    statistics = WaveformStatistics()
    clean = segments[:4]
    clipped = torch.clamp(clean, -0.3 * clean.abs().max(), 0.3 * clean.abs().max())
    clicked = clean.clone()
    clicked[:, 24_000] += 0.9

    def describe(waveform):
        return statistics(waveform, whiten(torch.fft.rfft(waveform), waveform.shape[1]))

    before, flat, jumpy = (describe(waveform) for waveform in (clean, clipped, clicked))
    assert before.shape == (4, statistics.features, 94)
    assert (flat[:, 9:15].amax(dim=2) > before[:, 9:15].amax(dim=2)).any(dim=1).all()  # shares at the peak
    changed = (jumpy - before).abs()[:, 2:6].amax(dim=1) > 1e-3  # jumps and bends
    assert changed.nonzero()[:, 1].unique().tolist() == [24_000 // 512]
    louder = describe(2 * clean)
    audible = clean.view(4, -1)[:, : 93 * 512].reshape(4, 93, 512).abs().amax(dim=2) > 1e-2
    torch.testing.assert_close(
        (louder - before)[:, 0, :93][audible], torch.full((int(audible.sum()),), 0.6931), atol=1e-3, rtol=0
    )


def test_a_click_surprises_and_a_gain_does_not(segments):
    clicked = segments[:4].clone()
    clicked[:, 24_000] += 0.9
    white = whiten(torch.fft.rfft(clicked), 48_000)
    assert white.abs().argmax(dim=1).tolist() == [24_000] * 4
    assert (white.square().mean(dim=1).sqrt() - 1).abs().max() < 0.3
    torch.testing.assert_close(whiten(torch.fft.rfft(0.1 * clicked), 48_000), white, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("rate_hz", [32_000, 48_000])
@pytest.mark.parametrize("seconds", [0.5, 1.0, 2.0])
def test_a_steady_tone_keeps_its_level_over_the_segment_and_a_wavering_one_does_not(rate_hz, seconds):
    tones = ToneSpectrum(rate_hz)
    time_s = torch.arange(round(seconds * rate_hz)) / rate_hz
    steady = 0.5 * torch.sin(2 * torch.pi * 440.0 * time_s)
    wavering = 0.5 * torch.sin(2 * torch.pi * 440.0 * time_s + 4 * torch.sin(2 * torch.pi * 5 * time_s))
    both = torch.stack([steady, wavering])
    now, lasting = tones(torch.fft.rfft(both), both.shape[1])  # (2, 1, t, f), (2, descriptors, g)
    assert now.shape[:2] == (2, 1)
    assert lasting.shape[:2] == (2, tones.descriptors)
    assert now.shape[3] * tones.STEP_HZ == lasting.shape[2]
    place = 440 - tones.fmin_hz
    assert now[0, 0, :, place // tones.STEP_HZ].numpy() == pytest.approx(-6.02, abs=0.1)
    level, above, mean, least, spread = lasting[:, :, place].T.numpy()
    assert level[0] == pytest.approx(-6.02, abs=0.1)
    assert lasting[0, 0].argmax() == place
    assert (mean[0], least[0], spread[0]) == pytest.approx((0, 0, 0), abs=0.1)
    if seconds >= 1.0:
        assert above[0] > 60
        assert lasting[1, 0].max() < level[0] - 2.0
        assert lasting[1, 1].max() < 20


def test_steady_tones_are_described_as_numpy_does(segments):
    tones = ToneSpectrum()
    now, lasting = tones(torch.fft.rfft(segments[:4]), 48_000)
    power = np.abs(np.fft.rfft(segments[:4].double().numpy() * np.hanning(48_001)[:-1]))
    level = 20 * np.log10(np.maximum(power / 12_000, 1e-5))  # a sine of amplitude 1 has n / 4 through a Hann window
    loud = level[:, 16:1264] > -70
    np.testing.assert_allclose(lasting[:, 0].numpy()[loud], level[:, 16:1264][loud], atol=0.1)
    for g in (0, 100, 1247):
        beside = np.r_[4 + g : 13 + g, 20 + g : 29 + g]  # 12 to 4 Hz below and above
        np.testing.assert_allclose(lasting[:, 1, g].numpy(), level[:, 16 + g] - level[:, beside].max(axis=1), atol=0.5)
    np.testing.assert_allclose(
        (now[:, 0].mean(dim=1) - lasting[:, 0, ::4]).numpy(), lasting[:, 2, ::4].numpy(), atol=1e-4
    )


def test_learned_filters_find_a_click_where_it_is(segments):
    torch.manual_seed(0)
    filters = ClickFilters(8).eval()
    clicked = segments[:4].clone()
    clicked[:, 24_000] += 0.9
    with torch.inference_mode():
        found, before = (filters(whiten(torch.fft.rfft(x), 48_000)) for x in (clicked, segments[:4]))
    assert found.shape == (4, 16, 94)
    change = (found - before).amax(dim=(0, 1))
    assert change[46:48].max() == change.max()  # sample 24,000 is in frame 46


def test_foreign_weights_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="architecture cnn6"):
        checkpoint.load(tmp_path / "w.safetensors")


def test_weights_of_another_version_are_refused_by_name(tmp_path):
    from safetensors.torch import load_file, save_file

    path = tmp_path / "w.safetensors"
    checkpoint.save(DsCnn(), path)
    config = json.dumps(DsCnnConfig().to_dict())
    weights = load_file(path)
    save_file({**weights, "gone": torch.zeros(1)}, path, metadata={"architecture": "dscnn", "config": config})
    with pytest.raises(ValueError, match="another version of dscnn"):
        checkpoint.load(path)
    config = json.dumps({**DsCnnConfig().to_dict(), "strange": 1})
    save_file(weights, path, metadata={"architecture": "dscnn", "config": config})
    with pytest.raises(ValueError, match="another version of dscnn"):
        checkpoint.load(path)


@pytest.mark.parametrize("weights", SHIPPED)
def test_shipped_weights_are_small(weights):
    assert weights.stat().st_size < 12_000_000


def test_hooknet_has_the_papers_parameters():
    assert checkpoint.parameter_count(HookNet()) == 27_307_633


def test_hooknet_begins_with_the_share_of_defects():
    torch.manual_seed(0)
    network = HookNet(HookNetConfig(growth=2, prior=0.02)).eval()
    with torch.inference_mode():
        found = torch.sigmoid(network(0.1 * torch.randn(3, 16_384)))
    assert found.shape == (3, 128)
    assert 0.005 < found.median() < 0.08


def test_hooknet_hears_a_click_where_it_is():
    # Even without training: what one sample moves most must be an output next to it.
    torch.manual_seed(0)
    network = HookNet(HookNetConfig(growth=4)).eval()
    waveform = 0.1 * torch.randn(1, 16_384)
    with torch.inference_mode():
        before = network(waveform)
        for at in (70, 8_000, 16_300):
            clicked = waveform.clone()
            clicked[0, at] += 1.0
            moved = (network(clicked) - before).abs()[0]
            assert abs(int(moved.argmax()) - at // 128) <= 3


def test_hooknet_of_impossible_shape_is_refused():
    with pytest.raises(ValueError, match="lead to 64 frames, expected 128"):
        HookNet(HookNetConfig(samples=8_192))
