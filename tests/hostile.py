"""Makes files that nobody vetted: broken, lying and hostile ones, each with the row that a scan must leave of it."""

import os
import socket
import stat
import struct
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import encrypted_files
import numpy as np
import ogg
from signals import crc, music_like, write, write_as

from udfs.encode import AudioTrack, write_media

RATE = 48_000
SECONDS = 3.2
SUFFIXES = (".flac", ".wav", ".mp3", ".m4a", ".aac", ".mp4", ".mka", ".opus", ".webm", ".mkv")
REJECTED = "rejected"


@dataclass(frozen=True)
class Case:
    """A file and what its rows in `tracks` may say.

    Args:
        name: path below the folder, bytes.
        group: what kind of trouble it is.
        status: allowed values of `tracks.status`.
        codes: allowed values of `tracks.error_code`; empty allows any that goes with the status.
        tracks: rows expected.
        heard_s: seconds that must have been decoded (least, most).
    """

    name: bytes
    group: str
    status: frozenset[str]
    codes: frozenset[str | None] = frozenset()
    tracks: int = 1
    heard_s: tuple[float, float] = (0.0, 1e9)


def ok(seconds: float = SECONDS, slack: float = 0.2) -> dict[str, Any]:
    return {
        "status": frozenset({"ok"}),
        "codes": frozenset({None}),
        "heard_s": (seconds - slack, seconds + slack),
    }


def rejected(*codes: str) -> dict[str, Any]:
    return {"status": frozenset({REJECTED}), "codes": frozenset(codes), "heard_s": (0.0, 0.0)}


def partial(*codes: str, least_s: float = 0.0, most_s: float = SECONDS + 0.2) -> dict[str, Any]:
    return {"status": frozenset({"partial"}), "codes": frozenset(codes), "heard_s": (least_s, most_s)}


def either(*choices: dict[str, Any]) -> dict[str, Any]:
    return {
        "status": frozenset().union(*(choice["status"] for choice in choices)),
        "codes": frozenset().union(*(choice["codes"] for choice in choices)),
        "heard_s": (min(choice["heard_s"][0] for choice in choices), max(choice["heard_s"][1] for choice in choices)),
    }


