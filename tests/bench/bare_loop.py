"""The yardstick: one process, straight-line code, the same decode and the same model; or the decode alone."""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from udfs.decoding import Block, Resampler, decode
from udfs.media import TrackInfo, probe
from udfs.spans import SegmentCutter

BATCH = 64
RATE_HZ = 48_000
SEGMENT = 48_000  # samples


def segments_of(path: str, tracks: list[TrackInfo] | None = None) -> Iterator[tuple[str, np.ndarray]]:
    """Every segment of every channel and track of a file: its name, and float32 (samples,)."""
    name = Path(path).name
    for info in tracks if tracks is not None else probe(path):
        resampler = Resampler(RATE_HZ)
        cutter = SegmentCutter(SEGMENT, SEGMENT, 0, 1 << 62)
        for block in _resampled(decode(path, info.track, is_timed=info.is_timed), resampler):
            for number, samples, _ in cutter.push(block):
                for channel, waveform in enumerate(samples):
                    yield f"{name}/{info.track}/{channel}/{number}", waveform


def _resampled(blocks: Iterator[Block], resampler: Resampler) -> Iterator[Block]:
    for block in blocks:
        yield from resampler.push(block)
    yield from resampler.flush()


def classifier(weights: str):  # type: ignore[no-untyped-def]
    """The model as the scan serves it, on one thread."""
    import torch

    from models import checkpoint
    from models.serving import Classifier

    torch.set_num_threads(1)
    return Classifier(checkpoint.load(Path(weights)), torch.device("cpu"))


def main(folder: Path, out: Path, weights: str) -> None:
    """Score every file of a folder; write the scores as .npz, print seconds. Without weights nothing is scored."""
    import torch

    score = classifier(weights) if weights else None
    begun_wall, begun_cpu = time.monotonic(), sum(os.times()[:2])
    batch = np.empty((BATCH, SEGMENT), dtype=np.float32)
    names: list[str] = []
    scores: list[np.ndarray] = []
    filled = 0
    audio_s = 0.0
    for path in sorted(folder.iterdir()):
        tracks = probe(str(path))
        audio_s += sum(info.duration_s for info in tracks)
        for name, waveform in segments_of(str(path), tracks):
            batch[filled] = waveform
            names.append(name)
            filled += 1
            if filled == BATCH:
                if score is not None:
                    scores.append(score(torch.from_numpy(batch)).numpy())
                filled = 0
    if filled and score is not None:
        scores.append(score(torch.from_numpy(batch[:filled])).numpy())
    cpu_s, wall_s = sum(os.times()[:2]) - begun_cpu, time.monotonic() - begun_wall
    if score is not None:
        np.savez(out, names=np.array(names), scores=np.concatenate(scores))
    print(json.dumps({"cpu_s": cpu_s, "wall_s": wall_s, "audio_h": audio_s / 3600, "segments": len(names)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
