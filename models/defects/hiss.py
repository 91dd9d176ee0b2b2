"""Audio Hiss: white noise added to the waveform (paper section 4.2)."""

import numpy as np
from scipy import fft

from models.defects.amplitude import draw_amplitude

LOWEST_HZ = 50.0  # a tilt ends here: noise that goes on rising below is rumble


def draw(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> dict[str, float] | None:
    """Draw the noise amplitude (full scale 1); None where there is no headroom."""
    amplitude = draw_amplitude(waveform, rng)
    return None if amplitude is None else {"amplitude": amplitude}


def apply(
    waveform: np.ndarray,
    sample_rate: int,
    rng: np.random.Generator,
    *,
    amplitude: float,
    tilt_db: float = 0.0,
    cutoff_hz: float | None = None,
    low_hz: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Add uniform white noise in [-amplitude, amplitude], drawn apart for each channel, coloured where asked.

    The paper says "random noise" and gives no distribution; uniform noise keeps its bound exactly
    and so never saturates.

    Args:
        waveform: float32 (channels, time), full scale +-1.
        sample_rate: Hz (white noise does not depend on it).
        rng: draws the noise.
        amplitude: largest absolute noise sample, full scale 1.
        tilt_db: decibels an octave by which the noise rises (or falls, below 0) with frequency, as that of tape and of
            amplifiers does; the paper has none.
        cutoff_hz: where a low-pass of second order ends it; None for nowhere, as in the paper.
        low_hz: where a high-pass of first order begins it; None for nowhere, as in the paper.

    Returns:
        The noisy waveform and the mask of changed samples, both (channels, time).
    """
    noise = 2.0 * rng.random(waveform.shape, dtype=np.float32) - 1.0
    if tilt_db != 0.0 or cutoff_hz is not None or low_hz is not None:
        noise = _coloured(noise, sample_rate, tilt_db, cutoff_hz, low_hz)
    defective = waveform + noise * np.float32(amplitude)
    return defective, defective != waveform


def _coloured(
    noise: np.ndarray, sample_rate: int, tilt_db: float, cutoff_hz: float | None, low_hz: float | None
) -> np.ndarray:
    """Noise (channels, time) with another spectrum and a peak of 1."""
    length = fft.next_fast_len(noise.shape[1], real=True)
    frequency_hz = np.maximum(fft.rfftfreq(length, 1 / sample_rate), LOWEST_HZ)
    gain = (frequency_hz / 1000.0) ** (tilt_db / (20.0 * np.log10(2.0)))
    if cutoff_hz is not None:
        gain = gain / np.sqrt(1.0 + (frequency_hz / cutoff_hz) ** 4)
    if low_hz is not None:
        gain = gain / np.sqrt(1.0 + (low_hz / frequency_hz) ** 2)
    coloured = fft.irfft(fft.rfft(noise, length) * gain.astype(np.float32), length)[:, : noise.shape[1]]
    return np.asarray(coloured / max(float(np.abs(coloured).max(initial=0.0)), 1e-9), dtype=np.float32)
