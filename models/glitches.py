"""Draws labelled segments for the detector of damaged MP3 frames (Hook-Net, section 3.2)."""

from dataclasses import dataclass

import numpy as np

from models.defects.mp3_glitch import AUDIBLE_DB, MP3_FRAME, damaged, distance_db
from models.segments import GIVEN_UP, NoRoomForDefects, PairSource


@dataclass
class GlitchSource(PairSource):
    """Draws pairs of segments: the decode of an MP3 and the same stream with damaged frames, each with a target by frame."""

    def draw(self, segment_s: float, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:  # type: ignore[override]
        """A pair of float32 (samples,) segments and their targets, float32 (frames,) of 0 and 1; the first is clean.

        Raises:
            NoRoomForDefects: no damage can be heard in the recordings.
        """
        length = round(segment_s * self.sample_rate_hz)
        margin = 4 * MP3_FRAME  # the bit reservoir and the overlap reach that far
        own = slice(margin, margin + length)
        for _ in range(GIVEN_UP):
            clean, broken = damaged(self._section(length, margin, rng), self.sample_rate_hz, rng)
            target = (distance_db(clean[own], broken[own]) > AUDIBLE_DB).astype(np.float32)
            if target.any():
                pair = ((clean, np.zeros_like(target)), (broken, target))
                return [(np.ascontiguousarray(waveform[own]), truth) for waveform, truth in pair]
        raise NoRoomForDefects
