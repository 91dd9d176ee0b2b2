"""Audio Hiss: white noise added to the waveform (paper section 4.2)."""

import numpy as np

from models.defects.amplitude import draw_amplitude


def draw(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> dict[str, float] | None:
    """Draw the noise amplitude (full scale 1); None where there is no headroom."""
    amplitude = draw_amplitude(waveform, rng)
    return None if amplitude is None else {"amplitude": amplitude}


def apply(
    waveform: np.ndarray, sample_rate: int, rng: np.random.Generator, *, amplitude: float
) -> tuple[np.ndarray, np.ndarray]:
    """Add uniform white noise in [-amplitude, amplitude], drawn apart for each channel.

    The paper says "random noise" and gives no distribution; uniform noise keeps its bound exactly
    and so never saturates.

    Args:
        waveform: float32 (channels, time), full scale +-1.
        sample_rate: Hz (white noise does not depend on it).
        rng: draws the noise.
        amplitude: largest absolute noise sample, full scale 1.

    Returns:
        The noisy waveform and the mask of changed samples, both (channels, time).
    """
    noise = (2.0 * rng.random(waveform.shape, dtype=np.float32) - 1.0) * np.float32(amplitude)
    defective = waveform + noise
    return defective, defective != waveform
