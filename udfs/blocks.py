"""Decoded samples on a title's time line: frames joined to blocks, and blocks at another sample rate, with PyAV."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import av
import numpy as np

from udfs.data_bursts import DataBursts
from udfs.decode_report import DecodeReport

BLOCK_S = 1.0
MOST_PLANES = 8  # that PyAV's to_ndarray() reads


@dataclass
class Block:
    """Consecutive decoded samples.

    Args:
        position: index of the first sample on the title's time line, at `rate_hz`.
        rate_hz: samples per second.
        samples: float32 (channels, time), full scale +-1.
        channel_names: names such as FL, one a channel.
    """

    position: int
    rate_hz: int
    samples: np.ndarray
    channel_names: tuple[str, ...]


@dataclass
class Joiner:
    """Turns frames into float32 planar blocks of about a second, cut where the format or time jumps."""

    first_s: float
    report: DecodeReport
    _converter: av.AudioResampler | None = None
    _format: tuple[str, str, int, int] | None = None
    _names: tuple[str, ...] = ()
    _parts: list[np.ndarray] = field(default_factory=list)
    _start: int = 0
    _length: int = 0
    _rate: int = 0
    _part_names: tuple[str, ...] = ()
    _bursts: DataBursts = field(default_factory=DataBursts)

    def samples(self, frame: av.AudioFrame) -> tuple[np.ndarray, tuple[str, ...]]:
        """Samples of a frame as float32 (channels, time), and the channels' names."""
        layout = frame.layout
        form = (frame.format.name, layout.name, layout.nb_channels, frame.sample_rate)
        if form != self._format:
            if self._format is not None and form[1:] != self._format[1:]:
                self.report.format_changes += 1
            # Through packed float: planar frames of more than 8 channels crash to_ndarray().
            self._converter = av.AudioResampler(format="flt", layout=layout, rate=frame.sample_rate)
            self._format = form
            self._names = tuple(channel_name(layout, index) for index in range(layout.nb_channels))
        if form[0] == "fltp" and len(self._names) <= MOST_PLANES:
            return frame.to_ndarray(), self._names  # as lossy codecs give it, in many small frames: no need to convert
        assert self._converter is not None
        packed = [part.to_ndarray().reshape(-1, len(self._names)) for part in self._converter.resample(frame)]
        if not packed:
            return np.zeros((len(self._names), 0), dtype=np.float32), self._names
        return (packed[0] if len(packed) == 1 else np.concatenate(packed)).T, self._names

    def add(self, position: int, rate: int, samples: np.ndarray, names: tuple[str, ...]) -> Iterator[Block]:
        """Take samples in; yield a block when one is complete."""
        first = round(self.first_s * rate)
        if position < first:
            samples = samples[:, first - position :]
            position = first
        if not samples.shape[1]:
            return
        if self._length and (position != self._start + self._length or rate != self._rate or names != self._part_names):
            yield from self.flush()
        if not self._length:
            self._start, self._rate, self._part_names = position, rate, names
        self._parts.append(samples)
        self._length += samples.shape[1]
        self.report.decoded_s += samples.shape[1] / rate
        if self._length >= BLOCK_S * rate:
            yield from self.flush()

    def flush(self) -> Iterator[Block]:
        """Yield what is left."""
        if not self._length:
            return
        joined = np.empty((len(self._part_names), self._length), dtype=np.float32)
        np.concatenate(self._parts, axis=1, out=joined)
        # Damaged streams decode to NaN or to thousands of full scales; players clip, and so do we.
        if not (joined.min() >= -1.0 and joined.max() <= 1.0):  # NaN is in no range
            np.nan_to_num(joined, copy=False, nan=0.0, posinf=1.0, neginf=-1.0)
            np.clip(joined, -1.0, 1.0, out=joined)
        # Lossy codecs give floats, and could not carry such words.
        if self._format is not None and not self._format[0].startswith(("flt", "dbl")):
            for channel, kind in self._bursts.silence(joined, self._rate).items():
                self.report.data[self._part_names[channel]] = kind
        yield Block(self._start, self._rate, joined, self._part_names)
        self._parts, self._length = [], 0


def channel_name(layout: av.AudioLayout, index: int) -> str:
    """FFmpeg's name of a channel (FL, FR, FC, LFE ...), C0, C1 ... where the layout names none.

    One or two channels of a file without a layout (plain WAV) can only be mono and stereo.
    """
    if layout.nb_channels <= 2:
        return (("FC",), ("FL", "FR"))[layout.nb_channels - 1][index]
    try:
        name = layout.channels[index].name
    except (IndexError, AttributeError):
        name = ""
    return name if name and name.isalnum() and not name.startswith(("UNK", "NONE")) else f"C{index}"


class Resampler:
    """Streams blocks from one rate to another with libswresample, on the title's time grid.

    Output does not depend on where the input begins: after a start or a jump the first samples are
    dropped up to the next place where both rates' grids meet (at most a second, 3.3 ms for 44.1 to
    48 kHz), so the polyphase filter always runs in the same phase.

    Args:
        rate_hz: output rate.
    """

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self._resampler: av.AudioResampler | None = None
        self._source: tuple[int, tuple[str, ...]] | None = None
        self._next_in = 0
        self._next_out = 0

    def push(self, block: Block) -> Iterator[Block]:
        """Resample one block; a jump in position or format first ends what came before."""
        source = (block.rate_hz, block.channel_names)
        if block.rate_hz == self.rate_hz:
            yield from self.flush()
            yield block
            return
        if self._resampler is not None and (source != self._source or block.position != self._next_in):
            yield from self.flush()
        samples, position = block.samples, block.position
        if self._resampler is None:
            step = block.rate_hz // math.gcd(block.rate_hz, self.rate_hz)
            drop = -position % step
            if samples.shape[1] <= drop:
                return
            samples, position = samples[:, drop:], position + drop
            self._next_out = position // step * (self.rate_hz * step // block.rate_hz)
            self._source = source
            self._resampler = av.AudioResampler(
                format="flt", layout=_unnamed_layout(samples.shape[0]), rate=self.rate_hz, options={"filter_size": "64"}
            )
        self._next_in = position + samples.shape[1]
        packed = np.ascontiguousarray(samples.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=_unnamed_layout(samples.shape[0]))
        frame.sample_rate = block.rate_hz
        yield from self._emit(self._resampler.resample(frame))

    def flush(self) -> Iterator[Block]:
        """Yield what the filter still holds and forget the past."""
        if self._resampler is not None:
            yield from self._emit(self._resampler.resample(None))
            self._resampler = None

    def _emit(self, frames: list[av.AudioFrame]) -> Iterator[Block]:
        assert self._source is not None
        names = self._source[1]
        for frame in frames:
            samples = np.ascontiguousarray(frame.to_ndarray().reshape(-1, len(names)).T)
            if samples.shape[1]:
                yield Block(self._next_out, self.rate_hz, samples, names)
                self._next_out += samples.shape[1]


def _unnamed_layout(channels: int) -> str:
    # By count alone: a layout with names would invite FFmpeg to remix.
    return {1: "mono", 2: "stereo"}.get(channels, f"{channels} channels")
