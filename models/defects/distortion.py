"""Audio Distortion: the waveform clipped below its own peak (paper section 4.3)."""

import numpy as np

MIN_PEAK = 1e-3  # full scale 1: below, clipping is not to be heard, and looks like dither
RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


def draw(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> dict[str, float] | None:
    """Draw the clip level as a share of the peak; None where the waveform is as good as silent."""
    peak = float(np.max(np.abs(waveform), initial=0.0))
    if peak < MIN_PEAK:
        return None
    ratio = float(rng.choice(RATIOS))
    return {"ratio": ratio, "clip_level": ratio * peak}


def apply(
    waveform: np.ndarray,
    sample_rate: int,
    rng: np.random.Generator,
    *,
    clip_level: float,
    ratio: float = 1.0,
    sides: tuple[float, float] = (1.0, 1.0),
) -> tuple[np.ndarray, np.ndarray]:
    """Bound every sample to [-clip_level, clip_level].

    Args:
        waveform: float32 (channels, time), full scale +-1.
        sample_rate: Hz (clipping does not depend on it).
        rng: unused.
        clip_level: bound at full scale 1: `ratio` times the peak of the whole defective interval
            (the paper's counts show that the peak is not that of the single second).
        ratio: the share that gave `clip_level`, kept for the labels only.
        sides: factors of the lower and the upper bound, as stages with an offset clip one side first; the paper has none.

    Returns:
        The clipped waveform and the mask of changed samples, both (channels, time).

    >>> clipped, mask = apply(np.float32([[0.2, -0.9, 0.5]]), 48000, np.random.default_rng(0), clip_level=0.5)
    >>> clipped.tolist()[0][1], mask.tolist()
    (-0.5, [[False, True, False]])
    """
    defective = np.clip(waveform, -clip_level * sides[0], clip_level * sides[1]).astype(np.float32)
    return defective, defective != waveform
