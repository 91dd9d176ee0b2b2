"""What a stream's packets say of it without being decoded: content hash, extent, order, whether they are sound at all."""

import hashlib
from collections import Counter

import av
import av.audio.stream

# FFmpeg counts back from the end of an Ogg page to its begin; where Vorbis' blocks change size there, the stamps of the
# whole page are off by a quarter of the sizes' difference: 448 samples with libvorbis' at 32 kHz and above. A lost block of
# the longer ones is 1,024.
VORBIS_JITTER_S = 0.018
# FFmpeg takes one file in a thousand of any binary data for MPEG audio, or for a program or transport stream, by a few bytes
# that look like a frame's begin. Where it had no more to go by, packets must begin as frames of one stream do.
GUESSED_CONTAINERS = {"mp3", "mpeg", "mpegts"}
MPEG_AUDIO = {"mp1", "mp2", "mp3"}
FEWEST_FRAMES, MOST_BESIDE_FRAMES = 8, 0.5  # alike, and the share of packets that are none
LONGEST_PACKET_S = 1.0  # what a packet is believed of its length
ASKED_EVERY = 16  # packets, whether they are encrypted


class PacketMeasure:
    """Hash, extent and order of one stream's packets."""

    def __init__(self, stream: av.audio.stream.AudioStream, container: str) -> None:
        codec = stream.codec_context  # None where FFmpeg knows no such codec
        form = f"{codec.name}/{codec.sample_rate}/{codec.channels}/" if codec is not None else "unknown/0/0/"
        self.hash = hashlib.sha256(form.encode())
        self.time_base = stream.time_base
        is_vorbis = codec is not None and codec.name == "vorbis"
        self.jitter = VORBIS_JITTER_S / float(stream.time_base) if is_vorbis and stream.time_base else 0.0
        self.longest = round(LONGEST_PACKET_S / float(stream.time_base)) if stream.time_base else 0
        self.is_ogg, self.is_mov = container == "ogg", container == "mov"
        self.codec = _plain_codec_name(codec.name) if codec is not None else "unknown"
        is_guessed = self.codec in MPEG_AUDIO and container in GUESSED_CONTAINERS
        self.frames: Counter[int | None] | None = Counter() if is_guessed else None
        self.count = 0
        self.is_encrypted = False
        self.duration = 0
        self.first: int | None = None
        self.end: int | None = None
        self.last: int | None = None
        self.backward = 0

    def add(self, packet: av.Packet) -> None:
        """Take the stream's next packet in."""
        self.hash.update(packet)
        # Asking costs as much as hashing a small packet. A packaged title may begin in the clear, but goes on encrypted.
        if self.is_mov and self.count % ASKED_EVERY == 0 and packet.has_sidedata("encryption_info"):
            self.is_encrypted = True
        self.count += 1
        if self.frames is not None:
            self.frames[_mpeg_audio_form(memoryview(packet))] += 1
        duration = packet.duration or 0
        if self.is_ogg and duration >= 2**31:
            duration = 0  # the last page ends before its last packet begins, for which FFmpeg's -147 is 2**32 - 147
        self.duration += duration
        if packet.pts is None:
            return
        if self.first is None:
            self.first = packet.pts
        if self.last is not None:
            if packet.pts < self.last - self.jitter:
                self.backward += 1
            if not packet.duration:  # as WavPack in Matroska: the last is as long as the one before it
                duration = min(max(packet.pts - self.last, 0), self.longest)
        self.last = packet.pts
        self.end = max(self.end if self.end is not None else packet.pts, packet.pts + duration)

    @property
    def is_by_chance(self) -> bool:
        """Whether only a few bytes look like a stream of frames."""
        if self.frames is None or self.count == 0:
            return False
        alike = max((count for form, count in self.frames.items() if form is not None), default=0)
        # A short sound in MP3 has a few frames and nothing else. Of layer I nobody makes any, and ones look like it.
        is_short = alike == self.count >= 2 and self.codec != "mp1"
        no_frames = self.frames[None]  # not the count of those alike: spliced streams may be of several rates
        return not is_short and (alike < FEWEST_FRAMES or no_frames > MOST_BESIDE_FRAMES * self.count)

    def clock(self, origin_s: float) -> tuple[bool, float, float]:
        """What the packets say of time: are their stamps usable; where on the title's time line does the track begin and end?

        Args:
            origin_s: where the container's clock stands at the title's zero.

        Returns:
            Whether they are, and the two in seconds; where they are not, zero and the sum of the packets' lengths.
        """
        tick = float(self.time_base) if self.time_base else 0.0
        counted_s = self.duration * tick
        extent_s = (self.end * tick - origin_s) if self.end is not None else counted_s
        start_s = (self.first * tick - origin_s) if self.first is not None else 0.0
        # Stamps that run backwards, or that claim far more time than the packets hold, are not a clock.
        is_timed = self.first is not None and self.backward == 0
        if counted_s > 0 and extent_s - max(start_s, 0.0) > 1.5 * counted_s + 60.0:
            is_timed = False
        return is_timed, max(start_s, 0.0) if is_timed else 0.0, max(extent_s if is_timed else counted_s, 0.0)


def _mpeg_audio_form(packet: memoryview) -> int | None:
    """Version, layer and sampling rate (ISO/IEC 11172-3, 2.4.2.3), which one stream does not change; None: no frame's begin."""
    header = int.from_bytes(packet[:3], "big")
    is_reserved = (
        (header >> 11) & 3 == 1 or (header >> 9) & 3 == 0 or (header >> 4) & 15 == 15 or (header >> 2) & 3 == 3
    )
    return header & 0xFFFE0C if header >> 13 == 0x7FF and not is_reserved else None


def _plain_codec_name(name: str) -> str:
    return {"mp3float": "mp3", "mp2float": "mp2", "mp1float": "mp1", "dca": "dts"}.get(name, name)
