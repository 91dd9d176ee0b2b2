"""Trains a detector on defects simulated on the fly over clean recordings (paper sections 4 and 5)."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import fft, ndimage, signal
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from models import checkpoint
from models.checkpoint import Network
from models.cnn6 import LABELS
from models.defects import LABEL_OF, SIMULATORS
from models.defects.amplitude import MIN_AMPLITUDE
from models.intervals import MEAN_EXTRA_S, MIN_INTERVAL_S
from models.metrics import balanced_accuracy, confusion_matrix
from models.serving import Classifier, has_bf16

TRIES = 20
MIXED_SHARE = 0.2  # of the segments: two recordings at once
QUIET_SHARE = 0.15  # of hum and hiss: amplitude on a logarithmic scale


@dataclass(frozen=True)
class Phase:
    """Steps at one segment length (the network pools over time, so shorter segments train it too)."""

    segment_s: float
    steps: int


@dataclass(frozen=True)
class TrainingSettings:
    """See conf/train.yaml, where each value has its reason."""

    architecture: str = "dscnn"
    sample_rate_hz: int = 48_000
    batch_segments: int = 64
    phases: tuple[Phase, ...] = (Phase(1.0, 1000),)
    peak_learning_rate: float = 1e-3
    warmup_share: float = 0.15
    weight_decay: float = 0.0
    seconds_per_file: float = 150.0
    validation_share: float = 0.08
    validation_segments: int = 1500
    validate_every_steps: int = 200
    clean_share: float = 0.36
    loader_workers: int = 2
    seed: int = 0

    @property
    def steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)


@dataclass
class SegmentSource:
    """Draws labelled segments from clean recordings.

    Args:
        recordings: .npy files of int16 (channels, time), memory-mapped.
        sample_rate_hz: their rate.
        clean_share: share of "no defect" segments.
    """

    recordings: list[Path]
    sample_rate_hz: int
    clean_share: float
    _open: dict[Path, np.ndarray] = field(default_factory=dict)
    _weights: np.ndarray | None = None

    def draw(self, segment_s: float, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        """One float32 (samples,) segment and the index of its label in `LABELS`."""
        length = round(segment_s * self.sample_rate_hz)
        while True:
            label = LABELS[0] if rng.random() < self.clean_share else str(rng.choice(LABELS[1:]))
            for _ in range(TRIES):
                segment = self._try(label, length, rng)
                if segment is not None:
                    return segment, LABELS.index(label)

    def _recording(self, rng: np.random.Generator) -> np.ndarray:
        if self._weights is None:
            # Between "every file alike" and "every second alike": thousands of short prompts must not drown the music.
            lengths = np.array([np.load(path, mmap_mode="r").shape[1] for path in self.recordings], dtype=float)
            self._weights = np.sqrt(lengths) / np.sqrt(lengths).sum()
        path = self.recordings[int(rng.choice(len(self.recordings), p=self._weights))]
        if path not in self._open:
            self._open[path] = np.load(path, mmap_mode="r")
        return self._open[path]

    def _excerpt(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """A piece of one channel, float32 (1, at most `length`)."""
        recording = self._recording(rng)
        channel = recording[int(rng.integers(recording.shape[0]))]
        begin = int(rng.integers(0, max(1, len(channel) - self.sample_rate_hz)))
        return channel[None, begin : begin + length].astype(np.float32) / 32768

    def _try(self, label: str, length: int, rng: np.random.Generator) -> np.ndarray | None:
        interval = length + round((MIN_INTERVAL_S + rng.exponential(MEAN_EXTRA_S)) * self.sample_rate_hz)
        context = self._excerpt(interval, rng)
        if rng.random() < MIXED_SHARE:  # a voice over music, as films have it
            other = self._excerpt(interval, rng)
            overlap = min(context.shape[1], other.shape[1])
            context[:, :overlap] += other[:, :overlap] * np.float32(10.0 ** (rng.uniform(-20.0, 0.0) / 20.0))
            context *= np.float32(min(1.0, 0.98 / max(float(np.abs(context).max()), 1e-9)))
        context = _vary(context, self.sample_rate_hz, rng)
        if context.shape[1] < length:
            context = np.pad(context, ((0, 0), (0, length - context.shape[1])))
        if label == LABELS[0]:
            return _code(context[0, :length], self.sample_rate_hz, rng)
        defect = str(rng.choice([name for name, its_label in LABEL_OF.items() if its_label == label]))
        simulator = SIMULATORS[defect]
        # Clicks are drawn on the segment itself, so that it holds one; the reductive ones need spare samples.
        spare = length // 20 if defect == "click_reductive" else 0
        section = context[:, : length + spare]
        drawn = simulator.draw(section if label == "click" else context, self.sample_rate_hz, rng)
        if drawn is None:
            return None
        if "amplitude" in drawn and rng.random() < QUIET_SHARE:
            # The paper's uniform draw is almost always loud; some on a logarithmic scale teach the quiet ones.
            drawn["amplitude"] = float(np.exp(rng.uniform(np.log(MIN_AMPLITUDE), np.log(drawn["amplitude"]))))
        defective, mask = simulator.apply(section, self.sample_rate_hz, rng, **drawn)
        if defective.shape[1] < length or not mask[:, :length].any():
            return None
        return _code(defective[0, :length], self.sample_rate_hz, rng)


def _code(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """What a lossy codec leaves, which comes after the defect: half of all segments (samples,), clean or not.

    A band limit, and for some quantisation noise in the neighbourhood of what masks it. Without the limit a network
    learns hiss as noise up to 24 kHz, and hears none in an MP3.
    """
    if rng.random() < 0.5:
        return waveform
    cutoff_hz = np.exp(rng.uniform(np.log(7_000), np.log(20_500)))
    if rng.random() < 0.5:
        return np.clip(_limit(waveform, sample_rate, cutoff_hz), -1.0, 1.0)  # as a decoder's output is
    _, _, spectrum = signal.stft(waveform, sample_rate, "cosine", 2048, boundary="even")
    spectrum = spectrum.astype(np.complex64)  # (frequency, time)
    size = np.abs(spectrum)
    masked = np.maximum(size, ndimage.uniform_filter1d(size, 9, axis=0)) * np.float32(rng.uniform(0.02, 0.25))
    noise = rng.random((2, *size.shape), dtype=np.float32) - 0.5
    spectrum += masked * (noise[0] + 1j * noise[1])
    spectrum[np.abs(spectrum) < 0.5 * masked] = 0.0
    spectrum[round(cutoff_hz / sample_rate * 2048) :] = 0.0
    _, decoded = signal.istft(spectrum, sample_rate, "cosine", 2048, boundary=True)
    return np.clip(decoded[: len(waveform)], -1.0, 1.0).astype(np.float32)


def _limit(waveform: np.ndarray, sample_rate: int, cutoff_hz: float) -> np.ndarray:
    """Low-pass (..., samples) with a slope 300 Hz wide."""
    length = fft.next_fast_len(waveform.shape[-1], real=True)
    frequency_hz = fft.rfftfreq(length, 1 / sample_rate)
    gain = np.clip((cutoff_hz + 300 - frequency_hz) / 300, 0.0, 1.0).astype(np.float32)
    return np.asarray(fft.irfft(fft.rfft(waveform, length) * gain, length)[..., : waveform.shape[-1]])


def _vary(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Level and bandwidth of another production: both belong to the clean class."""
    if rng.random() < 0.2:
        waveform = _limit(waveform[:, : 3 * sample_rate], sample_rate, rng.uniform(3_500, 18_000))
        waveform /= max(1.0, float(np.abs(waveform).max(initial=0.0)) / 0.98)  # a limit may overshoot
    if rng.random() < 0.7:
        peak = float(np.abs(waveform).max(initial=0.0))
        gain = 10.0 ** (rng.uniform(-24.0, 6.0) / 20.0)
        waveform = waveform * np.float32(min(gain, 0.95 / peak if peak > 0 else 1.0))
    return np.asarray(waveform, dtype=np.float32)


