"""Buffer under-runs: for 32 to 1024 samples the sound is not there, holds still, or is the last buffer's once more.

Hook-Net's paper names them as the clicks of production (section 1) and simulates shorter ones; these are our addition.
"""

import numpy as np

from models.draws import log_uniform

MEAN_GAP_S = 3.7
LENGTHS = (32, 1024)  # samples
MANNERS = ("silence", "hold", "repeat")
TRIES = 20
QUIETEST = 0.01  # share of full scale: less of a bend is no click
AROUND = 256  # samples on either side that hide one


def draw(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> dict[str, list] | None:
    """Draw positions (samples), lengths (samples) and manners of under-runs that can be heard; at least one.

    None where the waveform is too short, or where none could be heard: in silence nothing is missing.
    """
    shortest, longest = LENGTHS
    total = waveform.shape[1]
    if total <= 2 * longest or not waveform.any():
        return None
    count = max(1, int(rng.poisson(total / sample_rate / MEAN_GAP_S)))
    found = []
    for length in log_uniform(rng, shortest, longest, count).astype(int).tolist():
        manner = str(rng.choice(MANNERS))
        for position in rng.integers(longest, total - longest + 1, TRIES).tolist():
            if _is_heard(waveform, position, length, manner, sample_rate, rng):
                found.append((position, length, manner))
                break
    if not found:
        return None
    positions, lengths, manners = map(list, zip(*sorted(found), strict=True))
    return {"positions": positions, "lengths": lengths, "manners": manners}


def _is_heard(
    waveform: np.ndarray, position: int, length: int, manner: str, sample_rate: int, rng: np.random.Generator
) -> bool:
    begin = position - LENGTHS[1]
    before = waveform[:, begin : position + length + AROUND]
    after, mask = apply(before, sample_rate, rng, positions=[position - begin], lengths=[length], manners=[manner])
    ends = (position - begin, position - begin + length)
    return bool(mask.any()) and any(stands_out(*pair, at) for pair in zip(before, after, strict=True) for at in ends)


def bend(samples: np.ndarray, at: int) -> float:
    """Largest second difference near a sample of one channel: what a click there must exceed to be one."""
    around = samples[max(at - AROUND, 0) : at + AROUND]
    return float(np.abs(np.diff(around, 2)).max(initial=0.0))


def stands_out(before: np.ndarray, after: np.ndarray, at: int) -> bool:
    """Whether an under-run that begins or ends there bends a channel more than it is bent nearby anyway."""
    made = np.abs(np.diff(after[max(at - 2, 0) : at + 2], 2)).max(initial=0.0)
    return float(made) > max(QUIETEST, bend(before, at))


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
