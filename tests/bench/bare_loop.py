"""The yardstick: straight-line code, the same decode and the same model, in one process or in one a core; or the decode alone."""

import json
import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from udfs.blocks import Block, Resampler
from udfs.decoding import decode
from udfs.media import TrackInfo, probe
from udfs.spans import TAIL_S, SegmentCutter

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
                    yield f"{name}/{info.track}/{channel}/{number * SEGMENT}", waveform
        if (tail := cutter.tail(round(TAIL_S * RATE_HZ))) is not None:
            position, samples, *_ = tail
            for channel, waveform in enumerate(samples):
                yield f"{name}/{info.track}/{channel}/{position}", waveform


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


def score_files(paths: list[Path], weights: str) -> tuple[list[str], list[np.ndarray], float]:
    """Score files one after the other: names of their segments, scores batch by batch, seconds of audio."""
    import torch

    score = classifier(weights) if weights else None
    batch = np.empty((BATCH, SEGMENT), dtype=np.float32)
    names: list[str] = []
    scores: list[np.ndarray] = []
    filled = 0
    audio_s = 0.0
    for path in paths:
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
    return names, scores, audio_s


def shares(paths: list[Path], count: int) -> list[list[Path]]:
    """Files in so many shares of about the same length, by a scan's measure: hours times channels."""
    length_s = {path: sum(info.duration_s * info.channels for info in probe(str(path))) for path in paths}
    found: list[list[Path]] = [[] for _ in range(count)]
    for path in sorted(paths, key=lambda path: -length_s[path]):
        min(found, key=lambda share: sum(length_s[other] for other in share)).append(path)
    return found


def main(folder: Path, out: Path, weights: str, processes: int = 1) -> None:
    """Score every file of a folder; write the scores as .npz, print seconds. Without weights nothing is scored."""
    paths = sorted(folder.iterdir())
    if processes == 1:
        parts = [score_files(paths, weights)]
    else:
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
            parts = list(pool.map(score_files, shares(paths, processes), [weights] * processes))
    names, scores = [name for part in parts for name in part[0]], [batch for part in parts for batch in part[1]]
    if weights:
        np.savez(out, names=np.array(names), scores=np.concatenate(scores))
    print(json.dumps({"audio_h": sum(part[2] for part in parts) / 3600, "segments": len(names)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else 1)
