"""Draws labelled segments for training: clean recordings with defects simulated on the fly (paper section 4)."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import fft, ndimage, signal

from models.codecs import recode
from models.defects import BRIEF, LABEL_OF, OF_TASK, SIMULATORS, labels_of
from models.defects.amplitude import MIN_AMPLITUDE
from models.draws import log_uniform
from models.intended import SOUNDS, driven
from models.intervals import MEAN_EXTRA_S, MIN_INTERVAL_S
from models.resampling import resampled

TRIES = 20
GIVEN_UP = 500  # groups, of which sound of any kind takes one or two
DRIVEN_SHARE = 0.08  # of the segments: through a guitar's amplifier
MIXED_SHARE = 0.2  # two recordings at once, so that of these the first, the second or both are driven
INTENDED_SHARE = 0.35  # with a sound that resembles a defect and is meant (`models.intended`)
ALONE_SHARE = 0.3  # of those: with nothing beside it, as effects of games are stored
QUIET_SHARE = 0.25  # of hum and hiss: amplitude on a logarithmic scale
MAINS_SHARE = 0.35  # of hum: that of the mains, with overtones that may be stronger than the first tone
MAINS_HZ = (50.0, 60.0, 100.0, 120.0)  # wires hum at the first two, what rectifies and transforms at twice that
MAINS_TOLERANCE = 0.002  # mains wander by less; copies run fast or slow by more, seldom
OVERTONE_SHARE = 0.25  # of the rest: with overtones
COLOURED_SHARE = 0.4  # of hiss: not white, as that of tape and amplifiers
ONE_SIDED_SHARE = 0.2  # of distortion: one side is clipped later than the other, or not at all
OTHER_RATE_SHARE = 0.4  # defects at another rate, from which a scan resamples: what is clipped is not flat then
OTHER_RATES_HZ = (44_100, 44_100, 44_100, 44_100, 48_000, 96_000, 32_000, 24_000, 22_050, 16_000, 11_025, 8_000)
LEVELLED_SHARE = 0.5  # at another level than the recording's own
LOWERED_SHARE = 0.35  # turned down with their defects, as mastered sound is for delivery
CODED_SHARE = 0.15  # through a real codec, at several times the cost of all the rest
LOW_RATE_SHARE = 0.3  # of them: at a lower rate that MP3 and AAC know
LOW_RATE_FACTORS = {48_000: (2, 3, 6), 44_100: (2, 4)}
LENGTH_POWER = 0.7  # how often a recording is drawn, by its length
SILENT_SHARE = 0.02  # nothing but the last bit's noise
MUTED_SHARE = 0.15  # with digital silence in it, as gates and edits leave it; what is planted sounds on in it
CUT_SHARE = 0.4  # of these: it stops or begins there
OFFSET_SHARE = 0.05  # not centred on zero
WHISTLE_SHARE = 0.03  # with the whistle of a television's line frequency or the pilot of FM stereo
WHISTLES_HZ = (15_625.0, 15_734.0, 19_000.0)
FLOOR_SHARE = 0.15  # with noise that nobody hears: of converters, of what was once on tape
FLOOR_DB = (-80.0, -58.0)  # of it, beside the sound; the paper's faintest hiss is 40 dB below a voice
MARGIN_S = 0.1
LONGEST_INTERVAL_S = 12.0  # of which the peak is taken; longer ones would cost time and change it little
BIT_RATES = {  # of one channel
    "mp3": (48_000, 64_000, 80_000, 96_000, 128_000, 160_000),
    "aac": (40_000, 48_000, 64_000, 96_000, 128_000),
    "opus": (24_000, 32_000, 48_000, 64_000, 96_000),
}


class NoRoomForDefects(ValueError):
    """The recordings leave no room for a defect: they are silent, for one."""

    def __init__(  # with a message: PyTorch's loader makes another one of what its worker raised
        self, message: str = "no defect could be planted in any of the recordings: are they all silent?"
    ) -> None:
        super().__init__(message)


@dataclass(frozen=True)
class _Place:
    """A segment to plant a defect in.

    Args:
        rate_hz: of `section` and of what counts its samples.
        section: float32 (samples,), the segment and `margin` more on either side.
        around: float32 (samples,), the whole interval that the defect lasts, of which it has its level.
        inside: the samples of `section` in that interval.
        margin: samples on either side.
        length: samples of the segment.
    """

    rate_hz: int
    section: np.ndarray
    around: np.ndarray
    inside: slice
    margin: int
    length: int

    def at(self, rate_hz: int) -> "_Place":
        """The same at another sample rate."""

        def samples(count: int) -> int:
            return round(count * rate_hz / self.rate_hz)

        return replace(
            self,
            rate_hz=rate_hz,
            section=resampled(self.section, self.rate_hz, rate_hz),
            inside=slice(samples(self.inside.start), samples(self.inside.stop)),
            margin=samples(self.margin),
            length=samples(self.length),
        )


@dataclass
class SegmentSource:
    """Draws groups of labelled segments from clean recordings: a clean one, and the same with defects.

    What a group shares (recording, place, level, codec) cannot tell its members apart, so a network learns the defect
    and not the kind of recording that has it, in fewer steps than from segments that have nothing in common.

    Args:
        recordings: .npy files of int16 (channels, time), memory-mapped.
        sample_rate_hz: their rate.
        defects: how many of the defect labels each group has, one segment each.
        is_varied: other levels, mixtures, sounds that are meant, band limits and codecs, as training needs them. If
            not, segments are those of a labelled catalogue (`jobs/simulate.py`): every other group at the recording's
            own sound, the rest through a codec.
        intended_share: how many of the segments have a sound of `models.intended`, where they vary.
        task: whose defects are planted (`models.defects.OF_TASK`).
    """

    recordings: list[Path]
    sample_rate_hz: int
    defects: int = 2
    is_varied: bool = True
    intended_share: float = INTENDED_SHARE
    task: str = "artifacts"
    _open: dict[Path, np.ndarray] = field(default_factory=dict)
    _weights: np.ndarray | None = None

    @property
    def group(self) -> int:
        """Segments of a group."""
        return 1 + self.defects

    def draw(self, segment_s: float, rng: np.random.Generator) -> list[tuple[np.ndarray, int]]:
        """A group of float32 (samples,) segments and the indices of their labels in `labels_of(task)`; the first is clean.

        Raises:
            NoRoomForDefects: no defect finds room in the recordings.
        """
        length = round(segment_s * self.sample_rate_hz)
        clean, *defective = known = labels_of(self.task)
        for _ in range(GIVEN_UP):
            labels = [clean, *map(str, rng.choice(defective, self.defects, replace=False))]
            for _ in range(TRIES):
                segments = self._try(labels, length, rng)
                if segments is not None:
                    return list(zip(segments, map(known.index, labels), strict=True))
        raise NoRoomForDefects

    def _channel(self, rng: np.random.Generator) -> np.ndarray:
        """One channel of one recording, int16 (samples,)."""
        if self._weights is None:
            # Between "every file alike" and "every second alike": thousands of short prompts must not drown the music.
            lengths = np.array([np.load(path, mmap_mode="r").shape[1] for path in self.recordings], dtype=float)
            self._weights = lengths**LENGTH_POWER / (lengths**LENGTH_POWER).sum()
        path = self.recordings[int(rng.choice(len(self.recordings), p=self._weights))]
        if path not in self._open:
            self._open[path] = np.load(path, mmap_mode="r")
        recording = self._open[path]
        return np.asarray(recording[int(rng.integers(recording.shape[0]))])

    def _try(self, labels: list[str], length: int, rng: np.random.Generator) -> list[np.ndarray] | None:
        """Segments (samples,) somewhere at a defective interval, as Algorithm 1 lays them, or None if one came to naught."""
        rate = self.sample_rate_hz
        margin = round(MARGIN_S * rate)  # on both sides: what codecs and filters make of an edge stays outside
        channel = self._channel(rng)
        total = max(len(channel), length)
        interval = min(MIN_INTERVAL_S + rng.exponential(MEAN_EXTRA_S), LONGEST_INTERVAL_S)
        interval = min(round(interval * rate), total)
        begin = int(rng.integers(0, total - interval + 1))
        start = int(rng.integers(max(0, begin - length + 1), min(total - length, begin + interval - 1) + 1))
        low, high = min(begin, start - margin), max(begin + interval, start + length + margin)
        context = stretch(channel, low, high)  # (samples,)
        own = slice(start - margin - low, start + length + margin - low)
        if self.is_varied:
            context = self._vary(context, own, rng)
        around = context[begin - low : begin + interval - low]
        inside = slice(max(begin - start + margin, 0), begin + interval - start + margin)
        place = _Place(rate, context[own], around, inside, margin, length)
        if self.is_varied and rng.random() < OTHER_RATE_SHARE:
            place = place.at(int(rng.choice(OTHER_RATES_HZ)))
        sections = [place.section]
        for label in labels[1:]:
            simulated = self._simulate(label, place, rng)
            if simulated is None:
                return None
            sections.append(simulated)
        sections = [resampled(section, place.rate_hz, rate)[: length + 2 * margin] for section in sections]
        if self.is_varied and rng.random() < LOWERED_SHARE:
            gain = np.float32(10.0 ** (rng.uniform(-20.0, 0.0) / 20.0))
            sections = [gain * section for section in sections]
        code = through_codec if self.is_varied else as_catalogue
        seed = int(rng.integers(1 << 62))  # the same dice for each: the defect must be all that sets them apart
        coded = (code(section, rate, np.random.default_rng(seed)) for section in sections)
        return [np.ascontiguousarray(section[margin : margin + length]) for section in coded]

    def _vary(self, context: np.ndarray, own: slice, rng: np.random.Generator) -> np.ndarray:
        """Another production's sound around the same recording (samples,): all of it belongs to the clean class."""
        rate = self.sample_rate_hz
        if rng.random() < SILENT_SHARE:
            return rng.integers(-1, 2, len(context)).astype(np.float32) * np.float32(rng.integers(0, 3) / 32768)
        if rng.random() < DRIVEN_SHARE:
            context = driven(context, rng)
        if rng.random() < MIXED_SHARE:  # a voice over music, as films have it
            other = self._channel(rng)
            at = int(rng.integers(0, max(1, len(other) - len(context))))
            second = stretch(other, at, at + len(context))
            if rng.random() < DRIVEN_SHARE:
                second = driven(second, rng)
            context += second * np.float32(10.0 ** (rng.uniform(-20.0, 0.0) / 20.0))
            context *= np.float32(min(1.0, 0.98 / max(float(np.abs(context).max()), 1e-9)))
        if rng.random() < self.intended_share:  # for the segment only: what lies around it gives no more than a peak
            sound = SOUNDS[str(rng.choice(list(SOUNDS)))](own.stop - own.start, rate, rng)
            is_alone = rng.random() < ALONE_SHARE
            context *= np.float32(0.0 if is_alone else rng.uniform(0.2, 1.0))
            loudest_db = -6.0 if is_alone else -14.0
            size = min(10.0 ** (rng.uniform(-50.0, loudest_db) / 20.0), 0.9 / float(np.abs(sound).max()))
            context[own] += np.float32(size) * sound
            context *= np.float32(min(1.0, 0.98 / max(float(np.abs(context).max()), 1e-9)))
        if rng.random() < LEVELLED_SHARE:
            peak = float(np.abs(context).max(initial=0.0))
            gain = 10.0 ** (rng.uniform(-24.0, 6.0) / 20.0)
            context *= np.float32(min(gain, 0.95 / peak if peak > 0 else 1.0))
        context[own] = _limited_source(context[own], rate, rng)
        self._edit(context, own, rng)
        return context

    def _edit(self, context: np.ndarray, own: slice, rng: np.random.Generator) -> None:
        """What studios and transmitters do to some of a sound (samples,), in place."""
        if rng.random() < OFFSET_SHARE:
            context *= np.float32(0.9)
            context += np.float32(rng.uniform(-0.06, 0.06))
        if rng.random() < WHISTLE_SHARE:
            turns = 2 * np.pi * rng.choice(WHISTLES_HZ) / self.sample_rate_hz * np.arange(own.stop - own.start)
            size = 10.0 ** (rng.uniform(-75.0, -40.0) / 20.0)
            context[own] += (size * np.sin(turns + 1)).astype(np.float32)
        if rng.random() < FLOOR_SHARE:
            level = float(np.sqrt(np.mean(np.square(context)))) * 10.0 ** (rng.uniform(*FLOOR_DB) / 20.0)
            context[own] += np.float32(level) * rng.standard_normal(own.stop - own.start, dtype=np.float32)
        if rng.random() < MUTED_SHARE:
            context[own] *= muting(own.stop - own.start, self.sample_rate_hz, rng)

    def _simulate(self, label: str, place: _Place, rng: np.random.Generator) -> np.ndarray | None:
        """The section with a defect in the part of it that lies in the interval; None if that came to naught."""
        defect = str(rng.choice([name for name in OF_TASK[self.task] if LABEL_OF[name] == label]))
        simulator = SIMULATORS[defect]
        own = slice(place.margin, place.margin + place.length)
        if defect in BRIEF:  # drawn on the segment itself, so that it holds one
            place = replace(place, around=place.section[own], inside=slice(place.margin, len(place.section)))
        drawn = simulator.draw(place.around[None], place.rate_hz, rng)  # the simulators take channels
        if drawn is None:
            return None
        if "amplitude" in drawn and rng.random() < QUIET_SHARE and self.is_varied:
            # The paper's uniform draw is almost always loud; some on a logarithmic scale teach the quiet ones.
            drawn["amplitude"] = float(log_uniform(rng, MIN_AMPLITUDE, drawn["amplitude"]))
        if self.is_varied:
            drawn |= _real(defect, rng)
        section, inside = place.section, place.inside
        defective, mask = simulator.apply(section[None, inside], place.rate_hz, rng, **drawn)
        changed = np.flatnonzero(mask[0]) + inside.start
        if not ((changed >= own.start) & (changed < own.stop)).any():
            return None
        return np.concatenate([section[: inside.start], defective[0], section[inside.stop :]])


