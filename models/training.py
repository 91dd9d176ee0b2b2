"""Trains a detector on defects simulated on the fly over clean recordings (paper sections 4 and 5)."""

import copy
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from models import checkpoint, pretrained
from models.checkpoint import Network
from models.distributed import from_first, rank, summed, synced, world_size
from models.quantization import Ranges, activation_ranges, within_loss
from models.replay import Replay
from models.runtimes import is_installed
from models.segments import SegmentSource, draw_batch
from models.serving import Classifier, has_bf16, has_int8
from models.tasks import TASKS, Task, evaluate

messages = logging.getLogger("auscult")
INT8_LOSS = 0.003  # of the figure that chooses the best network, which int8 may cost


@dataclass(frozen=True)
class Phase:
    """Steps at one segment length (the network pools over time, so shorter segments train it too)."""

    segment_s: float
    steps: int


@dataclass(frozen=True)
class TrainingSettings:
    """See conf/train.yaml, where each value has its reason."""

    task: str = "artifacts"
    architecture: str = "dscnn"
    network: dict[str, Any] = field(default_factory=dict)
    sample_rate_hz: int = 48_000
    batch_segments: int = 96
    phases: tuple[Phase, ...] = (Phase(1.0, 1000),)
    peak_learning_rate: float = 1e-3
    warmup_share: float = 0.15
    weight_decay: float = 0.0
    ema_decay: float = 0.99
    seconds_per_file: float = 150.0
    validation_share: float = 0.08
    validation_segments: int = 1500
    validate_every_steps: int = 200
    defects_per_clean: int = 2
    replays: int = 0
    replay_segments: int = 50_000
    loader_workers: int = 2
    seed: int = 0

    @property
    def steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def is_simulated(self, step: int, first_step: int = 0) -> bool:
        """Whether a step's segments are new; those of the others are drawn from the last ones that were."""
        return (step - first_step) % (1 + self.replays) == 0

    def source(self, recordings: list[Path], *, is_varied: bool) -> SegmentSource:
        """Where segments are drawn, for training (varied) or for validation."""
        return TASKS[self.task].source(recordings, self.sample_rate_hz, self.defects_per_clean, is_varied)

    def check_shares(self, workers: int) -> None:
        """Raise ValueError unless batch and validation fall into whole groups, as many for each worker."""
        group = self.source([], is_varied=True).group
        for name in ("batch_segments", "validation_segments"):
            if getattr(self, name) % (group * workers):
                raise ValueError(
                    f"{name}: expected a multiple of {group * workers}, {group} segments that belong together x {workers} "
                    f"worker(s), found {getattr(self, name)}"
                )


class _Batches(IterableDataset):
    """The batches that are simulated; that runs in the loader's processes, ahead of the training step."""

    def __init__(self, source: SegmentSource, settings: TrainingSettings, first_step: int) -> None:
        self.source, self.settings, self.first_step = source, settings, first_step
        self.share = rank(), world_size()

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        worker = get_worker_info()
        turn, workers = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        for number, (step, phase) in enumerate(self.steps()):
            # The loader asks its workers in turn, so that batches come in the order of the steps.
            if number % workers == turn:
                yield draw_batch(
                    self.source, self.settings.batch_segments, phase.segment_s, [self.settings.seed, step], self.share
                )

    def steps(self) -> Iterator[tuple[int, Phase]]:
        """The steps whose segments are new."""
        step = 0
        for phase in self.settings.phases:
            for _ in range(phase.steps):
                if step >= self.first_step and self.settings.is_simulated(step, self.first_step):
                    yield step, phase
                step += 1


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

    What is validated and kept has the weights of the last steps on average (`ema_decay`): single steps differ by more than
    validation can tell apart.

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
        The best network, with its ranges for int8 where that holds its figure, and its validation result (see
        `models.tasks.evaluate`), with "segments_seen" and "segments_simulated". Without steps these are the network that
        it began with.

    Raises:
        ValueError: the processes cannot share a batch or the validation evenly; `start_from` holds no weights or does not fit the settings.
    """
    settings.check_shares(world_size())
    torch.manual_seed(settings.seed)
    task = TASKS[settings.task]
    network = begun(settings, start_from).to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model: nn.Module = network
    if world_size() > 1:
        synced(network, device)
        model = DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)
    averaged = copy.deepcopy(network)
    optimiser = torch.optim.Adam(network.parameters(), settings.peak_learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.peak_learning_rate, total_steps=settings.steps + 1, pct_start=settings.warmup_share
    )
    work.mkdir(parents=True, exist_ok=True)
    state_file, best_file = work / "state.pt", work / "best.safetensors"
    step, simulated, best = 0, 0, -math.inf
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        averaged.load_state_dict(state.get("averaged", state["network"]))  # not in a checkpoint of an earlier version
        step, best = state["step"], state["best"]
        simulated = state.get("simulated", 0)  # nor this
    loader = DataLoader(
        _Batches(source, settings, step),
        batch_size=None,
        num_workers=settings.loader_workers,
        prefetch_factor=4 if settings.loader_workers else None,
        pin_memory=device.type == "cuda",
    )
    kept = Replay(settings.replay_segments, device, settings.seed + rank()) if settings.replays else None
    started, started_step, losses = time.monotonic(), step, []
    if not settings.steps and rank() == 0:
        checkpoint.save(network, best_file)
    batches = iter(loader)  # draws a seed, so the generator is restored after it; its workers begin at once
    held_out = draw_batch(
        validation,
        settings.validation_segments,
        network.config.segment_s,
        [settings.seed, 1 << 30],
        (rank(), world_size()),
    )
    if state_file.exists():
        torch.set_rng_state(state["random"])
    first_step = step
    while step < settings.steps:
        if settings.is_simulated(step, first_step):
            waveforms, targets = (part.to(device, non_blocking=True) for part in next(batches))
            simulated += 1
            if kept is not None:
                kept.add(waveforms, targets)
        else:
            assert kept is not None
            waveforms, targets = kept.draw(settings.batch_segments // world_size())
        network.train()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_bf16(device)):
            output = model(waveforms)
        loss = task.loss(output.float(), targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        # Over fewer steps at first, when the network changes most.
        follow(averaged, network, 1.0 - min(settings.ema_decay, (1 + step) / (10 + step)))
        losses.append(loss.detach())  # of this process' share: every share has the same size; no wait for a GPU
        step += 1
        if step % settings.validate_every_steps and step != settings.steps:
            continue
        result = evaluate(task, averaged, *held_out, device)
        mean_loss = summed(torch.stack(losses).mean()).item() / world_size()
        losses = []
        is_best, best = result[task.figure] > best, max(result[task.figure], best)
        if rank() > 0:
            continue
        speed = (step - started_step) * settings.batch_segments / (time.monotonic() - started)
        log(
            step,
            {
                "loss": mean_loss,
                f"validation_{task.figure}": result[task.figure],
                "learning_rate": float(schedule.get_last_lr()[0]),
                "segments_per_s": speed,
            },
        )
        if is_best:
            checkpoint.save(averaged, best_file)
        state = {
            "network": network.state_dict(),
            "averaged": averaged.state_dict(),
            "optimiser": optimiser.state_dict(),
            "schedule": schedule.state_dict(),
            "step": step,
            "simulated": simulated,
            "best": best,
            "random": torch.get_rng_state(),
        }
        torch.save(state, work / "state.part")
        (work / "state.part").rename(state_file)
    if world_size() > 1:
        distributed.barrier()  # the first process has written the best weights
    chosen = checkpoint.load(best_file)
    result = evaluate(task, chosen, *held_out, device)
    result |= _try_int8(chosen, task, *held_out, result[task.figure])
    return chosen, {
        **result,
        "segments_seen": step * settings.batch_segments,
        "segments_simulated": simulated * settings.batch_segments,
    }


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, share: float) -> None:
    """Move the parameters and running statistics of an average by a share of the way to the network's, in place."""
    for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, share)
        else:  # a batch norm's count
            kept.copy_(new)