class Maker:
    """Writes the files into a folder and keeps the list of cases."""

    def __init__(self, folder: Path, seed: int = 1) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rng = np.random.default_rng(seed)
        self.music = music_like(SECONDS, RATE, self.rng) * 0.5
        self.cases: list[Case] = []
        self.outside = folder.parent / f"{folder.name}-outside"
        self.outside.mkdir(exist_ok=True)
        self.sources = {suffix: write(self.outside / f"good{suffix}", self.music) for suffix in SUFFIXES}

    def add(self, name: str | bytes, group: str, content: bytes | None, **expected: Any) -> Path:
        raw = os.fsencode(name)
        path = Path(os.fsdecode(os.path.join(os.fsencode(self.folder), raw)))
        if content is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self.cases.append(Case(raw, group, **expected))
        return path

    def good(self, suffix: str) -> bytes:
        return self.sources[suffix].read_bytes()

    def make(self) -> list[Case]:
        for step in (
            self.nothing_in_them,
            self.cut_off,
            self.wrong_names,
            self.lying_headers,
            self.changing_midway,
            self.damaged_packets,
            self.time_stamps,
            self.encrypted,
            self.other_streams,
            self.channels_and_formats,
            self.long_silence,
            self.names,
            self.not_files,
            self.playlists,
        ):
            step()
        return self.cases

    def nothing_in_them(self) -> None:
        for suffix in SUFFIXES:
            self.add(f"empty{suffix}", "empty", b"", **rejected("empty"))
            self.add(f"random{suffix}", "random bytes", self.rng.bytes(20_000), **rejected("not_media", "no_audio"))
        self.add("zeros.wav", "random bytes", bytes(50_000), **rejected("not_media", "no_audio"))
        self.add("one byte.mp3", "random bytes", b"\xff", **rejected("not_media"))
        self.add("text.flac", "random bytes", b"this is no audio\n" * 400, **rejected("not_media"))
        self.add("page.mp4", "random bytes", b"<html><script>alert(1)</script></html>" * 50, **rejected("not_media"))
        self.add(
            "archive.wav", "random bytes", b"PK\x03\x04" + self.rng.bytes(9000), **rejected("not_media", "no_audio")
        )

    def cut_off(self) -> None:
        # Containers that say how long they are; of the others nobody can know, and what is there is scanned.
        declared = {".flac", ".wav", ".mp3", ".mka", ".mkv", ".webm"}
        for suffix in SUFFIXES:
            data = self.good(suffix)
            half = data[: len(data) // 2]
            if suffix in (".m4a", ".mp4"):  # the index comes last
                expected = rejected("not_media", "no_audio", "no_packets")
            elif suffix in declared:
                expected = partial("truncated", "decode_errors", "short_decode", least_s=0.5, most_s=2.6)
            else:
                expected = either(ok(1.6, 1.0), partial("decode_errors", "truncated", least_s=0.5, most_s=2.6))
            self.add(f"half{suffix}", "truncated", half, **expected)
            self.add(
                f"head{suffix}",
                "truncated",
                data[:60],
                **(
                    partial("truncated", most_s=0.01)  # four samples
                    if suffix == ".wav"
                    else rejected("not_media", "no_audio", "no_samples", "decode_errors", "short_decode")
                ),
            )
        fast = self._faststart()
        self.add(
            "half faststart.m4a",
            "truncated",
            fast[: len(fast) * 6 // 10],
            **partial("truncated", "decode_errors", "short_decode", least_s=0.5, most_s=2.6),
        )
        self.add(
            "no moov.mp4", "no moov", self._without(self.good(".mp4"), b"moov"), **rejected("not_media", "no_audio")
        )
        self.add(
            "no mdat.mp4",
            "no moov",
            self._without(self.good(".mp4"), b"mdat"),
            **rejected("not_media", "no_audio", "no_samples", "decode_errors", "truncated"),
        )
        self.add(
            "only moov size.mp4",
            "no moov",
            b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + b"\xff\xff\xff\xffmoov",
            **rejected("not_media", "no_audio"),
        )

    def _faststart(self) -> bytes:
        path = self.outside / "fast.m4a"
        with (
            av.open(str(self.sources[".m4a"])) as old,
            av.open(str(path), "w", format="ipod", options={"movflags": "faststart"}) as new,
        ):
            stream = new.add_stream_from_template(old.streams.audio[0])
            for packet in old.demux(audio=0):
                if packet.dts is not None:
                    packet.stream = stream
                    new.mux(packet)
        return path.read_bytes()

    @staticmethod
    def _without(data: bytes, box: bytes) -> bytes:
        at, out = 0, b""
        while at + 8 <= len(data):
            size, kind = struct.unpack(">I4s", data[at : at + 8])
            if kind != box:
                out += data[at : at + size]
            at += max(size, 8)
        return out

    def wrong_names(self) -> None:
        for real, worn in (
            (".flac", ".mp3"),
            (".mp3", ".wav"),
            (".opus", ".m4a"),
            (".wav", ".flac"),
            (".mka", ".aac"),
            (".m4a", ".mkv"),
        ):
            self.add(f"really{real}{worn}", "wrong extension", self.good(real), **ok())
        self.add("no extension", "wrong extension", self.good(".flac"), **ok())
        self.add(
            "junk before.mp3",
            "wrong extension",
            self.rng.bytes(500) + self.good(".mp3"),
            **either(ok(), partial("decode_errors", "time_jumps"), rejected("not_media")),
        )
        self.add(
            "junk after.flac",
            "wrong extension",
            self.good(".flac") + self.rng.bytes(3000),
            **either(ok(), partial("decode_errors", "time_jumps", "short_decode")),
        )
        self.add(
            "id3 before.flac", "wrong extension", b"ID3\x04\0\0\0\0\x0f\x7f" + bytes(2047) + self.good(".flac"), **ok()
        )

    def _wav(
        self,
        *,
        rate: int = RATE,
        channels: int = 2,
        bits: int = 16,
        tag: int = 1,
        block: int | None = None,
        data: bytes | None = None,
        size: int | None = None,
    ) -> bytes:
        if data is None:
            data = np.round(self.music.T * 32767).astype("<i2").tobytes()
        block = channels * bits // 8 if block is None else block
        form = struct.pack("<HHIIHH", tag, channels, rate, min(rate * block, 0xFFFFFFFF), block & 0xFFFF, bits)
        size = len(data) if size is None else size
        return (
            b"RIFF"
            + struct.pack("<I", min(36 + size, 0xFFFFFFFF))
            + b"WAVEfmt "
            + struct.pack("<I", 16)
            + form
            + b"data"
            + struct.pack("<I", size)
            + data
        )

    def lying_headers(self) -> None:
        anything = {"status": frozenset({"ok", "partial", REJECTED})}
        bad = rejected(
            "not_media", "no_audio", "no_packets", "bad_format", "unsupported_codec", "decode_errors", "short_decode"
        )
        self.add("rate 0.wav", "header lies", self._wav(rate=0), **bad)
        self.add("rate 1.wav", "header lies", self._wav(rate=1, data=self.rng.bytes(4000)), **bad)
        self.add("rate 4G.wav", "header lies", self._wav(rate=0xFFFFFFFF), **bad)
        self.add("rate 2M.wav", "header lies", self._wav(rate=2_000_000), **bad)
        self.add("channels 0.wav", "header lies", self._wav(channels=0, block=4), **bad)
        self.add("channels 65535.wav", "header lies", self._wav(channels=65535), **bad)
        self.add("channels 600.wav", "header lies", self._wav(channels=600), **bad)
        self.add("bits 0.wav", "header lies", self._wav(bits=0, block=4), **bad)
        self.add("block 0.wav", "header lies", self._wav(block=0), **either(ok(), bad))
        self.add(
            "size 4G.wav", "header lies", self._wav(size=0xFFFFFFFE), **either(ok(), partial("truncated", least_s=3.0))
        )
        self.add("size 0.wav", "header lies", self._wav(size=0), **either(ok(), rejected("no_packets", "not_media")))
        self.add(
            "tag unknown.wav",
            "header lies",
            self._wav(tag=0x7A21),
            **rejected("unsupported_codec"),
        )
        flac = bytearray(self.good(".flac"))
        flac[21:26] = bytes([flac[21] & 0xF0 | 0x0F, 0xFF, 0xFF, 0xFF, 0xFF])  # 16 days of samples
        self.add("16 days.flac", "header lies", bytes(flac), **partial("truncated", least_s=3.0))
        flac = bytearray(self.good(".flac"))
        flac[21:26] = bytes([flac[21] & 0xF0, 0, 0, 0, 100])  # 100 samples
        self.add(
            "100 samples.flac",
            "header lies",
            bytes(flac),
            **either(ok(), partial("short_decode", "truncated", "decode_errors", "time_jumps")),
        )
        flac = bytearray(self.good(".flac"))
        flac[18:21] = bytes([0, 0, flac[20] & 0x0F])  # rate 0
        self.add(
            "rate 0.flac",
            "header lies",
            bytes(flac),
            **either(ok(), partial("decode_errors", "format_changes", "time_jumps", "truncated"), bad),
        )
        for name, box in (("long mvhd.m4a", b"mvhd"), ("long mdhd.m4a", b"mdhd")):
            data = bytearray(self.good(".m4a"))
            at = data.find(box)
            data[at + 20 : at + 24] = b"\x7f\xff\xff\xff"
            self.add(name, "header lies", bytes(data), **either(ok(), partial("truncated", least_s=3.0)))
        data = bytearray(self.good(".m4a"))
        at = data.find(b"mdhd")
        data[at + 16 : at + 20] = b"\0\0\0\0"  # time scale 0
        self.add("time scale 0.m4a", "header lies", bytes(data), **{**anything})
        data = bytearray(self.good(".m4a"))
        at = data.find(b"stsz")
        data[at + 12 : at + 16] = b"\x7f\xff\xff\xff"  # two billion samples
        self.add("2G samples.m4a", "header lies", bytes(data), **{**anything})
        data = bytearray(self.good(".opus"))
        at = data.find(b"OpusHead")
        data[at + 9] = 255  # channels
        self.add(
            "255 channels.opus",
            "header lies",
            bytes(data),
            **either(ok(), partial("decode_errors", "short_decode", "format_changes"), bad),
        )
        data = bytearray(self.good(".mka"))
        at = data.find(b"\x44\x89")  # Duration
        data[at + 3 : at + 11] = struct.pack(">d", 1e15)
        self.add("30 thousand years.mka", "header lies", bytes(data), **partial("truncated", least_s=3.0))
        self.add(
            "deep boxes.mp4",
            "header lies",
            b"".join(struct.pack(">I4s", 8 * (4000 - n), b"moov") for n in range(3999)),
            **rejected("not_media", "no_audio"),
        )

    def changing_midway(self) -> None:
        other = music_like(2.0, RATE, self.rng)[:1] * 0.5

        def at(suffix: str, rate: int, name: str) -> bytes:
            return write(self.outside / f"{name}{suffix}", other, rate).read_bytes()

        changed = {
            **either(
                ok(5.2, 1.0),
                partial(
                    "format_changes",
                    "decode_errors",
                    "time_jumps",
                    "short_decode",
                    "truncated",
                    least_s=2.0,
                    most_s=6.0,
                ),
            )
        }
        self.add(
            "rate and channels change.aac",
            "changes midway",
            self.good(".aac") + at(".aac", 22_050 * 2, "other"),
            **changed,
        )
        self.add(
            "rate and channels change.mp3", "changes midway", self.good(".mp3") + at(".mp3", 44_100, "other"), **changed
        )
        self.add(
            "rate and channels change.flac",
            "changes midway",
            self.good(".flac") + at(".flac", 44_100, "other"),
            **changed,
        )
        self.add("chained.opus", "changes midway", self.good(".opus") + at(".opus", 48_000, "other"), **changed)
        self.add(
            "two of them.wav",
            "changes midway",
            self.good(".wav") + at(".wav", 44_100, "other"),
            **either(ok(), changed),
        )
        self.add("two of them.m4a", "changes midway", self.good(".m4a") + self.good(".m4a"), **either(ok(), changed))

    def damaged_packets(self) -> None:
        for suffix in SUFFIXES:
            data = bytearray(self.good(suffix))
            begin = len(data) * 4 // 10
            data[begin : begin + 1500] = self.rng.bytes(1500)
            # Damage in PCM and in MP3 is sound; elsewhere the decoder may or may not notice it.
            self.add(
                f"damaged{suffix}",
                "packets corrupted",
                bytes(data),
                **either(
                    ok(SECONDS, 1.6),
                    partial("decode_errors", "time_jumps", "short_decode", "truncated", "format_changes", least_s=1.0),
                ),
            )
            data = bytearray(self.good(suffix))
            data[begin : begin + 4000] = b""
            self.add(
                f"missing{suffix}",
                "packets missing",
                bytes(data),
                **either(
                    ok(SECONDS, 1.9),
                    partial("decode_errors", "time_jumps", "short_decode", "truncated", "format_changes", least_s=0.8),
                    rejected("not_media", "no_audio", "no_packets")
                    if suffix in (".m4a", ".mp4")
                    else partial("decode_errors", least_s=0.8),
                ),
            )
        for codec in ("flac", "aac"):
            lost = self._remuxed(f"lost {codec}.mka", codec, lambda number, packet: not 20 <= number < 25)
            self.add(
                f"lost {codec}.mka", "packets missing", lost, **partial("time_jumps", "decode_errors", least_s=2.0)
            )

    def _remuxed(self, name: str, codec: str, change: Callable[[int, Any], bool]) -> bytes:
        source = write(self.outside / f"source-{name}", self.music, codec=codec)
        target = self.outside / name
        with av.open(str(source)) as old, av.open(str(target), "w") as new:
            stream = new.add_stream_from_template(old.streams.audio[0])
            for number, packet in enumerate(old.demux(audio=0)):
                if packet.dts is None:
                    continue
                if change(number, packet):
                    packet.stream = stream
                    new.mux(packet)
        return target.read_bytes()

    def time_stamps(self) -> None:
        def jumping(by_s: float) -> Callable[[int, Any], bool]:
            def change(number: int, packet: Any) -> bool:
                if number >= 20:
                    packet.pts += round(by_s / packet.time_base)
                    packet.dts = packet.pts
                return True

            return change

        jumps = partial("time_jumps", "short_decode", "decode_errors", "truncated", least_s=2.0)
        self.add("jump of a minute.mka", "time stamps", self._remuxed("minute.mka", "aac", jumping(60.0)), **jumps)
        self.add(
            "jump of ten hours.mka",
            "time stamps",
            self._remuxed("hours.mka", "aac", jumping(36_000.0)),
            **either(ok(), jumps),
        )
        # Backwards: written by hand, for no muxer does it.
        data = bytearray(self.good(".mka"))
        clusters = [at for at in range(len(data) - 4) if data[at : at + 4] == b"\x1f\x43\xb6\x75"]
        for at in clusters[-1:]:
            stamp = data.find(b"\xe7", at)
            size = data[stamp + 1] & 0x7F
            data[stamp + 2 : stamp + 2 + size] = bytes(size)
        self.add(
            "back to zero.mka",
            "time stamps",
            bytes(data),
            **either(ok(), partial("time_jumps", "short_decode", "decode_errors", "truncated")),
        )
        pages = ogg.pages(self.good(".opus"))
        half = len(pages) // 2
        self.add(
            "granules stand still.opus",
            "time stamps",
            ogg.joined(pages[:half] + [replace(page, granule=5) for page in pages[half:]]),
            **either(
                ok(),
                partial("time_jumps", "short_decode", "decode_errors", "truncated", least_s=0.5),
                rejected("not_media", "no_packets"),
            ),
        )

    def encrypted(self) -> None:
        def plain(container: str, codec: str, options: dict[str, str], title: str | None = None) -> bytes:
            path = self.outside / f"plain.{container}"
            return write_as(path, container, codec, RATE, "stereo", options, self.music[0], title).read_bytes()

        stream, cinema = plain("mpegts", "ac3", {}), plain("mxf", "pcm_s24le", {})
        web = plain("webm", "libopus", {}, encrypted_files.TITLE)
        for name, content in {
            "packaged.mp4": plain("mp4", "aac", encrypted_files.CENC),
            "packaged opus.mp4": plain("mp4", "libopus", encrypted_files.CENC),
            "cinema.mxf": encrypted_files.mxf(cinema),
            "web.webm": encrypted_files.matroska(web),
            "off air.ts": encrypted_files.transport_stream(stream, 0.0, 1.0),
        }.items():
            self.add(name, "encrypted", content, **rejected("encrypted"))
        paid = encrypted_files.transport_stream(stream, 0.7, 1.0)
        self.add("off air, paid until then.ts", "encrypted", paid, **partial("encrypted", least_s=0.6 * SECONDS))

    def other_streams(self) -> None:
        for suffix in (".mp4", ".mkv"):
            path = self.outside / f"silent{suffix}"
            with av.open(str(path), "w") as container:
                stream = container.add_stream("mpeg4", rate=5)
                stream.width, stream.height, stream.pix_fmt = 64, 36, "yuv420p"
                for number in range(10):
                    frame = av.VideoFrame.from_ndarray(np.zeros((36, 64, 3), np.uint8), format="rgb24")
                    frame.pts = number
                    container.mux(stream.encode(frame))
                container.mux(stream.encode(None))
            self.add(f"picture only{suffix}", "no audio track", path.read_bytes(), **rejected("no_audio"))
        picture = b"\x89PNG\r\n\x1a\n" + self.rng.bytes(3000)
        block = (
            struct.pack(">I", 3)
            + struct.pack(">I", 9)
            + b"image/png"
            + bytes(4)
            + bytes(16)
            + struct.pack(">I", len(picture))
            + picture
        )
        flac = self.good(".flac")
        header = bytearray(flac[4:42])
        header[0] &= 0x7F  # another metadata block follows
        last = flac[4] & 0x80
        rest = flac[42:]
        covered = b"fLaC" + bytes(header) + bytes([6 | last]) + len(block).to_bytes(3, "big") + block + rest
        self.add("cover.flac", "cover art", covered, **ok())
        body = b"\0image/png\0\x03\0" + picture
        size = len(body) + 10
        packed = bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127])
        tag = b"ID3\x03\0\0" + packed + b"APIC" + struct.pack(">I", len(body)) + b"\0\0" + body
        self.add(
            "cover.mp3", "cover art", tag + self.good(".mp3"), **either(ok(), partial("truncated", "decode_errors"))
        )
        path = self.outside / "film.mkv"
        write_media(
            path,
            [AudioTrack(self.music, RATE, "stereo", "eng"), AudioTrack(self.music[:1], RATE, "mono", "deu")],
            picture=True,
        )
        self.add("two tracks.mkv", "data streams", path.read_bytes(), **ok(), tracks=2)
        self.add(
            "one unknown codec.mkv",
            "data streams",
            path.read_bytes()[::-1].replace(b"CAA_A", b"ZYX_A", 1)[::-1],  # that of the last track
            **either(ok(), rejected("unsupported_codec")),
            tracks=2,
        )
        path = write(self.outside / "data.mkv", self.music, codec="flac")
        data = path.read_bytes()
        note = b"'; drop table tracks; --"
        name, kind = b"../../notes.txt", b"text/plain"
        attached = b"\x46\x6e" + bytes([0x80 | len(name)]) + name + b"\x46\x60" + bytes([0x80 | len(kind)]) + kind
        attached += b"\x46\x5c" + bytes([0x80 | len(note)]) + note + b"\x46\xae\x81\x07"
        attached = b"\x61\xa7" + bytes([0x80 | len(attached)]) + attached
        data += b"\x19\x41\xa4\x69" + bytes([0x80 | len(attached)]) + attached  # behind the audio, as EBML
        self.add("attachment.mkv", "data streams", data, **ok())

    def channels_and_formats(self) -> None:
        for channels in (1, 3, 7, 12, 24, 64):
            wave_ = np.tile(np.round(self.music[:1].T * 32767).astype("<i2"), (1, channels))
            path = self.outside / f"{channels}.wav"
            with wave.open(str(path), "wb") as file:
                file.setnchannels(channels)
                file.setsampwidth(2)
                file.setframerate(RATE)
                file.writeframes(wave_.tobytes())
            self.add(f"{channels} channels.wav", "channels", path.read_bytes(), **ok())
        left = np.ascontiguousarray(self.music.T)
        forms: dict[str, tuple[int, int, np.ndarray]] = {
            "unsigned 8": (1, 8, np.round(left * 127 + 128).astype("u1")),
            "32 bits": (1, 32, np.round(left * 2147483000.0).astype("<i4")),
            "float": (3, 32, left.astype("<f4")),
            "double": (3, 64, left.astype("<f8")),
        }
        for name, (tag, bits, samples) in forms.items():
            self.add(f"{name}.wav", "sample formats", self._wav(tag=tag, bits=bits, data=samples.tobytes()), **ok())
        packed = np.round(left * 8388607).astype("<i4").view("u1").reshape(-1, 4)[:, :3].tobytes()
        self.add("24 bits.wav", "sample formats", self._wav(bits=24, data=packed), **ok())
        for name, value in (("nan", np.nan), ("infinities", np.inf), ("huge", 1e30), ("denormal", 1e-42)):
            samples = left.astype("<f4").copy()
            samples[5000:60_000] = value
            samples[5000:60_000:2] *= -1
            self.add(f"{name}.wav", "sample formats", self._wav(tag=3, bits=32, data=samples.tobytes()), **ok())
        for rate in (8000, 11_025, 22_050, 32_000, 88_200, 96_000, 176_400, 192_000, 352_800, 384_000):
            samples = np.round(music_like(SECONDS, rate, self.rng)[:1].T * 16000).astype("<i2").tobytes()
            self.add(f"{rate} Hz.wav", "sample rates", self._wav(rate=rate, channels=1, data=samples), **ok())

    def long_silence(self) -> None:
        seconds = 2 * 3600
        self.add("two hours of nothing.flac", "compressed silence", silent_flac(seconds), **ok(seconds, 2.0))

    def names(self) -> None:
        for name in (
            "with space.flac",
            "quote ' and \" double.flac",
            "'; DROP TABLE tracks; --.flac",
            "new\nline.flac",
            "tab\tand\rreturn.flac",
            "percent %41 %00 %.flac",
            "emoji \U0001f3b5 \U0001f468\u200d\U0001f469.flac",
            "right \u202e to left \u200f.flac",
            "<script>alert(1)<\u2215script>.flac",
            "&amp; <b>.flac",
            "$(touch pwned) `id` ;ls.flac",
            "back\\slash.flac",
            "-rf.flac",
            "col=val/part=1.flac",
            "_hidden.flac",
            ".hidden.flac",
            "a:b.flac",
            "question?mark#hash.flac",
            "{brace} [bracket] *.flac",
            "..flac",
            "~home.flac",
            "x" * 250 + ".flac",
            "/".join(["deep"] * 40) + "/down.flac",
            b"latin caf\xe9.flac",
            b"bytes \xff\xfe\x80.flac",
            "file:name.flac",
            "concat:a|b.flac",
            "pipe:0.flac",
        ):
            self.add(name, "names", self.good(".flac"), **ok())

    def not_files(self) -> None:
        (self.folder / "target.flac").write_bytes(self.good(".flac"))
        self.cases.append(Case(b"target.flac", "not files", **ok()))
        for name, target in (
            ("link inside.flac", "target.flac"),
            ("link outside.flac", str(self.sources[".flac"])),
            ("link to nothing.flac", "/nonexistent/file"),
            ("link to itself.flac", "link to itself.flac"),
            ("link to a folder", str(self.outside)),
            ("link to passwd.wav", "/etc/passwd"),
        ):
            (self.folder / name).symlink_to(target)
            self.cases.append(Case(os.fsencode(name), "symbolic links", **rejected("symlink")))
        (self.folder / "circle").mkdir()
        (self.folder / "circle" / "round").symlink_to(self.folder / "circle")
        self.cases.append(Case(b"circle/round", "symbolic links", **rejected("symlink")))
        os.mkfifo(self.folder / "fifo.wav")
        self.cases.append(Case(b"fifo.wav", "not files", **rejected("not_a_file")))
        (self.folder / "folder.wav").mkdir()  # empty: no title
        with socket.socket(socket.AF_UNIX) as listener:
            before = os.getcwd()
            os.chdir(self.folder)  # the name of a socket may have 107 bytes
            try:
                listener.bind("socket.wav")
            finally:
                os.chdir(before)
        self.cases.append(Case(b"socket.wav", "not files", **rejected("not_a_file")))
        try:
            os.mknod(self.folder / "zero.wav", stat.S_IFCHR | 0o600, os.makedev(1, 5))
            self.cases.append(Case(b"zero.wav", "not files", **rejected("not_a_file")))
        except PermissionError:
            pass  # only root makes devices
        self.add(
            "unreadable.flac",
            "not files",
            self.good(".flac"),
            **(ok() if os.geteuid() == 0 else rejected("unreadable")),
        ).chmod(0)

    def playlists(self) -> None:
        other = self.sources[".wav"]
        hls = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{0}\n#EXT-X-ENDLIST\n"
        texts = {
            "hls.mp3": hls,
            "hls.m3u8.flac": hls,
            "hls with key.mp3": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{0}"\n#EXTINF:10,\n{0}\n#EXT-X-ENDLIST\n',
            "m3u.mp3": "#EXTM3U\n#EXTINF:3,x\n{0}\n",
            "concat.mp3": "ffconcat version 1.0\nfile {0}\n",
            "concat quoted.flac": "ffconcat version 1.0\nfile '{0}'\nduration 3\n",
            "pls.mp3": "[playlist]\nNumberOfEntries=1\nFile1={0}\n",
            "cue.wav": 'FILE "{0}" WAVE\n TRACK 01 AUDIO\n  INDEX 01 00:00:00\n',
            "dash.mp4": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet mimeType="audio/mp4"><Representation id="1"><BaseURL>{0}</BaseURL></Representation></AdaptationSet></Period></MPD>',
            "asx.wma": '<asx version="3.0"><entry><ref href="{0}"/></entry></asx>',
            "asf reference.wma": "[Reference]\nRef1={0}\n",
            "sdp.mp3": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
            "smil.mp4": '<smil><body><audio src="{0}"/></body></smil>',
            "rtsp.mov": "RTSPtext\nrtsp://127.0.0.1/x\n",
            "imf.xml.mxf": '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2013"><Id>urn:uuid:1</Id></CompositionPlaylist>',
            "webvtt hls.m4a": '#EXTM3U\n#EXT-X-MAP:URI="{0}"\n#EXTINF:1,\n{0}\n',
        }
        for name, text in texts.items():
            for where, target in (("file", other), ("url", "http://127.0.0.1:9/trap.wav")):
                stem, suffix = os.path.splitext(name)
                self.add(
                    f"{stem} {where}{suffix}",
                    "playlists",
                    text.format(target).encode(),
                    **rejected("not_media", "no_audio"),
                )
        # A QuickTime film whose samples lie in another file.
        data = bytearray(self.good(".mp4"))
        at = data.find(b"url \0\0\0\x01")
        if at > 0:
            data[at : at + 8] = b"alis\0\0\0\0"
        self.add("external samples.mp4", "playlists", bytes(data), **{"status": frozenset({"ok", "partial", REJECTED})})


