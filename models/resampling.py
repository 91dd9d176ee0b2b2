"""Sound at another sample rate."""

from math import gcd

import numpy as np
from scipy import signal


def resampled(waveform: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """A waveform (samples,) at another sample rate; the same array where it is the same."""
    if from_hz == to_hz:
        return waveform
    factor = gcd(from_hz, to_hz)
    return np.asarray(signal.resample_poly(waveform, to_hz // factor, from_hz // factor), dtype=np.float32)
