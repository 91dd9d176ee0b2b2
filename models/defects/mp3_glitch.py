"""Damaged frames of an MP3 stream, as Hook-Net's second detector hears them (section 3.2).

Half-transferred files, bad discs and broken multiplexers leave them: the decoder goes on, and what it makes of the bytes
is heard as chirps and drop-outs of a few frames.
"""

from math import gcd
from typing import Any

import av
import numpy as np
from scipy import fft, signal

from models.codecs import decode, encode, place
from models.resampling import resampled

BIT_RATE = 128_000  # of one channel
PROBABILITY = 0.05  # of a frame
MEAN_BYTES, SPREAD_BYTES = 120.0, 60.0  # overwritten of a frame's 418
FRAME = 128  # samples of one output
MP3_FRAME = 1152  # samples
WINDOW = 512
AUDIBLE_DB = -50.0  # change of a frame's power spectrum that counts; gives the paper's share of 8 %
ROUNDING = (2.0**-15) ** 2 / 12  # mean square of what rounding to 16 bits adds, -101 dB
RATES_HZ = (48_000, 44_100, 32_000)  # of MPEG-1, which has 128 kbit/s for one channel


def draw(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> dict[str, Any] | None:
    """Parameters for `apply`: which frames are hit, and with what, follows from the seed; None for silence."""
    if not waveform.any():
        return None
    return {"probability": PROBABILITY, "seed": int(rng.integers(1 << 31))}


def apply(
    waveform: np.ndarray, sample_rate: int, rng: np.random.Generator, *, probability: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Add what damage to its MP3 would change in a waveform; what the coding itself changes is left out.

    Args:
        waveform: float32 (channels, time), full scale +-1. Each channel is a stream of its own, hit in the same frames.
        sample_rate: Hz. At rates that MP3 has not at this bit rate, the stream has another and its damage is resampled.
        rng: unused; the seed has all.
        probability: of each frame to be hit.
        seed: draws frames and bytes.

    Returns:
        The damaged waveform, and the mask of changed samples, both (channels, time).
    """
    _, coded_hz = min((sample_rate // gcd(sample_rate, rate), rate) for rate in RATES_HZ)
    defective = waveform.copy()
    for channel, samples in enumerate(waveform):
        clean, broken = damaged(
            resampled(samples, sample_rate, coded_hz), coded_hz, np.random.default_rng(seed), probability
        )
        change = broken - clean
        counts = np.repeat(distance_db(clean, broken) > AUDIBLE_DB, FRAME)
        change[: len(counts)] *= counts[: len(change)]
        change[len(counts) :] = 0.0  # less than a frame at the end
        if coded_hz != sample_rate:
            hit = change.any()
            change = resampled(change, coded_hz, sample_rate)[: len(samples)]
            change[np.abs(change) < 1e-5] = 0.0  # the filter's tails
            change *= hit
        places = np.flatnonzero(change)
        defective[channel, places] = np.clip(samples[places] + change[places], -1.0, 1.0)
    return defective, defective != waveform


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
    packets, new_decoder = encode(waveform, sample_rate, "mp3", BIT_RATE)
    contents = [(bytes(packet), packet.pts) for packet in packets]
    clean, broken = decode(packets, new_decoder(), len(waveform)), np.zeros_like(waveform)
    decoder = new_decoder()
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


def distance_db(clean: np.ndarray, broken: np.ndarray, least: float = ROUNDING) -> np.ndarray:
    """How much the power spectrum of each frame has changed, relative to the clean one: (samples,) to decibels (frames,).

    -200 where nothing has, or less than `least`, a mean square: an MP3's silence is not digital silence, and what damage does
    to it at -110 dB is in no file of 16 bits. Our reading: the paper names no window, distance or threshold.
    """
    ahead = (WINDOW - FRAME) // 2  # each window lies around the middle of its frame
    windows = [
        np.lib.stride_tricks.sliding_window_view(np.pad(x, (ahead, ahead)), WINDOW)[::FRAME] for x in (clean, broken)
    ]
    hann = signal.windows.hann(WINDOW, sym=False)
    before, after = (np.square(np.abs(fft.rfft(x * hann))) for x in windows)
    change = np.abs(after - before).sum(axis=1)
    floor = max(least, 1e-16) * np.square(hann).sum() * before.shape[1]  # of white noise: the same in every bin
    relative = np.where(change > floor, change / np.maximum(before.sum(axis=1), floor), 0.0)
    return np.asarray(10.0 * np.log10(np.maximum(relative, 1e-20)))