class _Batches(IterableDataset):
    """Endless batches; simulation runs in the loader's process, ahead of the training step."""

    def __init__(self, source: SegmentSource, settings: TrainingSettings, first_step: int) -> None:
        self.source, self.settings, self.first_step = source, settings, first_step

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        worker = get_worker_info()
        turn, workers = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        step = 0
        for phase in self.settings.phases:
            for _ in range(phase.steps):
                # The loader asks its workers in turn, so that batches come in the order of the steps.
                if step >= self.first_step and (step - self.first_step) % workers == turn:
                    yield draw_batch(
                        self.source,
                        self.settings.batch_segments,
                        phase.segment_s,
                        np.random.default_rng([self.settings.seed, step]),
                    )
                step += 1


def draw_batch(
    source: SegmentSource, count: int, segment_s: float, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """`count` segments (b, n) float32 and their labels (b,) int64."""
    drawn = [source.draw(segment_s, rng) for _ in range(count)]
    return torch.from_numpy(np.stack([segment for segment, _ in drawn])), torch.tensor([label for _, label in drawn])


def evaluate(network: Network, segments: torch.Tensor, labels: torch.Tensor, device: torch.device) -> dict[str, Any]:
    """Balanced accuracy, recalls and confusion matrix of a network on labelled segments (b, n), (b,)."""
    classifier = Classifier(network, device)
    predicted = torch.cat([classifier(batch).argmax(dim=1) for batch in segments.split(64)])
    matrix = confusion_matrix(labels.numpy(), predicted.numpy(), len(LABELS))
    return {"balanced_accuracy": balanced_accuracy(matrix), "confusion": matrix}


def train(
    source: SegmentSource,
    validation: SegmentSource,
    settings: TrainingSettings,
    work: Path,
    log: Callable[[int, dict[str, float]], None],
    device: torch.device,
    start_from: Path | None = None,
) -> tuple[Network, dict[str, Any]]:
    """Train with Adam on a one-cycle schedule and return the network that validated best.

    Args:
        source: clean recordings to train on.
        validation: recordings of other files, from which one fixed set of segments is drawn.
        settings: see `TrainingSettings`.
        work: folder for the checkpoint; a rerun after a kill goes on from there.
        log: called with (step, metrics).
        device: where to train.
        start_from: weights to begin with instead of random ones.

    Returns:
        The best network and its validation result (see `evaluate`), with "segments_seen".
    """
    torch.manual_seed(settings.seed)
    if start_from is None:
        network = checkpoint.build(settings.architecture)
    else:
        network = checkpoint.load(start_from).requires_grad_(True)
    network.to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(network.parameters(), settings.peak_learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.peak_learning_rate, total_steps=settings.steps + 1, pct_start=settings.warmup_share
    )
    held_out = draw_batch(
        validation, settings.validation_segments, 1.0, np.random.default_rng([settings.seed, 1 << 30])
    )
    work.mkdir(parents=True, exist_ok=True)
    state_file, best_file = work / "state.pt", work / "best.safetensors"
    step, best = 0, -math.inf
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        step, best = state["step"], state["best"]
    loader = DataLoader(
        _Batches(source, settings, step), batch_size=None, num_workers=settings.loader_workers, prefetch_factor=4
    )
    started, started_step, losses = time.monotonic(), step, []
    batches = iter(loader)  # draws a seed, so the generator is restored after it
    if state_file.exists():
        torch.set_rng_state(state["random"])
    for waveforms, labels in batches:
        network.train()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_bf16(device)):
            log_probabilities = network(waveforms.to(device))
        loss = functional.nll_loss(log_probabilities, labels.to(device))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        step += 1
        if step % settings.validate_every_steps and step != settings.steps:
            continue
        result = evaluate(network, *held_out, device)
        speed = (step - started_step) * settings.batch_segments / (time.monotonic() - started)
        log(
            step,
            {
                "loss": float(np.mean(losses)),
                "validation_balanced_accuracy": result["balanced_accuracy"],
                "learning_rate": float(schedule.get_last_lr()[0]),
                "segments_per_s": speed,
            },
        )
        losses = []
        if result["balanced_accuracy"] > best:
            best = result["balanced_accuracy"]
            checkpoint.save(network, best_file)
        state = {
            "network": network.state_dict(),
            "optimiser": optimiser.state_dict(),
            "schedule": schedule.state_dict(),
            "step": step,
            "best": best,
            "random": torch.get_rng_state(),
        }
        torch.save(state, work / "state.part")
        (work / "state.part").rename(state_file)
    chosen = checkpoint.load(best_file)
    return chosen, {**evaluate(chosen, *held_out, device), "segments_seen": step * settings.batch_segments}


def settings_from(values: dict[str, Any]) -> TrainingSettings:
    """Read settings from plain values (YAML).

    Raises:
        ValueError: an unknown key or architecture.
    """
    if values.get("architecture", "dscnn") not in checkpoint.ARCHITECTURES:
        raise ValueError(
            f"architecture: expected one of {sorted(checkpoint.ARCHITECTURES)}, found {values['architecture']!r}"
        )
    known = {field.name for field in dataclasses.fields(TrainingSettings)}
    if unknown := set(values) - known:
        raise ValueError(f"unknown training settings {sorted(unknown)}; known are {sorted(known)}")
    phases = tuple(Phase(**phase) for phase in values.get("phases", [{"segment_s": 1.0, "steps": 1000}]))
    return TrainingSettings(**{**values, "phases": phases})
