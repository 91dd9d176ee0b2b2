"""Algorithm 1 of the Audio Artifacts paper: alternate clean and defective intervals over a title."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.defects import LABEL_OF, SHORTENING, SIMULATORS, severity_of

MIN_INTERVAL_S = 0.5
EVENT_GAP_S = 0.05
MEAN_EXTRA_S = 10.0  # Gamma(shape 1, scale 10 s): the reading that reproduces the paper's table 1


@dataclass(frozen=True)
class PlantedInterval:
    """One defective stretch `[start_s, end_s)` on the time line of the defective waveform.

    Args:
        defect: key of `models.defects.SIMULATORS`.
        label: what a detector calls it.
        start_s: first changed sample, seconds.
        end_s: behind the last changed sample, seconds.
        events: (start_s, end_s) stretches inside in which samples changed; pauses shorter than `EVENT_GAP_S` are
            part of a stretch.
        severity: see `models.defects.SEVERITY`.
        parameters: what the simulator was given.
        channels: the channels it is on, indices from 0.
    """

    defect: str
    label: str
    start_s: float
    end_s: float
    events: tuple[tuple[float, float], ...]
    severity: float
    parameters: dict[str, Any]
    channels: tuple[int, ...]


def draw_intervals(
    duration_s: float, rng: np.random.Generator, mean_extra_s: float = MEAN_EXTRA_S
) -> Iterator[tuple[float, float, bool]]:
    """Yield (start_s, end_s, is_defective) intervals that tile `[0, duration_s)` (Algorithm 1)."""
    start_s = 0.0
    is_defective = bool(rng.integers(2))
    while start_s < duration_s:
        end_s = min(start_s + MIN_INTERVAL_S + rng.gamma(1.0, mean_extra_s), duration_s)
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
    """Apply one defect to the given intervals of a whole waveform; see `plant_stream`.

    Returns:
        The defective waveform (channels, time; shorter for reductive clicks) and the intervals
        that really changed samples, on the defective time line.
    """
    planted: list[PlantedInterval] = []
    pieces = list(plant_stream([waveform], sample_rate, defect, intervals, rng, planted, parameters))
    return np.concatenate(pieces, axis=1), planted


def plant_stream(
    blocks: Iterable[np.ndarray],
    sample_rate: int,
    defect: str,
    intervals: Iterable[tuple[float, float]],
    rng: np.random.Generator,
    planted: list[PlantedInterval],
    parameters: dict[str, Any] | None = None,
    one_channel_share: float = 0.0,
) -> Iterator[np.ndarray]:
    """Apply one defect to the given intervals of a title, holding one interval in memory at a time.

    Args:
        blocks: float32 (channels, time) pieces of a title, in order; the result does not depend on their lengths.
        sample_rate: Hz.
        defect: a key of `models.defects.SIMULATORS`.
        intervals: disjoint, rising (start_s, end_s) on the clean time line; may go on beyond the title.
        rng: draws the parameters (and the noise of hiss).
        planted: receives the intervals that really changed samples, on the defective time line.
        parameters: fixed parameters of the simulator instead of drawn ones.
        one_channel_share: of the intervals, how many have the defect on one channel and not on all of them; a defect
            that takes samples away (`models.defects.SHORTENING`) is on all of them, always.

    Yields:
        The defective waveform, piece by piece.

    Raises:
        KeyError: `defect` is not a known simulator.
    """
    simulator = SIMULATORS[defect]
    source = _Reader(blocks)
    written = 0
    for start_s, end_s in intervals:
        for piece in source.until(round(start_s * sample_rate)):
            written += piece.shape[1]
            yield piece
        sections = list(source.until(round(end_s * sample_rate)))
        if not sections:
            break
        whole = np.concatenate(sections, axis=1)
        part = slice(None)
        # No dice where none are asked for: the same seed gives the bytes that it always gave.
        if one_channel_share and defect not in SHORTENING and rng.random() < one_channel_share:
            channel = int(rng.integers(len(whole)))
            part = slice(channel, channel + 1)
        section = whole[part]
        drawn = parameters if parameters is not None else simulator.draw(section, sample_rate, rng)
        if drawn is None:
            written += whole.shape[1]
            yield whole
            continue
        defective, mask = simulator.apply(section, sample_rate, rng, **drawn)
        changed = np.flatnonzero(mask.any(axis=0))
        if len(changed):
            planted.append(
                PlantedInterval(
                    defect=defect,
                    label=LABEL_OF[defect],
                    start_s=(written + int(changed[0])) / sample_rate,
                    end_s=(written + int(changed[-1]) + 1) / sample_rate,
                    events=_events(changed, written, sample_rate),
                    severity=severity_of(defect, section, defective, mask, drawn),
                    parameters=drawn,
                    channels=tuple(range(len(whole))[part]),
                )
            )
        if len(section) < len(whole):
            whole[part] = defective
            defective = whole
        written += defective.shape[1]
        yield defective
    yield from source.until(None)


class _Reader:
    """Hands out a stream of blocks up to given samples."""

    def __init__(self, blocks: Iterable[np.ndarray]) -> None:
        self._blocks = iter(blocks)
        self._rest: np.ndarray | None = None
        self._position = 0

    def until(self, stop: int | None) -> Iterator[np.ndarray]:
        """Pieces of what lies between the last stop and this one (None: the end of the title)."""
        while stop is None or self._position < stop:
            block = self._rest if self._rest is not None else next(self._blocks, None)
            if block is None:
                return
            length = block.shape[1] if stop is None else min(block.shape[1], stop - self._position)
            self._rest = block[:, length:] if length < block.shape[1] else None
            self._position += length
            yield block[:, :length]


def _events(changed: np.ndarray, offset: int, sample_rate: int) -> tuple[tuple[float, float], ...]:
    """Stretches of rising sample numbers, as seconds."""
    breaks = np.flatnonzero(np.diff(changed) > EVENT_GAP_S * sample_rate)
    starts = changed[np.concatenate([[0], breaks + 1])] + offset
    ends = changed[np.concatenate([breaks, [len(changed) - 1]])] + offset + 1
    return tuple((int(a) / sample_rate, int(b) / sample_rate) for a, b in zip(starts, ends, strict=True))
