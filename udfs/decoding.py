"""Decodes one audio track into blocks of samples on the title's time line, and resamples them, with PyAV.

Time: a title's zero is its container's start, the zero of a player's clock. A sample's place comes
from its presentation time stamp, so that damage and gaps do not shift what follows them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import av
import av.error
import numpy as np
from av.stream import Discard

from udfs.data_bursts import DataBursts
from udfs.media import (
    LONGEST_PACKET_S,
    MAX_CONSECUTIVE_ERRORS,
    VORBIS_JITTER_S,
    MediaError,
    describe,
    open_media,
    origin_s,
)

PRE_ROLL_S = 0.5  # lets MP3's bit reservoir, Opus' state and the resampler's filter settle before the span
JITTER_S = 0.008  # time stamps closer than this to where the sample count says are rounding, not jumps
BLOCK_S = 1.0

# What a track's events are called (`DecodeReport.events`).
PACKET_ERROR, TIME_JUMP, MISSING_AUDIO = EVENT_LABELS = ("packet_error", "time_jump", "missing_audio")
SHORTEST_EVENT_S = 0.001  # an event lasts at least so long, as one millisecond counts in detections
JOINED_S = 0.1  # events of a kind this close together are one
BELIEVED_S = 10.0  # what a damaged packet may say of its distance from the last
MOST_PLANES = 8  # that PyAV's to_ndarray() reads
PADDED, PADDED_BYTES = ("wav", "w64"), 8  # what chunks of a W64 file are aligned to; those of RIFF to two
MAX_EVENTS = 1000  # of a span; the last one then reaches to the end of the damage


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
class DecodeReport:
    """What went wrong while decoding, filled in as the decoding goes, and seconds by stage (`udfs.stages`).

    Args:
        packet_errors: packets that could not be read or decoded, count.
        gaps: jumps of the time stamps, count.
        format_changes: changes of sample rate or channels midway, count.
        data: names of channels that carry data in the place of sound, and what it is (`udfs.data_bursts`).
        first_error: the first packet's error.
        decoded_s: audio decoded, seconds.
        position_s: where on the title's time line the decoding is.
        events: where something went wrong, in order: [label of `EVENT_LABELS`, start, end], seconds of the title.
        stages_s: seconds by stage.
    """

    packet_errors: int = 0
    gaps: int = 0
    format_changes: int = 0
    data: dict[str, str] = field(default_factory=dict)
    first_error: str | None = None
    decoded_s: float = 0.0
    position_s: float = 0.0
    events: list[list[Any]] = field(default_factory=list)
    stages_s: dict[str, float] = field(default_factory=dict)

    def note(self, error: Exception, start_s: float | None = None, length_s: float = 0.0) -> None:
        """Count one packet that could not be decoded, and where it would have been heard."""
        self.packet_errors += 1
        if self.first_error is None:
            self.first_error = describe(error)
        start_s = self.position_s if start_s is None else start_s
        self.add_event(PACKET_ERROR, start_s, start_s + length_s)

    def add_jump(self, start_s: float, end_s: float) -> None:
        """Note a jump of the time stamps, unless it is the place of packets that could not be decoded."""
        last = next((event for event in reversed(self.events) if event[0] == PACKET_ERROR), None)
        if last is None or not last[1] - JOINED_S <= start_s <= end_s <= last[2] + JOINED_S:
            self.add_event(TIME_JUMP, start_s, end_s)

    def add_event(self, label: str, start_s: float, end_s: float) -> None:
        """Note where something went wrong."""
        start_s, end_s = max(0.0, start_s), max(start_s + SHORTEST_EVENT_S, end_s)
        last = next((event for event in reversed(self.events) if event[0] == label), None)
        if last is not None and (start_s <= last[2] + JOINED_S or len(self.events) >= MAX_EVENTS):
            last[1:] = min(last[1], start_s), max(last[2], end_s)
        else:
            self.events.append([label, start_s, end_s])


def decode(
    path: str,
    track: int,
    start_s: float = 0.0,
    stop_s: float = math.inf,
    *,
    can_seek: bool = False,
    is_timed: bool = True,
    report: DecodeReport | None = None,
) -> Iterator[Block]:
    """Decode one track's samples in `[start_s - pre-roll, stop_s)` at the file's own rate.

    The blocks' samples do not depend on where the span begins: where a seek cannot promise that
    (`can_seek` false), decoding starts at the beginning of the title and drops what lies before.
    Blocks from up to `PRE_ROLL_S` before `start_s` are included, for filters to settle on.

    Args:
        path: local file.
        track: number among the file's audio tracks, from 0.
        start_s: begin of the span on the title's time line.
        stop_s: end of the span; the last block may reach beyond it.
        can_seek: `TrackInfo.can_seek` of this track.
        is_timed: `TrackInfo.is_timed` of this track.
        report: receives counts of errors, gaps and decoded seconds.

    Yields:
        Blocks of about one second, in rising order, float32 clipped to full scale as a player's
        output would be.

    Raises:
        MediaError: the file cannot be opened or the track does not exist.
    """
    report = report if report is not None else DecodeReport()
    first_s = max(0.0, start_s - PRE_ROLL_S)
    if can_seek and start_s > 2 * PRE_ROLL_S:
        attempt = DecodeReport()
        blocks = _decode_from(
            path, track, first_s, stop_s, seek_s=start_s - 2 * PRE_ROLL_S, is_timed=True, report=attempt
        )
        first = next(blocks, None)
        # A seek that landed late, or past the end, proves nothing: fall through to the start of the title.
        if first is not None and first.position <= first_s * first.rate_hz + 1:
            yield first
            try:
                yield from blocks
            finally:
                vars(report).update(vars(attempt))
            return
    yield from _decode_from(path, track, first_s, stop_s, seek_s=None, is_timed=is_timed, report=report)


def _decode_from(
    path: str,
    track: int,
    first_s: float,
    stop_s: float,
    *,
    seek_s: float | None,
    is_timed: bool,
    report: DecodeReport,
) -> Iterator[Block]:
    with open_media(path) as container:
        streams = container.streams.audio
        if track >= len(streams):
            raise MediaError("no_such_track", f"expected audio track {track}, the file has {len(streams)} now")
        stream = streams[track]
        for other in container.streams:
            if other.index != stream.index:
                other.discard = Discard.all
        stream.codec_context.thread_type = "NONE"  # one core is one task's share, and threads reorder errors
        origin = origin_s(container)
        zero_s = _fraction(origin)
        jitter_s = VORBIS_JITTER_S if stream.codec_context.name == "vorbis" else JITTER_S
        is_lpcm_pack = container.format.name == "mpeg" and stream.codec_context.name.startswith("pcm_")
        if seek_s is not None:
            try:
                container.seek(math.floor((seek_s + origin) / (stream.time_base or 1)), stream=stream, backward=True)
            except av.error.FFmpegError:
                return
        joiner = _Joiner(first_s, report)
        report.position_s = seek_s or 0.0
        position: int | None = None
        rate = 0
        suspected = 0
        for frame in _frames(container, stream, report, origin if is_timed else None):
            if frame.sample_rate != rate:
                if position is not None:
                    position = round(position * frame.sample_rate / rate)
                rate = frame.sample_rate
            stamped = None
            if is_timed and frame.pts is not None and (tick := frame.time_base) is not None:
                # Plain numbers: with fractions, this line took a tenth of the decoding's time.
                stamped = round((frame.pts * tick.numerator / tick.denominator - zero_s) * rate)
            if position is None:
                if stamped is None and seek_s is not None:
                    return
                position = stamped if stamped is not None else 0
            drift = stamped - position if stamped is not None else 0
            skip = 0
            # A program stream's time stamp is of the first frame that begins in a pack, and not of its first sample.
            jitter = max(jitter_s * rate, frame.samples * is_lpcm_pack)
            if abs(drift) <= jitter:
                suspected = 0
            elif abs(drift - suspected) > jitter:
                # One frame may be stamped wrongly; a jump is real once the next frame agrees.
                suspected = drift
            else:
                report.gaps += 1
                suspected = 0
                report.add_jump((position + min(drift, 0)) / rate, (position + max(drift, 0)) / rate)
                if drift > 0:
                    position += drift
                else:
                    skip = -drift  # the stamps repeat time already heard
            samples, names = joiner.samples(frame)
            if skip:
                samples = samples[:, skip:]
            yield from joiner.add(position, rate, samples, names)
            position += samples.shape[1]
            report.position_s = position / rate
            if position >= stop_s * rate:
                break
        yield from joiner.flush()


def _fraction(seconds: float) -> float:
    # Container start times are whole microseconds; rounding removes the float's own noise.
    return round(seconds, 6)


def _place(packet: av.Packet, origin: float | None, position_s: float) -> tuple[float, float]:
    """Where a packet's sound begins on the title's time line, and how long it lasts; seconds.

    Args:
        packet: it may be damaged, and its time stamp with it.
        origin: the container's start; None where time stamps are of no use.
        position_s: what has been decoded so far, which is to be believed where the packet is not.
    """
    if packet.time_base is None:
        return position_s, 0.0
    stamp = packet.pts if packet.pts is not None else packet.dts
    length_s = min(max(float((packet.duration or 0) * packet.time_base), 0.0), LONGEST_PACKET_S)
    if origin is None or stamp is None:
        return position_s, length_s
    start_s = float(stamp * packet.time_base) - _fraction(origin)
    return (start_s if abs(start_s - position_s) < BELIEVED_S else position_s), length_s


def _frames(
    container: av.container.InputContainer,
    stream: av.audio.stream.AudioStream,
    report: DecodeReport,
    origin: float | None,
) -> Iterator[av.AudioFrame]:
    """Decode packet by packet: one bad packet costs its own samples and no more."""
    packets = container.demux(stream)
    errors = 0
    last_empty = None
    is_padded = container.format.name in PADDED and not stream.codec_context.name.startswith("pcm_")
    while errors < MAX_CONSECUTIVE_ERRORS:
        try:
            packet = next(packets)
        except StopIteration:
            if last_empty is not None:
                yield from _decoded(last_empty, report, origin)
            return
        except av.error.FFmpegError as error:
            report.note(error)
            errors += 1
            continue
        errors = 0
        if not packet.size:
            # PyAV ends with one, on which a decoder gives what it still holds. Ogg files may have one of their own at the
            # end, and FLV files where a codec's header stands: decoders refuse those, or take them for the end.
            last_empty = packet
        elif not (is_padded and _is_padding(packet)):
            yield from _decoded(packet, report, origin)


def _is_padding(packet: av.Packet) -> bool:
    """Whether a packet is what fills a RIFF or W64 chunk up to its alignment: parsers hand it on as sound."""
    return packet.size < PADDED_BYTES and not any(bytes(packet))


def _decoded(
    packet: "av.Packet[av.AudioStream]", report: DecodeReport, origin: float | None
) -> Iterator[av.AudioFrame]:
    if packet.is_corrupt:  # the container's check failed; the decoder may make something of it all the same
        start_s, length_s = _place(packet, origin, report.position_s)
        report.add_event(PACKET_ERROR, start_s, start_s + length_s)
    try:
        frames = packet.decode()
    except (av.error.FFmpegError, ValueError) as error:
        report.note(error, *_place(packet, origin, report.position_s))
        return
    for frame in frames:
        if frame.samples and frame.sample_rate:
            yield frame


@dataclass
class _Joiner:
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
