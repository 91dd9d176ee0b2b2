"""Draws labelled segments for the click detector (Hook-Net, section 3.1), and what production adds to them."""

from dataclasses import dataclass

import numpy as np
from scipy import signal

from models.defects import SIMULATORS, click_offset, underrun
from models.defects.underrun import QUIETEST, bend, stands_out
from models.draws import log_uniform
from models.resampling import resampled
from models.segments import GIVEN_UP, MARGIN_S, TRIES, NoRoomForDefects, PairSource, as_catalogue, through_codec

FRAME = 128  # samples of one output
UNDERRUN_SHARE = 0.3  # of the clicks
QUIET_SHARE = 0.4  # of the paper's clicks: below its least offset, down to what the sound around hides
MORE_CLICKS = 0.3  # beside the first, on average
POST_SHARE = 0.5  # with reverb, equaliser or compressor afterwards
OTHER_RATE_SHARE = 0.4  # clicks of titles at another rate, from which a scan resamples: they ring then, or are duller
OTHER_RATES_HZ = (48_000, 48_000, 48_000, 48_000, 96_000, 88_200, 32_000, 24_000, 22_050, 16_000, 11_025, 8_000)


@dataclass
class ClickSource(PairSource):
    """Draws pairs of segments: a clean one and the same with clicks, each with a target by frame.

    Half of the segments have a click where the paper has one in ten: five times the examples from the same work.
    What is done to a pair afterwards (room, equaliser, compressor, codec) is the same for both. Clean sound that is
    meant and has edges or crackles (synthesisers, drums, records, rain) is among it, more of it than in `SegmentSource`.
    """

    intended_share: float = 0.3

    def draw(self, segment_s: float, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:  # type: ignore[override]
        """A pair of float32 (samples,) segments and their targets, float32 (frames,) of 0 and 1; the first is clean.

        Raises:
            NoRoomForDefects: no click can be told from the recordings.
        """
        length = round(segment_s * self.sample_rate_hz)
        margin = round(MARGIN_S * self.sample_rate_hz)
        own = slice(margin, margin + length)
        for _ in range(GIVEN_UP):
            clean = self._section(length, margin, rng)
            rate = self.sample_rate_hz
            if self.is_varied and rng.random() < OTHER_RATE_SHARE:
                rate = int(rng.choice(OTHER_RATES_HZ))
            to_rate = rate / self.sample_rate_hz
            place = resampled(clean, self.sample_rate_hz, rate)
            its_own = slice(round(own.start * to_rate), round(own.stop * to_rate))
            for _ in range(TRIES):
                clicked, heard = _plant(place, its_own, self.is_varied, rate, rng)
                frames = (np.array(heard) / to_rate - margin).astype(int) // FRAME
                target = np.zeros(length // FRAME, dtype=np.float32)
                target[frames[(frames >= 0) & (frames < len(target))]] = 1.0
                if target.any():
                    pair = [resampled(x, rate, self.sample_rate_hz)[: len(clean)] for x in (place, clicked)]
                    return self._after(pair[0], pair[1], target, own, rng)
        raise NoRoomForDefects

    def _after(
        self, clean: np.ndarray, clicked: np.ndarray, target: np.ndarray, own: slice, rng: np.random.Generator
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        seed = int(rng.integers(1 << 62))
        pair = []
        for section, truth in ((clean, np.zeros_like(target)), (clicked, target)):
            dice = np.random.default_rng(seed)
            if self.is_varied:
                section = through_codec(post_processed(section, self.sample_rate_hz, dice), self.sample_rate_hz, dice)
            else:
                section = as_catalogue(section, self.sample_rate_hz, dice)
            pair.append((np.ascontiguousarray(section[own]), truth))
        return pair


def _plant(
    clean: np.ndarray, own: slice, is_varied: bool, sample_rate: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[int]]:
    """The section with clicks inside `own` and the samples at which they are heard; none where one cannot be told."""
    count = 1 + int(rng.poisson(MORE_CLICKS)) if is_varied else 1
    section = clean[None]
    heard: list[int] = []
    for _ in range(count):
        drawn = _one_underrun(own, rng) if rng.random() < UNDERRUN_SHARE else _one_offset(clean, own, is_varied, rng)
        name = "underrun" if "manners" in drawn else "click_offset"
        before = section
        section, mask = SIMULATORS[name].apply(before, sample_rate, rng, **drawn)
        changed = np.flatnonzero(mask[0]).tolist()
        # The paper marks the frame in which a click begins; an under-run is heard where it begins and where it ends.
        of_this = changed[:1]
        if name == "underrun" and changed:
            of_this = [at for at in (changed[0], changed[-1] + 1) if stands_out(before[0], section[0], at)]
        if not of_this:
            return section[0], []
        heard += of_this
    return section[0], heard


def _one_offset(clean: np.ndarray, own: slice, is_varied: bool, rng: np.random.Generator) -> dict[str, list]:
    at = int(rng.integers(own.start, own.stop - max(click_offset.LENGTHS) + 1))
    low, high = click_offset.OFFSETS
    if is_varied and rng.random() < QUIET_SHARE:
        least = max(QUIETEST, bend(clean, at))
        if least < low:
            low, high = log_uniform(rng, least, low, 2)
            low, high = min(low, high), max(low, high)
    sizes = rng.uniform(low, high, int(rng.choice(click_offset.LENGTHS)))
    return {"positions": [at], "offsets": [(sizes * rng.choice([-1.0, 1.0], len(sizes))).tolist()]}


def _one_underrun(own: slice, rng: np.random.Generator) -> dict[str, list]:
    shortest, longest = underrun.LENGTHS
    length = int(log_uniform(rng, shortest, longest))
    return {
        "positions": [int(rng.integers(own.start, own.stop - length + 1))],
        "lengths": [length],
        "manners": [str(rng.choice(underrun.MANNERS))],
    }


def post_processed(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Reverb, equaliser and compressor, mild, each in half of what gets any (paper, section 3.1): (samples,) to the same."""
    if rng.random() >= POST_SHARE:
        return waveform
    if rng.random() < 0.5:
        waveform = _reverberated(waveform, sample_rate, rng)
    if rng.random() < 0.5:
        waveform = _equalised(waveform, sample_rate, rng)
    if rng.random() < 0.5:
        waveform = _compressed(waveform, sample_rate, rng)
    return waveform / np.float32(max(1.0, float(np.abs(waveform).max(initial=0.0))))


def _reverberated(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    decay_s = rng.uniform(0.1, 0.6)  # until it has fallen by 60 dB
    time_s = np.arange(round(decay_s * sample_rate)) / sample_rate
    response = rng.standard_normal(len(time_s)) * 10.0 ** (-3.0 * time_s / decay_s)
    response /= np.sqrt(np.square(response).sum())
    wet = signal.oaconvolve(waveform, response)[: len(waveform)]
    share = rng.uniform(0.05, 0.2)
    return ((1 - share) * waveform + share * wet).astype(np.float32)


def _equalised(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    for low_hz, high_hz, is_high in ((80, 300, False), (3_000, 10_000, True)):
        sections = shelf(log_uniform(rng, low_hz, high_hz), rng.uniform(-4, 4), is_high, sample_rate)
        waveform = signal.sosfilt(sections, waveform)
    return waveform.astype(np.float32)


def shelf(corner_hz: float, gain_db: float, is_high: bool, sample_rate: int) -> np.ndarray:
    """Second-order shelf (1, 6) of slope 1, after the Audio EQ Cookbook (Bristow-Johnson).

    >>> _, response = signal.sosfreqz(shelf(1000.0, 6.0, False, 48_000), [1e-3, 20_000], fs=48_000)
    >>> np.round(20 * np.log10(np.abs(response)), 1).tolist()
    [6.0, 0.0]
    """
    a, w = 10.0 ** (gain_db / 40), 2 * np.pi * corner_hz / sample_rate
    alpha, cosine, s = np.sin(w) / np.sqrt(2), np.cos(w), -1.0 if is_high else 1.0
    root = 2 * np.sqrt(a) * alpha
    b = [a * (a + 1 - s * (a - 1) * cosine + root), s * 2 * a * (a - 1 - s * (a + 1) * cosine)]
    b += [a * (a + 1 - s * (a - 1) * cosine - root)]
    d = [a + 1 + s * (a - 1) * cosine + root, -s * 2 * (a - 1 + s * (a + 1) * cosine)]
    d += [a + 1 + s * (a - 1) * cosine - root]
    return np.array([[*b, *d]]) / d[0]


def _compressed(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Above a threshold the level rises by a fraction only; the level is followed in 5 ms."""
    threshold_db, ratio = rng.uniform(-24, -10), rng.uniform(1.5, 3.0)
    smoothing = np.exp(-1.0 / (0.005 * sample_rate))
    power = signal.lfilter([1 - smoothing], [1, -smoothing], np.square(waveform))
    level_db = 10.0 * np.log10(np.maximum(power, 1e-10))
    gain_db = -np.maximum(level_db - threshold_db, 0.0) * (1 - 1 / ratio)
    return (waveform * 10.0 ** (gain_db / 20.0)).astype(np.float32)