def silent_flac(seconds: int, rate: int = 8000) -> bytes:
    """A FLAC file of digital silence in a few kilobytes: constant subframes of 65,535 samples."""
    block = 65_535
    total = seconds * rate
    info = struct.pack(">HH", block, block) + bytes(6)
    info += ((rate << 44) | (0 << 41) | (15 << 36) | total).to_bytes(8, "big") + bytes(16)
    out = [b"fLaC", bytes([0x80]), len(info).to_bytes(3, "big"), info]
    for number, begin in enumerate(range(0, total, block)):
        length = min(block, total - begin)
        # sync, fixed block size; block size in 16 bits at the end (7), rate from the header (0); mono; 16 bits (4)
        head = (
            bytes([0xFF, 0xF8, 0x70, 0x08])
            + chr(number).encode("utf-8", "surrogatepass")
            + struct.pack(">H", length - 1)
        )
        frame = head + bytes([crc(head, 0x07, 8)]) + b"\0" + b"\0\0"  # a constant subframe of value 0
        out.append(frame + struct.pack(">H", crc(frame, 0x8005, 16)))
    return b"".join(out)


def mutations(sources: dict[str, bytes], count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Files that began as valid ones: flipped bits, cuts, splices, repeats, swapped headers. Same seed, same files."""
    rng = np.random.default_rng(seed)
    names = sorted(sources)
    for number in range(count):
        suffix = names[number % len(names)]
        data = bytearray(sources[suffix])
        kinds = []
        for _ in range(int(rng.integers(1, 4))):
            kind = str(rng.choice(["flip", "burst", "cut", "splice", "repeat", "header", "zero", "head flip"]))
            kinds.append(kind)
            size = len(data)
            at = int(rng.integers(0, size))
            span = int(min(rng.integers(1, 4000), max(1, size // 4)))
            if kind == "flip":
                for place in rng.integers(0, size, int(rng.integers(1, 40))):
                    data[place] ^= 1 << int(rng.integers(8))
            elif kind == "head flip":  # where the sizes and the counts are
                for place in rng.integers(0, min(size, 600), int(rng.integers(1, 12))):
                    data[place] ^= 1 << int(rng.integers(8))
            elif kind == "burst":
                data[at : at + span] = rng.bytes(span)
            elif kind == "cut":
                del data[at : at + span]
            elif kind == "repeat":
                data[at:at] = data[at : at + span]
            elif kind == "zero":
                data[at : at + span] = bytes(len(data[at : at + span]))
            else:
                other = sources[str(rng.choice(names))]
                if kind == "header":
                    cut = int(rng.integers(4, 2000))
                    data[:cut] = other[:cut]
                else:
                    begin = int(rng.integers(0, len(other)))
                    data[at:at] = other[begin : begin + span]
            if not data:
                data = bytearray(b"\0")
        yield f"{number:03d} {'+'.join(kinds)}{suffix}", bytes(data)
