"""Reductive Audio Click: a piece of the waveform removed so that its ends do not meet (paper section 4.4.2)."""

import numpy as np

MEAN_GAP_S = 5.0  # the paper's figure 1 shows clicks 5 s apart
MAX_REMOVED_S = 0.010  # the paper gives no length
MIN_JUMP = 3277 / 32768
TRIES = 50


def draw(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> dict[str, list[float]] | None:
    """Draw the pieces to remove: starts and lengths in samples of the clean waveform.

    A piece qualifies where some channel crosses zero inside it and jumps by at least 0.1 of full
    scale once it is gone. None where no try finds such a piece (quiet or very smooth waveforms).
    """
    longest = max(1, round(MAX_REMOVED_S * sample_rate))
    length = waveform.shape[1]
    if length < longest + 3:
        return None
    count = max(1, int(rng.poisson(length / sample_rate / MEAN_GAP_S)))
    pieces: list[tuple[int, int]] = []
    for _ in range(count):
        starts = rng.integers(1, length - longest - 1, TRIES)
        removed = rng.integers(1, longest + 1, TRIES)
        jumps = np.abs(waveform[:, starts + removed] - waveform[:, starts - 1]).max(axis=0)
        for start, size in zip(starts[jumps >= MIN_JUMP], removed[jumps >= MIN_JUMP], strict=True):
            piece = waveform[:, start - 1 : start + size + 1]
            crosses = (np.signbit(piece) != np.signbit(piece[:, :1])).any()
            apart = all(start + size < other or other + other_size < start for other, other_size in pieces)
            if crosses and apart:
                pieces.append((int(start), int(size)))
                break
    if not pieces:
        return None
    pieces.sort()
    return {"starts": [float(s) for s, _ in pieces], "lengths": [float(n) for _, n in pieces]}


def apply(
    waveform: np.ndarray, sample_rate: int, rng: np.random.Generator, *, starts: list[float], lengths: list[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Remove the pieces; the result is shorter by the sum of `lengths`.

    Args:
        waveform: float32 (channels, time), full scale +-1.
        sample_rate: Hz (positions are in samples).
        rng: unused.
        starts: first removed sample of each piece, on the clean time line.
        lengths: samples removed at each start.

    Returns:
        The shortened waveform and its mask, both (channels, time - sum(lengths)). The mask marks
        the two samples at each joint: everything after it is shifted, not damaged.

    >>> shorter, mask = apply(np.float32([[0, 1, 2, 3, 4]]), 5, np.random.default_rng(0), starts=[2], lengths=[2])
    >>> shorter.tolist(), mask.tolist()
    ([[0.0, 1.0, 4.0]], [[False, True, True]])
    """
    keep = np.ones(waveform.shape[1], dtype=bool)
    for start, size in zip(starts, lengths, strict=True):
        keep[int(start) : int(start) + int(size)] = False
    mask = np.zeros((waveform.shape[0], int(keep.sum())), dtype=bool)
    joints = np.asarray(starts, dtype=int) - np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(int)
    for joint in joints:
        mask[:, max(joint - 1, 0) : joint + 1] = True
    return np.ascontiguousarray(waveform[:, keep]), mask
