"""Opens and probes media files that nobody vetted, with PyAV (FFmpeg)."""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import av
import av.error
from av.stream import Discard

from udfs import cut_off, encryption
from udfs.packets import PacketMeasure

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
MAX_CONSECUTIVE_ERRORS = 64
MOST_CHUNKS = 1000  # before a WAV file's data
LONGEST_TAIL = 1 << 16  # bytes behind a WAV file's data that are not worth a word
NO_SOUND = (b"ID3", b"TAG", b"\xff\xd8\xff", b"\x89PNG", b"PK")  # how tags, pictures and archives begin
# Why a file cannot be opened though its storage is well: rights and names. All else (a stale handle, a dead server) passes.
OF_THE_FILE = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL})
MOST_ENCRYPTED = 0.5  # of a track whose rest is worth scanning
SHORTFALL_S = 1.0  # decoders pad the ends of a track; what is missing below this is not damage
# What a header may claim and still be believed: telephone to measurement microphones, mono to the largest beds of objects.
SAMPLE_RATES_HZ = (4_000, 768_000)
HIGHEST_DSD_HZ = 2_822_400  # FFmpeg counts eight bits as a sample: DSD512
MAX_CHANNELS = 128


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
    encrypted_share: float = 0.0  # of the packets; what is not encrypted can be scanned
    begins_s: float = 0.0  # of `duration_s`: how long the title runs before the track begins
    beyond_s: float = 0.0  # how much more the file holds than its header says, which no player plays
    ends_midway: bool = False  # the file ends within a page of its container


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
        MediaError: not_found, symlink, not_a_file, empty, unreadable, storage_error, no_index, not_media.
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
        if _is_bare(os.path.dirname(path)):
            message = "neither the file nor anything beside it is there; is its storage mounted, on every node?"
            raise MediaError("storage_error", message) from error
        raise MediaError("not_found", "the file does not exist (any more)") from error
    except OSError as error:
        code = "unreadable" if error.errno in OF_THE_FILE else "storage_error"
        raise MediaError(code, f"the file cannot be opened: {describe(error)}") from error
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
            if cut_off.lacks_index(descriptor):
                raise MediaError(
                    "no_index",
                    "an MP4 or QuickTime file without its index (moov), whose recording or copying broke off; deliver it again",
                ) from error
            raise MediaError(
                "not_media", f"expected an audio or video file, but no allowed format opens it: {describe(error)}"
            ) from error
        with container:
            yield container
    finally:
        os.close(descriptor)


def _is_bare(folder: str) -> bool:
    """Whether a folder, or the nearest one above it that is there, is empty, as is one that something is to be mounted in."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except (FileNotFoundError, NotADirectoryError):
        above = os.path.dirname(folder)
        return above not in ("", folder) and _is_bare(above)
    except OSError:
        return False


def shortfall_s(announced_s: float) -> float:
    """Seconds by which a track may be shorter than its header or its packets announce: decoders pad its ends."""
    return max(min(SHORTFALL_S, 0.25 + 0.5 * announced_s), 0.01 * announced_s)


def is_cut_short(declared_s: float | None, duration_s: float) -> bool:
    """Whether a header announces more than the packets hold."""
    return declared_s is not None and declared_s > duration_s + shortfall_s(declared_s)


def probe(path: str, progress: Callable[[], None] = lambda: None) -> list[TrackInfo]:
    """Describe every audio track of a file, from its packets: nothing is decoded.

    All packets are read once, which gives each track a content hash that survives a new name or
    container, and a duration that does not come from a header.

    Args:
        path: local file.
        progress: called with each packet.

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
        container_name = container.format.name.split(",")[0]
        measures = {stream.index: PacketMeasure(stream, container_name) for stream in streams}
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
            progress()
            if packet.size and packet.stream_index in measures:
                measures[packet.stream_index].add(packet)
        origin = origin_s(container)
        packaged = {index for index, measure in measures.items() if measure.is_encrypted}
        encryptions = encryption.of_tracks(path, container_name, streams, packaged)
        tracks = [
            _track_info(number, stream, measures[stream.index], container_name, origin, encryptions[number])
            for number, stream in enumerate(streams)
        ]
        if container_name in DECLARING_CONTAINERS or (container_name == "mp3" and _has_xing_header(path)):
            longest_s = max(track.duration_s for track in tracks)
            for track, stream in zip(tracks, streams, strict=True):
                # Matroska has one duration for all of its tracks, which the longest one is to reach.
                is_own = container_name != "matroska" or track.duration_s > longest_s - SHORTFALL_S
                if stream.duration is not None and stream.time_base is not None:
                    track.declared_s = float(stream.duration * stream.time_base) if is_own else None
                elif container.duration is not None and len(container.streams) == len(streams) and is_own:
                    track.declared_s = container.duration / av.time_base
                if container_name == "wav" and track.declared_s is not None:
                    track.declared_s *= _riff_excess(path)
        if container_name == "wav":
            tracks[0].beyond_s = _beyond_data_s(path)
        if container_name == "ogg" and cut_off.ends_within_page(path):
            for track in tracks:
                track.ends_midway = True
        return tracks


