"""Opens, probes and decodes media files that nobody vetted, with PyAV (FFmpeg).

Time: a title's zero is its container's start, the zero of a player's clock. A sample's place comes
from its presentation time stamp, so that damage and gaps do not shift what follows them.
"""

import contextlib
import hashlib
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

import av
import av.error
import numpy as np
from av.stream import Discard

# Demuxers that may open a file. FFmpeg picks a demuxer by content, whatever the file's name, and
# some of them (hls, concat, dash, image2 ...) would open further files or URLs.
FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,gxf,iff,latm,loas,matroska,mlp,mov,mp3,"
    "mpc,mpc8,mpeg,mpegts,mxf,ogg,oma,rm,sbc,tak,truehd,tta,voc,w64,wav,webm,wsd,wv"
)
# Codecs by name or, with a trailing underscore, by prefix. FFmpeg's codec_whitelist is not enforced through PyAV.
CODECS = [
    "aac",
    "aac_latm",
    "ac3",
    "alac",
    "als",
    "amrnb",
    "amrwb",
    "ape",
    "atrac1",
    "atrac3",
    "atrac3p",
    "cook",
    "dca",
    "eac3",
    "flac",
    "gsm",
    "gsm_ms",
    "mace3",
    "mace6",
    "mlp",
    "mp1",
    "mp1float",
    "mp2",
    "mp2float",
    "mp3",
    "mp3adu",
    "mp3float",
    "mp3on4",
    "mpc7",
    "mpc8",
    "nellymoser",
    "opus",
    "ra_144",
    "ra_288",
    "ralf",
    "s302m",
    "sbc",
    "shorten",
    "sipr",
    "speex",
    "tak",
    "truehd",
    "tta",
    "vorbis",
    "wavpack",
    "wmav1",
    "wmav2",
    "wmapro",
    "wmalossless",
    "wmavoice",
    "xma1",
    "xma2",
    "adpcm_",
    "dsd_",
    "pcm_",
]
# (codec, container) pairs whose decode after a seek was measured to be sample-identical to a decode from the
# start. Everything else is decoded from the start of the title: AAC and AC-3 draw random noise in the decoder,
# and containers with millisecond time stamps cannot say on which sample a packet begins.
SEEK_EXACT = {
    ("flac", "flac"),
    ("flac", "ogg"),
    ("mp3", "mp3"),
    ("mp3float", "mp3"),
    ("mp3", "mov"),
    ("mp3float", "mov"),
    ("opus", "ogg"),
    ("alac", "mov"),
}
SEEK_EXACT_PCM_CONTAINERS = {"wav", "aiff", "w64", "mov"}
# Containers whose header states a duration from the writer's knowledge, so that a shortfall means a cut-off file.
DECLARING_CONTAINERS = {"mov", "matroska", "wav", "w64", "aiff", "flac", "avi", "caf", "tta", "wv", "mxf"}
PRE_ROLL_S = 0.5  # lets MP3's bit reservoir, Opus' state and the resampler's filter settle before the span
JITTER_S = 0.008  # time stamps closer than this to where the sample count says are rounding, not jumps
BLOCK_S = 1.0
MAX_CONSECUTIVE_ERRORS = 64


class MediaError(Exception):
    """A file or track that cannot be scanned.

    Args:
        code: short machine-readable reason, stored as `tracks.error_code`.
        message: what was expected, what came and what to do, for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return MediaError, (self.code, self.message)


@dataclass
class TrackInfo:
    """One audio track as its packets (not its header) describe it."""

    track: int
    codec: str
    container: str
    language: str | None
    sample_rate_hz: int
    channels: int
    channel_layout: str
    duration_s: float
    content_hash: str
    can_seek: bool  # a decode after a seek is sample-identical to one from the start
    is_timed: bool  # time stamps are usable; else samples are placed by counting them
    declared_s: float | None = None  # what the header claims, where such claims are worth anything
    error_code: str | None = None
    error: str | None = None


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
    """What went wrong while decoding, filled in as the decoding goes."""

    packet_errors: int = 0
    gaps: int = 0
    format_changes: int = 0
    first_error: str | None = None
    decoded_s: float = 0.0

    def note(self, error: Exception) -> None:
        """Count one packet that could not be decoded."""
        self.packet_errors += 1
        if self.first_error is None:
            self.first_error = describe(error)


def describe(error: Exception) -> str:
    """One line for an exception, without paths of file descriptors."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:300]