def _try_int8(
    network: Network, task: Task, segments: torch.Tensor, targets: torch.Tensor, figure: float
) -> dict[str, float]:
    """Give a network its ranges for int8, as far as what it says does not suffer (INT8_LOSS); its figure, if that was tried."""
    if not network.gains_from_int8:
        return {}
    if not has_int8() or not is_installed("openvino-int8"):
        messages.warning(
            "int8 not tried, so it will not be used: it needs OpenVINO (extra openvino) and a processor with VNNI"
        )
        return {}

    def figure_of(ranges: Ranges) -> float:
        network.ranges = ranges
        served = Classifier(network, torch.device("cpu"), runtime="openvino-int8")
        return task.judge(served, segments, targets)[task.figure]

    ranges = from_first(activation_ranges(network, segments))
    network.ranges, in_int8 = within_loss(ranges, figure_of, figure - INT8_LOSS)
    if not network.ranges:
        messages.info("int8 will not be used: it would cost %.4f of %s", figure - in_int8, task.figure)
    elif left_out := sorted(ranges.keys() - network.ranges.keys()):
        messages.info("int8 leaves out %s", ", ".join(left_out))
    return {f"int8_{task.figure}": in_int8}


def begun(settings: TrainingSettings, start_from: Path | None) -> Network:
    """The network to train: random, or with the weights that `models.pretrained.begin` takes from a file."""
    labels = TASKS[settings.task].labels
    config = {**settings.network, "labels": labels} if labels else settings.network
    if start_from is None:
        return checkpoint.build(settings.architecture, config)
    return pretrained.begin(settings.architecture, config, start_from)


def settings_from(values: dict[str, Any]) -> TrainingSettings:
    """Read settings from plain values (YAML).

    Raises:
        ValueError: an unknown key or architecture.
    """
    if values.get("task", "artifacts") not in TASKS:
        raise ValueError(f"task: expected one of {sorted(TASKS)}, found {values['task']!r}")
    known = {entry.name for entry in dataclasses.fields(TrainingSettings)}
    if unknown := set(values) - known:
        raise ValueError(f"unknown training settings {sorted(unknown)}; known are {sorted(known)}")
    phases = tuple(Phase(**phase) for phase in values.get("phases", [{"segment_s": 1.0, "steps": 1000}]))
    settings = TrainingSettings(**{**values, "phases": phases})
    if settings.replays < 0 or settings.replay_segments < 1:
        raise ValueError(
            f"expected replays of at least 0 and replay_segments of at least 1, found {settings.replays} and "
            f"{settings.replay_segments}"
        )
    if not 0.0 <= settings.ema_decay < 1.0:
        raise ValueError(
            f"ema_decay: expected from 0, which keeps single steps, to below 1, found {settings.ema_decay}"
        )
    if settings.defects_per_clean > (most := len(TASKS[settings.task].labels[1:])) > 0:
        raise ValueError(
            f"defects_per_clean: expected at most {most}, what the task {settings.task} has, found {settings.defects_per_clean}"
        )
    if "labels" in settings.network:
        raise ValueError("network: labels are the task's (OF_TASK in models/defects), expected none here")
    fitting = TASKS[settings.task].architectures
    if settings.architecture not in fitting:
        raise ValueError(f"architecture: expected one of {sorted(fitting)}, found {settings.architecture!r}")
    return settings
