"""`make bench-training`: what simulating costs beside the training that waits for it, and what serving costs.

Recordings: the cache of a training (`--cache`), else chords made up here. CPU seconds of one thread each.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from models import checkpoint
from models.defects import SIMULATORS
from models.intervals import draw_intervals, plant
from models.segments import draw_batch
from models.serving import Classifier, has_bf16
from models.tasks import TASKS, Task
from tests.signals import music_like

RATE_HZ = 48_000
BATCH = 96
NETWORKS = [  # architecture, task, configuration
    ("cnn6", "artifacts", {}),
    ("dscnn", "artifacts", {}),
    ("hooknet", "clicks", {"growth": 6}),
    ("hooknet", "clicks", {"growth": 24}),
]


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(prog="training", description=__doc__)
    parser.add_argument("--cache", type=Path, help="folder of .npy files that jobs/train.py decoded")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        recordings = sorted(options.cache.glob("*.npy")) if options.cache else [_made_up(Path(folder))]
        title = np.load(max(recordings, key=lambda path: path.stat().st_size), mmap_mode="r")[:, : 180 * RATE_HZ]
        waveform = title.astype(np.float32) / 32768
        print("| planting in a whole title | times faster than it plays, all channels, one core |")
        print("|---|---|")
        for defect in SIMULATORS:
            rng = np.random.default_rng(0)
            intervals = [(a, b) for a, b, is_bad in draw_intervals(waveform.shape[1] / RATE_HZ, rng) if is_bad]
            cpu_s = _cpu_s(
                lambda defect=defect, intervals=intervals, rng=rng: plant(waveform, RATE_HZ, defect, intervals, rng)
            )
            print(f"| {defect} | {waveform.shape[1] / RATE_HZ / cpu_s:.0f} |")
        print(
            "\n| network | parameters | GFLOP a segment | CPU ms a segment: draw | train on | score | scored per CPU s |"
        )
        print("|---|---|---|---|---|---|---|")
        for name, task, config in NETWORKS:
            network = checkpoint.build(name, config)
            source = TASKS[task].source(recordings, network.config.sample_rate_hz, 2, True)
            segments, targets = draw_batch(source, BATCH, network.config.segment_s, [1])
            draw_s = _cpu_s(lambda source=source, n=network: draw_batch(source, 4 * BATCH, n.config.segment_s, [0])) / 4
            step_s = _cpu_s(_step(network, TASKS[task], segments, targets))
            draw_ms, step_ms, score_ms = (
                seconds / BATCH * 1e3 for seconds in (draw_s, step_s, _cpu_s(_score(network, segments)))
            )
            print(
                f"| {name}{''.join(f', {key} {value}' for key, value in config.items())} | {checkpoint.parameter_count(network):,} | "
                f"{_gflop(network, segments):.2f} | {draw_ms:.1f} | {step_ms:.1f} | {score_ms:.2f} | {1e3 / score_ms:.0f} |",
                flush=True,
            )


def _cpu_s(work: Callable[[], object]) -> float:
    work()
    begun = time.process_time()
    work()
    return time.process_time() - begun


def _step(network: checkpoint.Network, task: Task, segments: torch.Tensor, targets: torch.Tensor) -> Callable[[], None]:
    network.train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters(), 1e-4)

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_bf16(torch.device("cpu"))):
            found = network(segments)
        optimiser.zero_grad()
        task.loss(found.float(), targets).backward()
        optimiser.step()

    return step


def _score(network: checkpoint.Network, segments: torch.Tensor) -> Callable[[], None]:
    """Serving as a scan does it, front end included."""
    classifier = Classifier(network, torch.device("cpu"))
    return lambda: [classifier(part) for part in segments.split(64)] and None


def _gflop(network: checkpoint.Network, segments: torch.Tensor) -> float:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network.eval()(segments[:1])
    return float(counter.get_total_flops()) / 1e9


def _made_up(folder: Path) -> Path:
    path = folder / "chords.npy"
    np.save(path, (music_like(180.0, RATE_HZ, np.random.default_rng(0)) * 32767).astype(np.int16))
    return path


if __name__ == "__main__":
    main()
