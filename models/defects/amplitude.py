"""The amplitude that the paper draws for additive defects (hum and hiss)."""

import numpy as np

MIN_AMPLITUDE = 60 / 32768
FULL_SCALE = 32767 / 32768


def draw_amplitude(waveform: np.ndarray, rng: np.random.Generator) -> float | None:
    """Uniform amplitude between 60 (int16 units) and the headroom that `waveform` leaves.

    The headroom is taken from the largest absolute sample over all channels, so that neither side
    clips: saturation would teach a detector to hear hum as distortion.

    Args:
        waveform: float32 (channels, time), full scale +-1.
        rng: source of randomness.

    Returns:
        Amplitude at full scale 1, or None where the headroom is below the smallest amplitude.
    """
    peak = float(np.max(np.abs(waveform), initial=0.0))
    headroom = FULL_SCALE - peak
    if headroom <= MIN_AMPLITUDE:
        return None
    return float(rng.uniform(MIN_AMPLITUDE, headroom))
