"""Audio Hum: a constant tone added to the waveform (paper section 4.1)."""

from collections.abc import Sequence

import numpy as np

from models.defects.amplitude import draw_amplitude

FREQUENCY_RANGE_HZ = (21, 1220)  # integers with 20 < f < 1220; the paper prints the signs reversed
# The paper has whole numbers only. A tone of these is periodic in a second, which makes it easy for whatever analyses one
# second at a time, and which no real hum is: mains wander about 50 and 60 Hz, and copies run fast or slow.
BETWEEN_SHARE = 0.5


def draw(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> dict[str, float] | None:
    """Draw frequency (Hz), amplitude (full scale 1) and phase (rad); None where there is no headroom.

    Half of the frequencies are whole numbers as in the paper, the others lie between them.
    """
    amplitude = draw_amplitude(waveform, rng)
    if amplitude is None:
        return None
    whole_hz, phase_rad = float(rng.integers(*FREQUENCY_RANGE_HZ)), float(rng.uniform(0.0, 2.0 * np.pi))
    between_hz = float(rng.uniform(-0.5, 0.5)) if rng.random() < BETWEEN_SHARE else 0.0
    return {"frequency_hz": whole_hz + between_hz, "amplitude": amplitude, "phase_rad": phase_rad}


def apply(
    waveform: np.ndarray,
    sample_rate: int,
    rng: np.random.Generator,
    *,
    frequency_hz: float,
    amplitude: float,
    phase_rad: float = 0.0,
    overtones: Sequence[float] = (),
    overtone_phases_rad: Sequence[float] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Add one sine to every channel, with overtones where asked.

    Args:
        waveform: float32 (channels, time), full scale +-1.
        sample_rate: Hz.
        rng: unused, the sine is fully given by its parameters.
        frequency_hz: frequency of the tone.
        amplitude: peak of the tone, full scale 1.
        phase_rad: phase at the first sample.
        overtones: levels of the second, third ... harmonic relative to the first, as mains hum has them (the paper has
            none); those above the Nyquist frequency are left out. `amplitude` still bounds the sum.
        overtone_phases_rad: phase of each at the first sample; where none is given, all begin together, as `phase_rad`
            has the first.

    Returns:
        The waveform with the tone, and the mask of changed samples, both (channels, time).

    >>> clean = np.zeros((1, 8), dtype=np.float32)
    >>> hummed, mask = apply(clean, 8, np.random.default_rng(0), frequency_hz=2, amplitude=0.5, phase_rad=np.pi / 2)
    >>> hummed.round(3).tolist()
    [[0.5, 0.0, -0.5, -0.0, 0.5, 0.0, -0.5, -0.0]]
    """
    time_s = np.arange(waveform.shape[1]) / sample_rate
    sizes = {
        1: 1.0,
        **{order: size for order, size in enumerate(overtones, 2) if order * frequency_hz < sample_rate / 2},
    }
    bound = amplitude / sum(sizes.values())
    phases_rad = {order: order * phase_rad for order in sizes} | dict(enumerate(overtone_phases_rad, 2))
    tone = sum(
        bound * size * np.sin(order * 2.0 * np.pi * frequency_hz * time_s + phases_rad[order])
        for order, size in sizes.items()
    )
    defective = (waveform + tone).astype(np.float32)
    return defective, defective != waveform
