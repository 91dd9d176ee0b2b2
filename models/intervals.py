"""Algorithm 1 of the Audio Artifacts paper: alternate clean and defective intervals over a title."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.defects import LABEL_OF, SIMULATORS

MIN_INTERVAL_S = 0.5
MEAN_EXTRA_S = 10.0  # Gamma(shape 1, scale 10 s): the reading that reproduces the paper's table 1


@dataclass(frozen=True)
class PlantedInterval:
    """One defective stretch `[start_s, end_s)` on the time line of the defective waveform."""

    defect: str
    label: str
    start_s: float
    end_s: float
    parameters: dict[str, Any]


def draw_intervals(duration_s: float, rng: np.random.Generator) -> Iterator[tuple[float, float, bool]]:
    """Yield (start_s, end_s, is_defective) intervals that tile `[0, duration_s)` (Algorithm 1)."""
    start_s = 0.0
    is_defective = bool(rng.integers(2))
    while start_s < duration_s:
        end_s = min(start_s + MIN_INTERVAL_S + rng.gamma(1.0, MEAN_EXTRA_S), duration_s)
        yield start_s, end_s, is_defective
        start_s, is_defective = end_s, not is_defective


def plant(
    waveform: np.ndarray,
    sample_rate: int,
    defect: str,
    intervals: list[tuple[float, float]],
    rng: np.random.Generator,
    parameters: dict[str, Any] | None = None,
) -> tuple[np.ndarray, list[PlantedInterval]]:
    """Apply one defect to the given intervals of all channels.

    Args:
        waveform: float32 (channels, time), full scale +-1.
        sample_rate: Hz.
        defect: a key of `models.defects.SIMULATORS`.
        intervals: disjoint, rising (start_s, end_s) on the clean time line.
        rng: draws the parameters (and the noise of hiss).
        parameters: fixed parameters of the simulator instead of drawn ones.

    Returns:
        The defective waveform (channels, time; shorter for reductive clicks) and the intervals
        that really changed samples, on the defective time line.

    Raises:
        KeyError: `defect` is not a known simulator.
    """
    simulator = SIMULATORS[defect]
    pieces: list[np.ndarray] = []
    planted: list[PlantedInterval] = []
    cursor = 0
    written = 0
    for start_s, end_s in intervals:
        start, end = round(start_s * sample_rate), min(round(end_s * sample_rate), waveform.shape[1])
        pieces.append(waveform[:, cursor:start])
        written += start - cursor
        cursor = end
        section = waveform[:, start:end]
        drawn = parameters if parameters is not None else simulator.draw(section, sample_rate, rng)
        if drawn is None:
            pieces.append(section)
            written += section.shape[1]
            continue
        defective, mask = simulator.apply(section, sample_rate, rng, **drawn)
        changed = np.flatnonzero(mask.any(axis=0))
        pieces.append(defective)
        if len(changed):
            planted.append(
                PlantedInterval(
                    defect=defect,
                    label=LABEL_OF[defect],
                    start_s=(written + int(changed[0])) / sample_rate,
                    end_s=(written + int(changed[-1]) + 1) / sample_rate,
                    parameters=drawn,
                )
            )
        written += defective.shape[1]
    pieces.append(waveform[:, cursor:])
    return np.concatenate(pieces, axis=1), planted
