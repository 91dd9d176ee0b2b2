"""Additive Audio Click: Butterworth-filtered unit impulses added to the waveform (paper section 4.4.1)."""

import numpy as np
from scipy import signal

MEAN_GAP_S = 2.5  # paper gives no density; its figure 1 shows clicks 2.5 s apart
CUTOFF_RANGE = (0.05, 0.45)  # cycles per sample
RESPONSE_LENGTH = 512  # samples; the slowest filter (0.05) has decayed below 1e-6 long before


def draw(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> dict[str, list[float]] | None:
    """Draw positions (samples), cut-offs (cycles per sample) and signs of the clicks in this waveform.

    Positions are a Poisson process of one click per 2.5 s, with at least one click; None where the
    waveform is too short to hold one.
    """
    length = waveform.shape[1]
    if length < 2:
        return None
    count = max(1, int(rng.poisson(length / sample_rate / MEAN_GAP_S)))
    return {
        "positions": np.sort(rng.integers(0, length, count)).astype(float).tolist(),
        "cutoffs": rng.uniform(*CUTOFF_RANGE, count).tolist(),
        "signs": rng.choice([-1.0, 1.0], count).tolist(),
    }


def impulse_response(cutoff: float, length: int = RESPONSE_LENGTH) -> np.ndarray:
    """Response of the paper's third-order Butterworth low-pass to a full-scale impulse.

    Args:
        cutoff: cycles per sample (0.5 is the Nyquist frequency).
        length: samples to return.
    """
    impulse = np.zeros(length)
    impulse[0] = 1.0
    numerator, denominator = signal.butter(3, 2.0 * cutoff)
    return np.asarray(signal.lfilter(numerator, denominator, impulse))


def apply(
    waveform: np.ndarray,
    sample_rate: int,
    rng: np.random.Generator,
    *,
    positions: list[float],
    cutoffs: list[float],
    signs: list[float],
) -> tuple[np.ndarray, np.ndarray]:
    """Add one filtered impulse at each position, on every channel, and saturate at full scale.

    Args:
        waveform: float32 (channels, time), full scale +-1.
        sample_rate: Hz (positions are in samples).
        rng: unused.
        positions: sample at which each click begins.
        cutoffs: cut-off of each click, cycles per sample.
        signs: +1 or -1 for each click.

    Returns:
        The waveform with clicks, and the mask of changed samples, both (channels, time).
    """
    clicks = np.zeros(waveform.shape[1])
    for position, cutoff, sign in zip(positions, cutoffs, signs, strict=True):
        start = int(position)
        response = impulse_response(cutoff, min(RESPONSE_LENGTH, waveform.shape[1] - start))
        # Below one 16-bit step the tail is not there any more in the paper's int16 audio.
        response[np.abs(response) < 0.5 / 32768] = 0.0
        clicks[start : start + len(response)] += sign * response
    defective = np.clip(waveform + clicks, -1.0, 32767 / 32768).astype(np.float32)
    touched = np.broadcast_to(clicks != 0.0, waveform.shape)
    defective = np.where(touched, defective, waveform)
    return defective, defective != waveform