def _riff_excess(path: str) -> float:
    """How many times its size a WAV file claims to be: FFmpeg quietly corrects the duration of cut-off ones."""
    with open(path, "rb") as file:
        head = file.read(8)
        size = os.fstat(file.fileno()).st_size
    claimed = int.from_bytes(head[4:8], "little") + 8
    is_stream = head[:4] != b"RIFF" or claimed in (8, 0xFFFFFFFF + 8)
    return 1.0 if is_stream or claimed <= size else claimed / size


def _beyond_data_s(path: str) -> float:
    """Seconds of a WAV file behind what its header calls the data: sizes of 32 bits overflow, recorders die, editors err.

    What follows the data by rights, further chunks and tags, is none of it.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        if file.read(4) != b"RIFF":  # RF64 and BW64 have sizes of 64 bits
            return 0.0
        at, byte_rate = 12, 0
        for _ in range(MOST_CHUNKS):
            file.seek(at)
            name, length = file.read(4), int.from_bytes(file.read(4), "little")
            if name == b"fmt ":
                byte_rate = int.from_bytes(file.read(16)[8:12], "little")
            if name == b"data" or len(name) < 4:
                break
            at += 8 + length + length % 2
        end = at + 8 + length
        beyond = size - end
        is_open = length in (0, 0xFFFFFFFF)  # a stream, whose end is the file's
        if name != b"data" or is_open or not byte_rate or beyond <= max(LONGEST_TAIL, size // 100):
            return 0.0
        file.seek(end)
        first = file.read(LONGEST_TAIL).lstrip(b"\0")[:8]  # chunks begin at even places; some writers pad further
        is_named = len(first) >= 4 and all(32 <= byte < 127 for byte in first[:4])
        if is_named or first.startswith(NO_SOUND):  # a chunk, or something appended
            return 0.0
        for place in range(end, size, max(LONGEST_TAIL, beyond // 16)):  # here and there: padding is all zeros
            file.seek(place)
            if any(file.read(LONGEST_TAIL)):
                return beyond / byte_rate
    return 0.0


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


def origin_s(container: av.container.InputContainer) -> float:
    """Where the container's clock stands at the title's zero, seconds."""
    return float(container.start_time / av.time_base) if container.start_time is not None else 0.0


def _track_info(
    number: int,
    stream: av.audio.stream.AudioStream,
    measure: PacketMeasure,
    container: str,
    origin_s: float,
    encrypted: encryption.Encryption,
) -> TrackInfo:
    codec = stream.codec_context
    name = codec.name if codec is not None else "unknown"
    rate_hz, channels = (int(codec.sample_rate or 0), int(codec.channels or 0)) if codec is not None else (0, 0)
    is_timed, begins_s, duration_s = measure.clock(origin_s)
    is_pcm = name.startswith("pcm_") and container in SEEK_EXACT_PCM_CONTAINERS
    info = TrackInfo(
        track=number,
        codec=measure.codec,
        container=container,
        language=stream.metadata.get("language"),
        sample_rate_hz=rate_hz,
        channels=channels,
        channel_layout=codec.layout.name if channels else "",
        duration_s=duration_s,
        content_hash=measure.hash.hexdigest(),
        can_seek=is_timed and (is_pcm or (name, container) in SEEK_EXACT),
        is_timed=is_timed,
        encrypted_share=encrypted.share,
        begins_s=begins_s,
    )
    if encrypted.share > MOST_ENCRYPTED:
        info.error_code = "encrypted"
        how_much = "the track" if encrypted.share == 1.0 else f"{encrypted.share:.0%} of the track"
        info.error = f"{how_much} is encrypted ({encrypted.scheme}); deliver it decrypted"
    elif measure.is_by_chance:
        info.error_code = "not_media"
        info.error = (
            f"expected an audio or video file, found data in which a few bytes look like {info.codec}, but its {measure.count} "
            f"packets are no stream of frames"
        )
    elif not any(name == known or (known.endswith("_") and name.startswith(known)) for known in CODECS):
        info.error_code, info.error = (
            "unsupported_codec",
            f"codec {name!r} is not among the decoders that are allowed here",
        )
    elif info.sample_rate_hz and not SAMPLE_RATES_HZ[0] <= info.sample_rate_hz <= _highest_rate_hz(name):
        info.error_code = "bad_format"
        info.error = (
            f"expected a sample rate of {SAMPLE_RATES_HZ[0] / 1000:g} to {_highest_rate_hz(name) / 1000:g} kHz, the header "
            f"claims {info.sample_rate_hz} Hz"
        )
    elif info.channels > MAX_CHANNELS:
        info.error_code = "bad_format"
        info.error = f"expected at most {MAX_CHANNELS} channels, the header claims {info.channels}"
    elif measure.count == 0:
        info.error_code, info.error = "no_packets", "the track is declared but holds no audio; the file may be cut off"
    return info


def _highest_rate_hz(codec: str) -> int:
    return HIGHEST_DSD_HZ if codec.startswith("dsd_") else SAMPLE_RATES_HZ[1]
