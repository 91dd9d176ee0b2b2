"""Draws labelled segments for the detector of damaged MP3 frames (Hook-Net, section 3.2)."""

from dataclasses import dataclass

import numpy as np

from models.defects.mp3_glitch import AUDIBLE_DB, MP3_FRAME, RATES_HZ, damaged, distance_db
from models.resampling import resampled
from models.segments import GIVEN_UP, NoRoomForDefects, PairSource

OTHER_RATE_SHARE = 0.4  # streams at another rate, from which a scan resamples


@dataclass
class GlitchSource(PairSource):
    """Draws pairs of segments: the decode of an MP3 and the same stream with damaged frames, each with a target by frame."""

    def draw(self, segment_s: float, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:  # type: ignore[override]
        """A pair of float32 (samples,) segments and their targets, float32 (frames,) of 0 and 1; the first is clean.

        Raises:
            NoRoomForDefects: no damage can be heard in the recordings.
        """
        own_hz = self.sample_rate_hz
        length = round(segment_s * own_hz)
        margin = round(4 * MP3_FRAME * own_hz / min(RATES_HZ))  # the bit reservoir and the overlap reach that far
        own = slice(margin, margin + length)
        for _ in range(GIVEN_UP):
            coded_hz = own_hz
            if self.is_varied and rng.random() < OTHER_RATE_SHARE:
                coded_hz = int(rng.choice([rate for rate in RATES_HZ if rate != own_hz]))
            pair = damaged(resampled(self._section(length, margin, rng), own_hz, coded_hz), coded_hz, rng)
            clean, broken = (resampled(waveform, coded_hz, own_hz)[: length + 2 * margin] for waveform in pair)
            target = (distance_db(clean[own], broken[own]) > AUDIBLE_DB).astype(np.float32)
            if target.any():
                labelled = ((clean, np.zeros_like(target)), (broken, target))
                return [(np.ascontiguousarray(waveform[own]), truth) for waveform, truth in labelled]
        raise NoRoomForDefects
