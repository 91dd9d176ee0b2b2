"""Damaged frames of MP3 streams, as Hook-Net's second detector hears them (section 3.2)."""

from dataclasses import dataclass

import av
import numpy as np
from scipy import fft, signal

from models.codecs import encode, place
from models.segments import PairSource

BIT_RATE = 128_000  # of one channel
PROBABILITY = 0.05  # of a frame
MEAN_BYTES, SPREAD_BYTES = 120.0, 60.0  # overwritten of a frame's 418
FRAME = 128  # samples of one output
MP3_FRAME = 1152  # samples
WINDOW = 512
AUDIBLE_DB = -50.0  # change of a frame's power spectrum that counts; gives the paper's share of 8 %


def damaged(
    waveform: np.ndarray, sample_rate: int, rng: np.random.Generator, probability: float = PROBABILITY
) -> tuple[np.ndarray, np.ndarray]:
    """Encode one channel as MP3 and decode it, as it is and with some of its frames damaged.

    A run of bytes anywhere in a frame, its header included, is overwritten with random ones. One decoder goes through the
    whole stream, so that the bit reservoir and the overlap carry the damage on. A frame that then does not decode, or to
    another length, is decoded as it was.

    Args:
        waveform: float32 (samples,), full scale +-1.
        sample_rate: Hz; one that MP3 knows.
        rng: draws frames and bytes.
        probability: of each frame to be hit.

    Returns:
        The clean and the damaged decode, float32 (samples,), full scale +-1.
    """
    packets, decoder = encode(waveform, sample_rate, "mp3", BIT_RATE)
    contents = [(bytes(packet), packet.pts) for packet in packets]
    clean, broken = np.zeros_like(waveform), np.zeros_like(waveform)
    for packet in packets:
        for frame in decoder.decode(packet):
            place(frame, MP3_FRAME, clean)
    _, decoder = encode(waveform[:0], sample_rate, "mp3", BIT_RATE)
    for content, time in contents:
        hit = rng.random() < probability
        frames = _decoded(decoder, _overwritten(content, rng), time, sample_rate) if hit else None
        if frames is None:
            frames = _decoded(decoder, content, time, sample_rate) or []
        for frame in frames:
            place(frame, MP3_FRAME, broken)
    return clean, np.clip(np.nan_to_num(broken), -1.0, 1.0)


def _overwritten(content: bytes, rng: np.random.Generator) -> bytes:
    length = int(np.clip(round(rng.normal(MEAN_BYTES, SPREAD_BYTES)), 1, len(content)))
    at = int(rng.integers(0, len(content) - length + 1))
    return content[:at] + rng.bytes(length) + content[at + length :]


def _decoded(decoder: object, content: bytes, time: int | None, sample_rate: int) -> list[av.AudioFrame] | None:
    """The frames of a packet; None where it does not decode to one frame of the stream's kind."""
    packet = av.Packet(content)
    packet.pts = packet.dts = time
    try:
        frames = decoder.decode(packet)  # type: ignore[attr-defined]
    except (av.FFmpegError, ValueError):
        return None
    fits = all(
        frame.samples == MP3_FRAME and frame.sample_rate == sample_rate and frame.layout.nb_channels == 1
        for frame in frames
    )
    return frames if fits and frames else None


def distance_db(clean: np.ndarray, broken: np.ndarray) -> np.ndarray:
    """How much the power spectrum of each frame has changed, relative to the clean one: (samples,) to decibels (frames,).

    -200 where nothing has. Our reading: the paper names no window, distance or threshold.
    """
    ahead = (WINDOW - FRAME) // 2  # each window lies around the middle of its frame
    windows = [
        np.lib.stride_tricks.sliding_window_view(np.pad(x, (ahead, ahead)), WINDOW)[::FRAME] for x in (clean, broken)
    ]
    before, after = (np.square(np.abs(fft.rfft(x * signal.windows.hann(WINDOW, sym=False)))) for x in windows)
    change = np.abs(after - before).sum(axis=1) / np.maximum(before.sum(axis=1), 1e-10)
    return np.asarray(10.0 * np.log10(np.maximum(change, 1e-20)))


@dataclass
class GlitchSource(PairSource):
    """Draws pairs of segments: the decode of an MP3 and the same stream with damaged frames, each with a target by frame."""

    def draw(self, segment_s: float, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:  # type: ignore[override]
        """A pair of float32 (samples,) segments and their targets, float32 (frames,) of 0 and 1; the first is clean."""
        length = round(segment_s * self.sample_rate_hz)
        margin = 4 * MP3_FRAME  # the bit reservoir and the overlap reach that far
        own = slice(margin, margin + length)
        while True:
            clean, broken = damaged(self._section(length, margin, rng), self.sample_rate_hz, rng)
            target = (distance_db(clean[own], broken[own]) > AUDIBLE_DB).astype(np.float32)
            if target.any():
                pair = ((clean, np.zeros_like(target)), (broken, target))
                return [(np.ascontiguousarray(waveform[own]), truth) for waveform, truth in pair]
