"""Buffer under-runs: for 32 to 1024 samples the sound is not there, holds still, or is the last buffer's once more.

Hook-Net's paper names them as the clicks of production (section 1) and simulates shorter ones; these are our addition.
"""

import numpy as np

MEAN_GAP_S = 3.7
LENGTHS = (32, 1024)  # samples
MANNERS = ("silence", "hold", "repeat")


def draw(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> dict[str, list] | None:
    """Draw positions (samples), lengths (samples) and manners of the under-runs; at least one.

    None where the waveform is too short, or nothing but silence: nothing can be missing in it.
    """
    shortest, longest = LENGTHS
    total = waveform.shape[1]
    if total <= 2 * longest or not waveform.any():
        return None
    count = max(1, int(rng.poisson(total / sample_rate / MEAN_GAP_S)))
    lengths = np.exp(rng.uniform(np.log(shortest), np.log(longest), count)).astype(int)
    return {
        "positions": np.sort(rng.integers(longest, total - longest + 1, count)).tolist(),
        "lengths": lengths.tolist(),
        "manners": rng.choice(MANNERS, count).tolist(),
    }


def apply(
    waveform: np.ndarray,
    sample_rate: int,
    rng: np.random.Generator,
    *,
    positions: list[int],
    lengths: list[int],
    manners: list[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Lose the sound for a moment, on every channel; the time line stays.

    Args:
        waveform: float32 (channels, time), full scale +-1.
        sample_rate: Hz (positions are in samples).
        rng: unused.
        positions: first sample of each under-run.
        lengths: samples of each.
        manners: of each: "silence", "hold" the sample before it, "repeat" as many samples before it.

    Returns:
        The waveform with under-runs, and the mask of changed samples, both (channels, time).

    Raises:
        ValueError: an unknown manner.
    """
    defective = waveform.copy()
    for position, length, manner in zip(positions, lengths, manners, strict=True):
        start, stop = int(position), min(int(position) + int(length), waveform.shape[1])
        if manner == "silence":
            defective[:, start:stop] = 0.0
        elif manner == "hold":
            defective[:, start:stop] = defective[:, max(start - 1, 0)][:, None]
        elif manner == "repeat":
            before = np.arange(start, stop) - int(length)
            defective[:, start:stop] = defective[:, np.maximum(before, 0)]
        else:
            raise ValueError(f"manner of an under-run: expected one of {', '.join(MANNERS)}, found {manner!r}")
    return defective, defective != waveform