def _real(defect: str, rng: np.random.Generator) -> dict[str, Any]:
    """Parameters beyond the paper's for some of the defects, as real ones have them."""
    if defect == "hum" and rng.random() < MAINS_SHARE:
        count = int(rng.integers(0, 9))
        return {
            "frequency_hz": float(rng.choice(MAINS_HZ) * rng.uniform(1 - MAINS_TOLERANCE, 1 + MAINS_TOLERANCE)),
            "overtones": rng.lognormal(-1, 1, count).clip(0, 2).tolist(),
            "overtone_phases_rad": rng.uniform(0, 2 * np.pi, count).tolist(),
        }
    if defect == "hum" and rng.random() < OVERTONE_SHARE:
        return {"overtones": (rng.lognormal(-1, 1, rng.integers(1, 9)) / 2).clip(0, 1).tolist()}
    if defect == "hiss" and rng.random() < COLOURED_SHARE:
        # No further down: noise that falls by more is air and traffic (`models.intended.ambience`).
        cutoff_hz = float(log_uniform(rng, 6_000, 20_000)) if rng.random() < 0.7 else None
        low_hz = float(log_uniform(rng, 100, 2_000)) if rng.random() < 0.4 else None
        return {"tilt_db": float(rng.uniform(-3.5, 3.0)), "cutoff_hz": cutoff_hz, "low_hz": low_hz}
    if defect == "distortion" and rng.random() < ONE_SIDED_SHARE:
        return {"sides": tuple(map(float, rng.permutation([1.0, rng.uniform(1.0, 10.0)])))}
    return {}


