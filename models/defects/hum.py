"""Audio Hum: a constant tone added to the waveform (paper section 4.1)."""

import numpy as np

from models.defects.amplitude import draw_amplitude

FREQUENCY_RANGE_HZ = (21, 1220)  # integers with 20 < f < 1220; the paper prints the signs reversed


def draw(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> dict[str, float] | None:
    """Draw frequency (Hz), amplitude (full scale 1) and phase (rad); None where there is no headroom."""
    amplitude = draw_amplitude(waveform, rng)
    if amplitude is None:
        return None
    return {
        "frequency_hz": float(rng.integers(*FREQUENCY_RANGE_HZ)),
        "amplitude": amplitude,
        "phase_rad": float(rng.uniform(0.0, 2.0 * np.pi)),
    }


def apply(
    waveform: np.ndarray,
    sample_rate: int,
    rng: np.random.Generator,
    *,
    frequency_hz: float,
    amplitude: float,
    phase_rad: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Add one sine to every channel.

    Args:
        waveform: float32 (channels, time), full scale +-1.
        sample_rate: Hz.
        rng: unused, the sine is fully given by its parameters.
        frequency_hz: frequency of the tone.
        amplitude: peak of the tone, full scale 1.
        phase_rad: phase at the first sample.

    Returns:
        The waveform with the tone, and the mask of changed samples, both (channels, time).

    >>> clean = np.zeros((1, 8), dtype=np.float32)
    >>> hummed, mask = apply(clean, 8, np.random.default_rng(0), frequency_hz=2, amplitude=0.5, phase_rad=np.pi / 2)
    >>> hummed.round(3).tolist()
    [[0.5, 0.0, -0.5, -0.0, 0.5, 0.0, -0.5, -0.0]]
    """
    time_s = np.arange(waveform.shape[1]) / sample_rate
    tone = amplitude * np.sin(2.0 * np.pi * frequency_hz * time_s + phase_rad)
    defective = (waveform + tone).astype(np.float32)
    return defective, defective != waveform
