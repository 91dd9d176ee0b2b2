"""Decodes one audio track into blocks of samples on the title's time line, with PyAV.

Time: a title's zero is its container's start, the zero of a player's clock. A sample's place comes
from its presentation time stamp, so that damage and gaps do not shift what follows them.
"""

import math
from collections.abc import Callable, Iterator

import av
import av.error
from av.stream import Discard

from udfs.blocks import Block, Joiner
from udfs.decode_report import PACKET_ERROR, DecodeReport
from udfs.media import MAX_CONSECUTIVE_ERRORS, MediaError, open_media, origin_s
from udfs.packets import LONGEST_PACKET_S, VORBIS_JITTER_S

PRE_ROLL_S = 0.5  # lets MP3's bit reservoir, Opus' state and the resampler's filter settle before the span
JITTER_S = 0.008  # time stamps closer than this to where the sample count says are rounding, not jumps
BELIEVED_S = 10.0  # what a damaged packet may say of its distance from the last
PADDED, PADDED_BYTES = ("wav", "w64"), 8  # what chunks of a W64 file are aligned to; those of RIFF to two


def decode(
    path: str,
    track: int,
    start_s: float = 0.0,
    stop_s: float = math.inf,
    *,
    can_seek: bool = False,
    is_timed: bool = True,
    report: DecodeReport | None = None,
    progress: Callable[[], None] = lambda: None,
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
        progress: called with each frame, those before the span among them.

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
            path, track, first_s, stop_s, progress, seek_s=start_s - 2 * PRE_ROLL_S, is_timed=True, report=attempt
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
    yield from _decode_from(path, track, first_s, stop_s, progress, seek_s=None, is_timed=is_timed, report=report)


def _decode_from(
    path: str,
    track: int,
    first_s: float,
    stop_s: float,
    progress: Callable[[], None],
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
        joiner = Joiner(first_s, report)
        report.position_s = seek_s or 0.0
        position: int | None = None
        rate = 0
        suspected = 0
        for frame in _frames(container, stream, report, origin if is_timed else None):
            progress()
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
    # The container's check failed; the decoder may make something of it all the same. PCM has no such check: there it says
    # that the packet is shorter than others, as is the last one of a file whose header does not know its length.
    if packet.is_corrupt and not packet.stream.codec_context.name.startswith("pcm_"):
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
