"""The yardstick: one process, straight-line code, the same decode and the same model. Prints JSON scores' digest."""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

from models import checkpoint
from models.serving import Classifier
from udfs.decoding import Resampler, decode
from udfs.media import probe
from udfs.spans import SegmentCutter

BATCH = 64


def main(folder: Path, out: Path, weights: Path) -> None:
    """Score every track of every file in a folder; write the scores as .npz, print seconds."""
    torch.set_num_threads(1)
    classifier = Classifier(checkpoint.load(weights), torch.device("cpu"))
    begun_wall, begun_cpu = time.monotonic(), sum(os.times()[:2])
    batch = np.empty((BATCH, 48_000), dtype=np.float32)
    names: list[str] = []
    scores: list[np.ndarray] = []
    filled = 0
    audio_s = 0.0
    for path in sorted(folder.iterdir()):
        for info in probe(str(path)):
            audio_s += info.duration_s
            resampler = Resampler(48_000)
            cutter = SegmentCutter(48_000, 48_000, 0, 1 << 62)
            blocks = (
                out_block
                for block in decode(str(path), info.track, is_timed=info.is_timed)
                for out_block in resampler.push(block)
            )
            for block in _chain(blocks, resampler):
                for number, samples, _ in cutter.push(block):
                    for channel, waveform in enumerate(samples):
                        batch[filled] = waveform
                        names.append(f"{path.name}/{info.track}/{channel}/{number}")
                        filled += 1
                        if filled == BATCH:
                            scores.append(classifier(torch.from_numpy(batch)).numpy())
                            filled = 0
    if filled:
        scores.append(classifier(torch.from_numpy(batch[:filled])).numpy())
    cpu_s, wall_s = sum(os.times()[:2]) - begun_cpu, time.monotonic() - begun_wall
    np.savez(out, names=np.array(names), scores=np.concatenate(scores))
    print(json.dumps({"cpu_s": cpu_s, "wall_s": wall_s, "audio_h": audio_s / 3600, "segments": len(names)}))


def _chain(blocks, resampler):  # type: ignore[no-untyped-def]
    yield from blocks
    yield from resampler.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
