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
from torch import distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from models import checkpoint
from models.checkpoint import Network
from models.cnn6 import LABELS
from models.codecs import recode
from models.defects import LABEL_OF, SIMULATORS
from models.defects.amplitude import MIN_AMPLITUDE
from models.distributed import rank, summed, synced, world_size
from models.intervals import MEAN_EXTRA_S, MIN_INTERVAL_S
from models.metrics import balanced_accuracy, confusion_matrix
from models.serving import Classifier, has_bf16

TRIES = 20
MIXED_SHARE = 0.2  # of the segments: two recordings at once
QUIET_SHARE = 0.15  # of hum and hiss: amplitude on a logarithmic scale
LEVELLED_SHARE = 0.5  # at another level than the recording's own
CODED_SHARE = 0.12  # through a real codec, at several times the cost of all the rest
LOW_RATE_SHARE, LOW_RATE_FACTORS = 0.3, (2, 3, 6)  # of them: at a half, a third, a sixth of the sample rate
LENGTH_POWER = 0.7  # how often a recording is drawn, by its length
SILENT_SHARE = 0.03  # of the clean segments: nothing but the last bit's noise
MARGIN_S = 0.1
LONGEST_INTERVAL_S = 6.0  # of which the peak is taken; longer ones would cost time and change it little
BIT_RATES = {  # of one channel
    "mp3": (48_000, 64_000, 80_000, 96_000, 128_000, 160_000),
    "aac": (40_000, 48_000, 64_000, 96_000, 128_000),
    "opus": (24_000, 32_000, 48_000, 64_000, 96_000),
}


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

    def _channel(self, rng: np.random.Generator) -> np.ndarray:
        """One channel of one recording, int16 (samples,)."""
        if self._weights is None:
            # Between "every file alike" and "every second alike": thousands of short prompts must not drown the music.
            lengths = np.array([np.load(path, mmap_mode="r").shape[1] for path in self.recordings], dtype=float)
            self._weights = lengths**LENGTH_POWER / (lengths**LENGTH_POWER).sum()
        path = self.recordings[int(rng.choice(len(self.recordings), p=self._weights))]
        if path not in self._open:
            self._open[path] = np.load(path, mmap_mode="r")
        recording = self._open[path]
        return np.asarray(recording[int(rng.integers(recording.shape[0]))])

    def _try(self, label: str, length: int, rng: np.random.Generator) -> np.ndarray | None:
        """A segment (samples,) somewhere at a defective interval, as Algorithm 1 lays them, or None if none came out."""
        rate = self.sample_rate_hz
        margin = round(MARGIN_S * rate)  # on both sides: what codecs and filters make of an edge stays outside
        channel = self._channel(rng)
        total = max(len(channel), length)
        interval = min(MIN_INTERVAL_S + rng.exponential(MEAN_EXTRA_S), LONGEST_INTERVAL_S)
        interval = min(round(interval * rate), total)
        begin = int(rng.integers(0, total - interval + 1))
        start = int(rng.integers(max(0, begin - length + 1), min(total - length, begin + interval - 1) + 1))
        low, high = min(begin, start - margin), max(begin + interval, start + length + margin)
        context = _piece(channel, low, high)
        if label == LABELS[0] and rng.random() < SILENT_SHARE:
            context = rng.integers(-1, 2, len(context)).astype(np.float32) * np.float32(rng.integers(0, 3) / 32768)
            return context[:length]
        if rng.random() < MIXED_SHARE:  # a voice over music, as films have it
            other = self._channel(rng)
            at = int(rng.integers(0, max(1, len(other) - len(context))))
            context += _piece(other, at, at + len(context)) * np.float32(10.0 ** (rng.uniform(-20.0, 0.0) / 20.0))
            context *= np.float32(min(1.0, 0.98 / max(float(np.abs(context).max()), 1e-9)))
        if rng.random() < LEVELLED_SHARE:
            peak = float(np.abs(context).max(initial=0.0))
            gain = 10.0 ** (rng.uniform(-24.0, 6.0) / 20.0)
            context *= np.float32(min(gain, 0.95 / peak if peak > 0 else 1.0))
        context = context[None]  # the simulators take channels
        section = _vary(context[:, start - margin - low : start + length + margin - low], rate, rng)
        if label != LABELS[0]:
            around = context[:, begin - low : begin + interval - low]
            inside = slice(max(begin - start + margin, 0), begin + interval - start + margin)
            simulated = self._simulate(label, section, around, inside, margin, length, rng)
            if simulated is None:
                return None
            section = simulated
        coded = _code(section[0], rate, rng)
        return np.ascontiguousarray(coded[margin : margin + length])

    def _simulate(
        self,
        label: str,
        section: np.ndarray,
        around: np.ndarray,
        inside: slice,
        margin: int,
        length: int,
        rng: np.random.Generator,
    ) -> np.ndarray | None:
        """Apply a defect to the part of `section` that lies `inside` the interval, drawn for all of it (`around`)."""
        defect = str(rng.choice([name for name, its_label in LABEL_OF.items() if its_label == label]))
        simulator = SIMULATORS[defect]
        if label == "click":  # drawn on the segment itself, so that it holds one
            inside = slice(margin, None)
            around = section[:, margin : margin + length]
        drawn = simulator.draw(around, self.sample_rate_hz, rng)
        if drawn is None:
            return None
        if "amplitude" in drawn and rng.random() < QUIET_SHARE:
            # The paper's uniform draw is almost always loud; some on a logarithmic scale teach the quiet ones.
            drawn["amplitude"] = float(np.exp(rng.uniform(np.log(MIN_AMPLITUDE), np.log(drawn["amplitude"]))))
        defective, mask = simulator.apply(section[:, inside], self.sample_rate_hz, rng, **drawn)
        whole = np.concatenate([section[:, : inside.start], defective], axis=1)
        if inside.stop is not None:
            whole = np.concatenate([whole, section[:, inside.stop :]], axis=1)
        changed = np.flatnonzero(mask[0]) + inside.start
        if not ((changed >= margin) & (changed < margin + length)).any():
            return None
        return whole


