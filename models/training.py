"""Trains CNN6 on defects simulated on the fly over clean recordings (paper sections 4 and 5)."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import signal
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from models import checkpoint
from models.cnn6 import LABELS, Cnn6
from models.defects import LABEL_OF, SIMULATORS
from models.defects.amplitude import MIN_AMPLITUDE
from models.intervals import MEAN_EXTRA_S, MIN_INTERVAL_S
from models.metrics import balanced_accuracy, confusion_matrix
from models.serving import Classifier, has_bf16

TRIES = 20


@dataclass(frozen=True)
class Phase:
    """Steps at one segment length (the network pools over time, so shorter segments train it too)."""

    segment_s: float
    steps: int


@dataclass(frozen=True)
class TrainingSettings:
    """See conf/train.yaml, where each value has its reason."""

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

    def _try(self, label: str, length: int, rng: np.random.Generator) -> np.ndarray | None:
        recording = self._recording(rng)
        channel = recording[int(rng.integers(recording.shape[0]))]
        interval = length + round((MIN_INTERVAL_S + rng.exponential(MEAN_EXTRA_S)) * self.sample_rate_hz)
        begin = int(rng.integers(0, max(1, len(channel) - length)))
        context = _vary(channel[begin : begin + interval].astype(np.float32)[None] / 32768, self.sample_rate_hz, rng)
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
        if "amplitude" in drawn and rng.random() < 0.3:
            # The paper's uniform draw is almost always loud; a third on a logarithmic scale teaches the quiet ones.
            drawn["amplitude"] = float(np.exp(rng.uniform(np.log(MIN_AMPLITUDE), np.log(drawn["amplitude"]))))
        defective, mask = simulator.apply(section, self.sample_rate_hz, rng, **drawn)
        if defective.shape[1] < length or not mask[:, :length].any():
            return None
        return _code(defective[0, :length], self.sample_rate_hz, rng)


def _code(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """The band limit of a lossy codec, which comes after the defect: half of all segments (samples,), clean or not.

    Without it a network learns hiss as noise up to 24 kHz, and hears none in an MP3.
    """
    if rng.random() < 0.5:
        return waveform
    cutoff_hz = np.exp(rng.uniform(np.log(7_000), np.log(20_500)))
    frequency_hz = np.fft.rfftfreq(len(waveform), 1 / sample_rate)
    gain = np.clip((cutoff_hz + 300 - frequency_hz) / 300, 0.0, 1.0)
    return np.fft.irfft(np.fft.rfft(waveform) * gain, len(waveform)).astype(np.float32)


def _vary(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Level and bandwidth of another production: both belong to the clean class."""
    if rng.random() < 0.7:
        peak = float(np.abs(waveform).max(initial=0.0))
        gain = 10.0 ** (rng.uniform(-24.0, 6.0) / 20.0)
        waveform = waveform * np.float32(min(gain, 0.95 / peak if peak > 0 else 1.0))
    if rng.random() < 0.2:
        cutoff_hz = rng.uniform(3_500, 18_000)
        waveform = signal.sosfilt(signal.butter(8, cutoff_hz, fs=sample_rate, output="sos"), waveform, axis=1)
    return np.asarray(waveform, dtype=np.float32)


class _Batches(IterableDataset):
    """Endless batches; simulation runs in the loader's process, ahead of the training step."""

    def __init__(self, source: SegmentSource, settings: TrainingSettings, first_step: int) -> None:
        self.source, self.settings, self.first_step = source, settings, first_step

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        step = 0
        for phase in self.settings.phases:
            for _ in range(phase.steps):
                if step >= self.first_step:
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


def evaluate(network: Cnn6, segments: torch.Tensor, labels: torch.Tensor, device: torch.device) -> dict[str, Any]:
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
) -> tuple[Cnn6, dict[str, Any]]:
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
    network = Cnn6() if start_from is None else checkpoint.load(start_from).requires_grad_(True)
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
    loader = DataLoader(_Batches(source, settings, step), batch_size=None, num_workers=1, prefetch_factor=8)
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
        ValueError: an unknown key.
    """
    known = {field.name for field in dataclasses.fields(TrainingSettings)}
    if unknown := set(values) - known:
        raise ValueError(f"unknown training settings {sorted(unknown)}; known are {sorted(known)}")
    phases = tuple(Phase(**phase) for phase in values.get("phases", [{"segment_s": 1.0, "steps": 1000}]))
    return TrainingSettings(**{**values, "phases": phases})