@dataclass
class PairSource(SegmentSource):
    """Draws pairs of a clean segment and the same with a defect, for detectors that say where in it the defect is."""

    @property
    def group(self) -> int:
        """Segments of a group."""
        return 2

    def _section(self, length: int, margin: int, rng: np.random.Generator) -> np.ndarray:
        """A clean stretch of `length` samples somewhere, with `margin` more on either side."""
        channel = self._channel(rng)
        start = int(rng.integers(0, max(len(channel) - length, 0) + 1))
        section = stretch(channel, start - margin, start + length + margin)
        return self._vary(section, slice(0, len(section)), rng) if self.is_varied else section


def stretch(channel: np.ndarray, low: int, high: int) -> np.ndarray:
    """Samples [low, high) of an int16 channel as float32 (high - low,), silence where it has none."""
    piece = np.zeros(high - low, dtype=np.float32)
    begin, end = max(low, 0), min(high, len(channel))
    if begin < end:
        np.divide(channel[begin:end], 32768, out=piece[begin - low : end - low], dtype=np.float32)
    return piece


def muting(samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """A gain (samples,) of 1 with one to four stretches of 0, or one up to an end, faded to in 0.1 to 30 ms."""
    gain = np.ones(samples, dtype=np.float32)
    if rng.random() < CUT_SHARE:
        at = round(rng.uniform(0.03, 0.97) * samples)
        gain[slice(at, None) if rng.random() < 0.5 else slice(at)] = 0.0
    else:
        for _ in range(int(rng.integers(1, 5))):
            length = round(log_uniform(rng, 0.03, 0.8) * sample_rate)
            start = int(rng.integers(-length // 2, samples - length // 2))
            gain[max(start, 0) : max(start + length, 0)] = 0.0
    if not gain.any():  # four long stretches may leave nothing
        return muting(samples, sample_rate, rng)
    fade = signal.windows.hann(2 * round(log_uniform(rng, 1e-4, 0.03) * sample_rate) + 1)
    # Wider by the fade, then smoothed: 0 stays 0 to the sample.
    silent = ndimage.maximum_filter1d((gain == 0.0).astype(np.uint8), len(fade)) > 0
    smooth = signal.fftconvolve(1.0 - silent, fade / fade.sum(), mode="same")
    return np.where(gain == 0.0, 0.0, np.where(smooth > 1.0 - 1e-6, 1.0, smooth)).clip(0.0, 1.0).astype(np.float32)


def through_codec(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """What a lossy codec leaves, which comes after the defect: half of all segments (samples,), clean or not.

    A real codec for some; for others, being cheaper, a band limit, with or without quantisation noise in the
    neighbourhood of what masks it. Without them a network learns hiss as noise up to 24 kHz, and hears none in an MP3.
    """
    chance = rng.random()
    if chance < CODED_SHARE:
        return _recode(waveform, sample_rate, rng)
    if chance < 0.65:
        return waveform
    cutoff_hz = float(log_uniform(rng, 3_400, 20_500))  # from a telephone's to a disc's
    if rng.random() < 0.5:
        return np.clip(_limit(waveform, sample_rate, 0.0, cutoff_hz), -1.0, 1.0)  # as a decoder's output is
    _, _, spectrum = signal.stft(waveform, sample_rate, "cosine", 2048, boundary="even")
    spectrum = spectrum.astype(np.complex64)  # (frequency, time)
    size = np.abs(spectrum)
    masked = np.maximum(size, ndimage.uniform_filter1d(size, 9, axis=0)) * np.float32(rng.uniform(0.02, 0.25))
    noise = rng.random((2, *size.shape), dtype=np.float32) - 0.5
    spectrum += masked * (noise[0] + 1j * noise[1])
    spectrum[np.abs(spectrum) < 0.5 * masked] = 0.0
    spectrum[round(cutoff_hz / sample_rate * 2048) :] = 0.0
    _, decoded = signal.istft(spectrum, sample_rate, "cosine", 2048, boundary=True)
    return np.clip(decoded[: len(waveform)], -1.0, 1.0).astype(np.float32)


def _codec(sample_rate: int, rng: np.random.Generator) -> str:
    return str(rng.choice([codec for codec in BIT_RATES if codec != "opus" or sample_rate == 48_000]))


def _recode(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Through a real codec (samples,), for some at a lower sample rate, as prompts and old recordings are stored."""
    codec = _codec(sample_rate, rng)
    bit_rate = int(rng.choice(BIT_RATES[codec]))
    if codec != "opus" and rng.random() < LOW_RATE_SHARE:
        factor = int(rng.choice(LOW_RATE_FACTORS.get(sample_rate, (1,))))
        low_hz = sample_rate // factor
        coded = recode(resampled(waveform, sample_rate, low_hz), low_hz, codec, min(bit_rate, 64_000))
        waveform = resampled(coded, low_hz, sample_rate)[: len(waveform)]
    else:
        waveform = recode(waveform, sample_rate, codec, bit_rate)
    return np.clip(waveform, -1.0, 1.0)


def _limit(waveform: np.ndarray, sample_rate: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Band-pass (..., samples) with slopes 300 Hz wide."""
    length = fft.next_fast_len(waveform.shape[-1], real=True)
    frequency_hz = fft.rfftfreq(length, 1 / sample_rate)
    gain = np.clip((high_hz + 300 - frequency_hz) / 300, 0.0, 1.0)
    if low_hz > 0.0:
        gain *= np.clip((frequency_hz - low_hz) / 300 + 1.0, 0.0, 1.0)
    limited = fft.irfft(fft.rfft(waveform, length) * gain.astype(np.float32), length)
    return np.asarray(limited[..., : waveform.shape[-1]], dtype=np.float32)


def _limited_source(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Bandwidth and codec of another production's source (samples,)."""
    chance = rng.random()
    if chance < 0.15:
        waveform = _limit(waveform, sample_rate, 0.0, rng.uniform(3_500, 18_000))
    elif chance < 0.2:
        waveform = _limit(waveform, sample_rate, rng.uniform(200, 500), rng.uniform(3_000, 4_000))  # a telephone
    elif chance < 0.2 + CODED_SHARE / 3:
        waveform = _recode(waveform, sample_rate, rng)
    if chance < 0.2:
        waveform = waveform / max(1.0, float(np.abs(waveform).max(initial=0.0)) / 0.98)  # a limit may overshoot
    return waveform


def as_catalogue(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """As it is, in 16 bits, or through a codec at a usual bit rate (samples,)."""
    if rng.random() < 0.5:
        return (np.round(waveform * 32768).clip(-32768, 32767) / 32768).astype(np.float32)
    return np.clip(recode(waveform, sample_rate, _codec(sample_rate, rng), 64_000), -1.0, 1.0)


def draw_batch(
    source: SegmentSource, count: int, segment_s: float, seed: list[int], share: tuple[int, int] = (0, 1)
) -> tuple[torch.Tensor, torch.Tensor]:
    """Segments (b, n) float32 and their targets, labels (b,) int64 or as the source has them: a share of `count`.

    Each group has its own seed, so that the batch is the same however many processes share it.

    Args:
        source: where to draw.
        count: segments of all processes, a multiple of the group's size.
        segment_s: their length.
        seed: of the batch.
        share: number of the process and how many there are.
    """
    groups = range(share[0], count // source.group, share[1])
    drawn = [pair for number in groups for pair in source.draw(segment_s, np.random.default_rng([*seed, number]))]
    segments, targets = zip(*drawn, strict=True)
    return torch.from_numpy(np.stack(segments)), torch.from_numpy(np.stack(targets))