@contextlib.contextmanager
def open_media(path: str) -> Iterator[av.container.InputContainer]:
    """Open one regular file and nothing else.

    The file is opened by us, without following a symbolic link and without blocking on a FIFO, and
    handed to FFmpeg by descriptor, with demuxers and protocols on an allow list.

    Raises:
        MediaError: not_found, symlink, not_a_file, empty, unreadable, not_media.
    """
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            raise MediaError(
                "symlink", "expected a regular file, found a symbolic link; list its target in the catalogue instead"
            )
        if not stat.S_ISREG(status.st_mode):
            raise MediaError("not_a_file", "expected a regular file, found a directory, device, socket or FIFO")
        if status.st_size == 0:
            raise MediaError("empty", "expected audio, found a file of 0 bytes; deliver it again")
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MediaError("not_found", "the file does not exist (any more)") from error
    except OSError as error:
        raise MediaError("unreadable", f"the file cannot be opened: {describe(error)}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise MediaError("not_a_file", "the file was replaced by something else while it was being opened")
        try:
            container = av.open(
                f"file:/proc/self/fd/{descriptor}",
                mode="r",
                container_options={"format_whitelist": FORMATS, "protocol_whitelist": "file"},
                metadata_errors="replace",
            )
        except (av.error.FFmpegError, ValueError, OSError) as error:
            raise MediaError(
                "not_media", f"expected an audio or video file, but no allowed format opens it: {describe(error)}"
            ) from error
        with container:
            yield container
    finally:
        os.close(descriptor)


def probe(path: str) -> list[TrackInfo]:
    """Describe every audio track of a file, from its packets: nothing is decoded.

    All packets are read once, which gives each track a content hash that survives a new name or
    container, and a duration that does not come from a header.

    Raises:
        MediaError: the file cannot be opened, or has no audio track.
    """
    with open_media(path) as container:
        streams = list(container.streams.audio)
        if not streams:
            raise MediaError("no_audio", "the file opens but has no audio track")
        for stream in container.streams:
            if stream.type != "audio":
                stream.discard = Discard.all  # spares reading the video where the container allows it
        measures = {stream.index: _PacketMeasure(stream) for stream in streams}
        errors = 0
        packets = container.demux(streams)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except av.error.FFmpegError:
                errors += 1
                if errors >= MAX_CONSECUTIVE_ERRORS:
                    break
                continue
            errors = 0
            if packet.size and packet.stream_index in measures:
                measures[packet.stream_index].add(packet)
        origin_s = _origin_s(container)
        container_name = container.format.name.split(",")[0]
        tracks = [
            _track_info(number, stream, measures[stream.index], container_name, origin_s)
            for number, stream in enumerate(streams)
        ]
        if container_name in DECLARING_CONTAINERS or (container_name == "mp3" and _has_xing_header(path)):
            for track, stream in zip(tracks, streams, strict=True):
                if stream.duration is not None and stream.time_base is not None:
                    track.declared_s = float(stream.duration * stream.time_base)
                elif container.duration is not None and len(container.streams) == len(streams):
                    track.declared_s = container.duration / av.time_base
                if container_name == "wav" and track.declared_s is not None:
                    track.declared_s *= _riff_excess(path)
        return tracks


def _riff_excess(path: str) -> float:
    """How many times its size a WAV file claims to be: FFmpeg quietly corrects the duration of cut-off ones."""
    with open(path, "rb") as file:
        head = file.read(8)
        size = os.fstat(file.fileno()).st_size
    claimed = int.from_bytes(head[4:8], "little") + 8
    is_stream = head[:4] != b"RIFF" or claimed in (8, 0xFFFFFFFF + 8)
    return 1.0 if is_stream or claimed <= size else claimed / size


def _has_xing_header(path: str) -> bool:
    """Whether an MP3 file says how many frames it should hold (else FFmpeg guesses from the bit rate)."""
    with open(path, "rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3":
            size = (head[6] & 127) << 21 | (head[7] & 127) << 14 | (head[8] & 127) << 7 | (head[9] & 127)
            file.seek(10 + size)
        else:
            file.seek(0)
        frame = file.read(4096)
    return b"Xing" in frame or b"Info" in frame


class _PacketMeasure:
    """Hash, extent and order of one stream's packets."""

    def __init__(self, stream: av.audio.stream.AudioStream) -> None:
        codec = stream.codec_context
        self.hash = hashlib.sha256(f"{codec.name}/{codec.sample_rate}/{codec.channels}/".encode())
        self.time_base = stream.time_base
        self.count = 0
        self.duration = 0
        self.first: int | None = None
        self.end: int | None = None
        self.last: int | None = None
        self.backward = 0

    def add(self, packet: av.Packet) -> None:
        self.hash.update(packet)
        self.count += 1
        duration = packet.duration or 0
        self.duration += duration
        if packet.pts is None:
            return
        if self.first is None:
            self.first = packet.pts
        if self.last is not None and packet.pts < self.last:
            self.backward += 1
        self.last = packet.pts
        self.end = max(self.end if self.end is not None else packet.pts, packet.pts + duration)


def _origin_s(container: av.container.InputContainer) -> float:
    return float(container.start_time / av.time_base) if container.start_time is not None else 0.0


def _track_info(
    number: int,
    stream: av.audio.stream.AudioStream,
    measure: _PacketMeasure,
    container: str,
    origin_s: float,
) -> TrackInfo:
    codec = stream.codec_context
    name = codec.name
    tick = float(measure.time_base) if measure.time_base else 0.0
    counted_s = measure.duration * tick
    extent_s = (measure.end * tick - origin_s) if measure.end is not None else counted_s
    start_s = (measure.first * tick - origin_s) if measure.first is not None else 0.0
    # Stamps that run backwards, or that claim far more time than the packets hold, are not a clock.
    is_timed = measure.first is not None and measure.backward == 0
    if counted_s > 0 and extent_s - max(start_s, 0.0) > 1.5 * counted_s + 60.0:
        is_timed = False
    is_pcm = name.startswith("pcm_") and container in SEEK_EXACT_PCM_CONTAINERS
    info = TrackInfo(
        track=number,
        codec=_plain_codec_name(name),
        container=container,
        language=stream.language,
        sample_rate_hz=int(codec.sample_rate or 0),
        channels=int(codec.channels or 0),
        channel_layout=codec.layout.name if codec.channels else "",
        duration_s=max(extent_s if is_timed else counted_s, 0.0),
        content_hash=measure.hash.hexdigest(),
        can_seek=is_timed and (is_pcm or (name, container) in SEEK_EXACT),
        is_timed=is_timed,
    )
    if not any(name == known or (known.endswith("_") and name.startswith(known)) for known in CODECS):
        info.error_code, info.error = "unsupported_codec", f"codec {name!r} is not on the list of allowed decoders"
    elif measure.count == 0:
        info.error_code, info.error = "no_packets", "the track is declared but holds no audio; the file may be cut off"
    return info


def _plain_codec_name(name: str) -> str:
    return {"mp3float": "mp3", "mp2float": "mp2", "mp1float": "mp1", "dca": "dts"}.get(name, name)


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
        origin_s = _origin_s(container)
        if seek_s is not None:
            try:
                container.seek(math.floor((seek_s + origin_s) / (stream.time_base or 1)), stream=stream, backward=True)
            except av.error.FFmpegError:
                return
        joiner = _Joiner(first_s, report)
        position: int | None = None
        rate = 0
        suspected = 0
        for frame in _frames(container, stream, report):
            if frame.sample_rate != rate:
                if position is not None:
                    position = round(position * frame.sample_rate / rate)
                rate = frame.sample_rate
            stamped = None
            if is_timed and frame.pts is not None and frame.time_base is not None:
                stamped = round((frame.pts * frame.time_base - _fraction(origin_s)) * rate)
            if position is None:
                if stamped is None and seek_s is not None:
                    return
                position = stamped if stamped is not None else 0
            drift = stamped - position if stamped is not None else 0
            skip = 0
            if abs(drift) <= JITTER_S * rate:
                suspected = 0
            elif abs(drift - suspected) > JITTER_S * rate:
                # One frame may be stamped wrongly (Vorbis does so at every change of block size);
                # a jump is real once the next frame agrees.
                suspected = drift
            else:
                report.gaps += 1
                suspected = 0
                if drift > 0:
                    position += drift
                else:
                    skip = -drift  # the stamps repeat time already heard
            samples, names = joiner.samples(frame)
            if skip:
                samples = samples[:, skip:]
            yield from joiner.add(position, rate, samples, names)
            position += samples.shape[1]
            if position >= stop_s * rate:
                break
        yield from joiner.flush()


def _fraction(seconds: float) -> float:
    # Container start times are whole microseconds; rounding removes the float's own noise.
    return round(seconds, 6)


def _frames(
    container: av.container.InputContainer, stream: av.audio.stream.AudioStream, report: DecodeReport
) -> Iterator[av.AudioFrame]:
    """Decode packet by packet: one bad packet costs its own samples and no more."""
    packets = container.demux(stream)
    errors = 0
    while errors < MAX_CONSECUTIVE_ERRORS:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.error.FFmpegError as error:
            report.note(error)
            errors += 1
            continue
        errors = 0
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, ValueError) as error:
            report.note(error)
            continue
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

    def samples(self, frame: av.AudioFrame) -> tuple[np.ndarray, tuple[str, ...]]:
        """Samples of a frame as float32 (channels, time), and the channels' names."""
        layout = frame.layout
        form = (frame.format.name, layout.name, layout.nb_channels, frame.sample_rate)
        if form != self._format:
            if self._format is not None and form[1:] != self._format[1:]:
                self.report.format_changes += 1
            # Always through packed float: planar frames of more than 8 channels crash to_ndarray().
            self._converter = av.AudioResampler(format="flt", layout=layout, rate=frame.sample_rate)
            self._format = form
            self._names = tuple(channel_name(layout, index) for index in range(layout.nb_channels))
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
        joined = np.concatenate(self._parts, axis=1)
        # Damaged streams decode to NaN or to thousands of full scales; players clip, and so do we.
        np.nan_to_num(joined, copy=False, nan=0.0, posinf=1.0, neginf=-1.0)
        np.clip(joined, -1.0, 1.0, out=joined)
        yield Block(self._start, self._rate, np.ascontiguousarray(joined), self._part_names)
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