def _piece(channel: np.ndarray, low: int, high: int) -> np.ndarray:
    """Samples [low, high) of an int16 channel as float32 (high - low,), silence where it has none."""
    piece = np.zeros(high - low, dtype=np.float32)
    begin, end = max(low, 0), min(high, len(channel))
    if begin < end:
        np.divide(channel[begin:end], 32768, out=piece[begin - low : end - low], dtype=np.float32)
    return piece


def _code(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """What a lossy codec leaves, which comes after the defect: half of all segments (samples,), clean or not.

    A real codec for some; for others, being cheaper, a band limit, with or without quantisation noise in the
    neighbourhood of what masks it. Without them a network learns hiss as noise up to 24 kHz, and hears none in an MP3.
    """
    chance = rng.random()
    if chance < CODED_SHARE:
        return _recode(waveform, sample_rate, rng)
    if chance < 0.6:
        return waveform
    cutoff_hz = float(np.exp(rng.uniform(np.log(3_400), np.log(20_500))))  # from a telephone's to a disc's
    if rng.random() < 0.5:
        return np.clip(_limit(waveform, sample_rate, 0.0, cutoff_hz), -1.0, 1.0)  # as a decoder's output is
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


def _recode(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Through a real codec (samples,), for some at a lower sample rate, as prompts and old recordings are stored."""
    codec = str(rng.choice(list(BIT_RATES)))
    bit_rate = int(rng.choice(BIT_RATES[codec]))
    if codec != "opus" and rng.random() < LOW_RATE_SHARE:  # Opus decodes to 48 kHz whatever went in
        factor = int(rng.choice(LOW_RATE_FACTORS))
        low = signal.resample_poly(waveform, 1, factor).astype(np.float32)
        coded = recode(low, sample_rate // factor, codec, min(bit_rate, 64_000))
        waveform = signal.resample_poly(coded, factor, 1)[: len(waveform)].astype(np.float32)
    else:
        waveform = recode(waveform, sample_rate, codec, bit_rate)
    return np.clip(waveform, -1.0, 1.0)


def _limit(waveform: np.ndarray, sample_rate: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Band-pass (..., samples) with slopes 300 Hz wide."""
    length = fft.next_fast_len(waveform.shape[-1], real=True)
    frequency_hz = fft.rfftfreq(length, 1 / sample_rate)
    gain = np.clip((high_hz + 300 - frequency_hz) / 300, 0.0, 1.0)
    if low_hz > 0.0:
        gain *= np.clip((frequency_hz - low_hz) / 300 + 1.0, 0.0, 1.0)
    limited = fft.irfft(fft.rfft(waveform, length) * gain.astype(np.float32), length)
    return np.asarray(limited[..., : waveform.shape[-1]], dtype=np.float32)


def _vary(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Bandwidth and codec of another production's source (1, samples): both belong to the clean class."""
    chance = rng.random()
    if chance < 0.15:
        waveform = _limit(waveform, sample_rate, 0.0, rng.uniform(3_500, 18_000))
    elif chance < 0.2:
        waveform = _limit(waveform, sample_rate, rng.uniform(200, 500), rng.uniform(3_000, 4_000))  # a telephone
    elif chance < 0.2 + CODED_SHARE / 3:
        waveform = _recode(waveform[0], sample_rate, rng)[None]
    if chance < 0.2:
        waveform = waveform / max(1.0, float(np.abs(waveform).max(initial=0.0)) / 0.98)  # a limit may overshoot
    return waveform


class _Batches(IterableDataset):
    """Endless batches; simulation runs in the loader's process, ahead of the training step."""

    def __init__(self, source: SegmentSource, settings: TrainingSettings, first_step: int) -> None:
        self.source, self.settings, self.first_step = source, settings, first_step
        self.share = rank(), world_size()

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
                        [self.settings.seed, step],
                        self.share,
                    )
                step += 1


def draw_batch(
    source: SegmentSource, count: int, segment_s: float, seed: list[int], share: tuple[int, int] = (0, 1)
) -> tuple[torch.Tensor, torch.Tensor]:
    """Segments (b, n) float32 and their labels (b,) int64: a process' share of `count`.

    Each segment has its own seed, so that the batch is the same however many processes share it.

    Args:
        source: where to draw.
        count: segments of all processes.
        segment_s: their length.
        seed: of the batch.
        share: number of the process and how many there are.
    """
    drawn = [
        source.draw(segment_s, np.random.default_rng([*seed, number])) for number in range(share[0], count, share[1])
    ]
    return torch.from_numpy(np.stack([segment for segment, _ in drawn])), torch.tensor([label for _, label in drawn])


def evaluate(network: Network, segments: torch.Tensor, labels: torch.Tensor, device: torch.device) -> dict[str, Any]:
    """Balanced accuracy, recalls and confusion matrix of a network on labelled segments (b, n), (b,)."""
    classifier = Classifier(network, device)
    predicted = torch.cat([classifier(batch).argmax(dim=1) for batch in segments.split(64)])
    counts = torch.from_numpy(confusion_matrix(labels.numpy(), predicted.numpy(), len(LABELS)))
    matrix = summed(counts.to(device)).cpu().numpy()
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

    Where `torch.distributed` is initialised, its processes share each batch and the validation; the first of them
    keeps the checkpoint and logs.

    Args:
        source: clean recordings to train on.
        validation: recordings of other files, from which one fixed set of segments is drawn.
        settings: see `TrainingSettings`.
        work: folder for the checkpoint, seen by all processes; a rerun after a kill goes on from there.
        log: called with (step, metrics) in the first process.
        device: where to train.
        start_from: weights to begin with instead of random ones.

    Returns:
        The best network and its validation result (see `evaluate`), with "segments_seen".

    Raises:
        ValueError: the processes cannot share a batch evenly.
    """
    if settings.batch_segments % world_size():
        raise ValueError(
            f"batch_segments: expected a multiple of {world_size()}, the number of workers, found "
            f"{settings.batch_segments}"
        )
    torch.manual_seed(settings.seed)
    if start_from is None:
        network = checkpoint.build(settings.architecture)
    else:
        network = checkpoint.load(start_from).requires_grad_(True)
    network.to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model: nn.Module = network
    if world_size() > 1:
        synced(network, device)
        model = DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)
    optimiser = torch.optim.Adam(network.parameters(), settings.peak_learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.peak_learning_rate, total_steps=settings.steps + 1, pct_start=settings.warmup_share
    )
    held_out = draw_batch(
        validation, settings.validation_segments, 1.0, [settings.seed, 1 << 30], (rank(), world_size())
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
            log_probabilities = model(waveforms.to(device))
        loss = functional.nll_loss(log_probabilities, labels.to(device))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())  # of this process' share: every share has the same size
        step += 1
        if step % settings.validate_every_steps and step != settings.steps:
            continue
        result = evaluate(network, *held_out, device)
        mean_loss = summed(torch.tensor([np.mean(losses)], device=device)).item() / world_size()
        losses = []
        is_best, best = result["balanced_accuracy"] > best, max(result["balanced_accuracy"], best)
        if rank() > 0:
            continue
        speed = (step - started_step) * settings.batch_segments / (time.monotonic() - started)
        log(
            step,
            {
                "loss": mean_loss,
                "validation_balanced_accuracy": result["balanced_accuracy"],
                "learning_rate": float(schedule.get_last_lr()[0]),
                "segments_per_s": speed,
            },
        )
        if is_best:
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
    if world_size() > 1:
        distributed.barrier()  # the first process has written the best weights
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
