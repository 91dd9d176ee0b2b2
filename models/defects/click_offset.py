"""Clicks of one to three samples: each set off from the signal by a large amount (Hook-Net, section 3.1)."""

import numpy as np

MEAN_GAP_S = 3.7  # one in ten segments of 16,384 samples at 44.1 kHz
LENGTHS = (1, 2, 3)  # samples
OFFSETS = (0.3, 1.0)  # of full scale


def draw(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> dict[str, list] | None:
    """Draw positions (samples) and, for each, the offsets of its samples with their signs.

    Positions are a Poisson process with at least one click; None where the waveform is too short to hold one.
    """
    length = waveform.shape[1]
    if length < max(LENGTHS):
        return None
    count = max(1, int(rng.poisson(length / sample_rate / MEAN_GAP_S)))
    sizes = [rng.uniform(*OFFSETS, int(rng.choice(LENGTHS))) for _ in range(count)]
    return {
        "positions": np.sort(rng.integers(0, length - max(LENGTHS) + 1, count)).tolist(),
        "offsets": [(size * rng.choice([-1.0, 1.0], len(size))).tolist() for size in sizes],
    }


def apply(
    waveform: np.ndarray,
    sample_rate: int,
    rng: np.random.Generator,
    *,
    positions: list[int],
    offsets: list[list[float]],
) -> tuple[np.ndarray, np.ndarray]:
    """Set samples off, on every channel; an offset that would clip there is taken the other way.

    Args:
        waveform: float32 (channels, time), full scale +-1.
        sample_rate: Hz (positions are in samples).
        rng: unused.
        positions: first sample of each click.
        offsets: of each click, one for each of its samples, share of full scale.

    Returns:
        The waveform with clicks, and the mask of changed samples, both (channels, time).
    """
    defective = waveform.copy()
    for position, sizes in zip(positions, offsets, strict=True):
        inside = slice(int(position), int(position) + len(sizes))
        signal = defective[:, inside]  # (channels, samples); cut off at the waveform's end
        size = np.asarray(sizes[: signal.shape[1]], dtype=np.float32)
        moved = signal + size
        defective[:, inside] = np.clip(np.where(np.abs(moved) > 1.0, signal - size, moved), -1.0, 1.0)
    return defective, defective != waveform
