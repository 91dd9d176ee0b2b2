"""Files whose headers lie, are unusual, or announce what is no sound."""

import struct
import wave

import av
import numpy as np
from hostile_case import RATE, REJECTED, SECONDS, Maker, either, ok, partial, rejected
from signals import crc, music_like, write

from udfs.encode import AudioTrack, write_media


def lying_headers(maker: Maker) -> None:
    anything = {"status": frozenset({"ok", "partial", REJECTED})}
    bad = rejected(
        "not_media", "no_audio", "no_packets", "bad_format", "unsupported_codec", "decode_errors", "short_decode"
    )
    maker.add("rate 0.wav", "header lies", _wav(maker, rate=0), **bad)
    maker.add("rate 1.wav", "header lies", _wav(maker, rate=1, data=maker.rng.bytes(4000)), **bad)
    maker.add("rate 4G.wav", "header lies", _wav(maker, rate=0xFFFFFFFF), **bad)
    maker.add("rate 2M.wav", "header lies", _wav(maker, rate=2_000_000), **bad)
    maker.add("channels 0.wav", "header lies", _wav(maker, channels=0, block=4), **bad)
    maker.add("channels 65535.wav", "header lies", _wav(maker, channels=65535), **bad)
    maker.add("channels 600.wav", "header lies", _wav(maker, channels=600), **bad)
    maker.add("bits 0.wav", "header lies", _wav(maker, bits=0, block=4), **bad)
    maker.add("block 0.wav", "header lies", _wav(maker, block=0), **either(ok(), bad))
    maker.add(
        "size 4G.wav", "header lies", _wav(maker, size=0xFFFFFFFE), **either(ok(), partial("truncated", least_s=3.0))
    )
    maker.add("size 0.wav", "header lies", _wav(maker, size=0), **either(ok(), rejected("no_packets", "not_media")))
    maker.add(
        "tag unknown.wav",
        "header lies",
        _wav(maker, tag=0x7A21),
        **rejected("unsupported_codec"),
    )
    flac = bytearray(maker.good(".flac"))
    flac[21:26] = bytes([flac[21] & 0xF0 | 0x0F, 0xFF, 0xFF, 0xFF, 0xFF])  # 16 days of samples
    maker.add("16 days.flac", "header lies", bytes(flac), **partial("truncated", least_s=3.0))
    flac = bytearray(maker.good(".flac"))
    flac[21:26] = bytes([flac[21] & 0xF0, 0, 0, 0, 100])  # 100 samples
    maker.add(
        "100 samples.flac",
        "header lies",
        bytes(flac),
        **either(ok(), partial("short_decode", "truncated", "decode_errors", "time_jumps")),
    )
    flac = bytearray(maker.good(".flac"))
    flac[18:21] = bytes([0, 0, flac[20] & 0x0F])  # rate 0
    maker.add(
        "rate 0.flac",
        "header lies",
        bytes(flac),
        **either(ok(), partial("decode_errors", "format_changes", "time_jumps", "truncated"), bad),
    )
    for name, box in (("long mvhd.m4a", b"mvhd"), ("long mdhd.m4a", b"mdhd")):
        data = bytearray(maker.good(".m4a"))
        at = data.find(box)
        data[at + 20 : at + 24] = b"\x7f\xff\xff\xff"
        maker.add(name, "header lies", bytes(data), **either(ok(), partial("truncated", least_s=3.0)))
    data = bytearray(maker.good(".m4a"))
    at = data.find(b"mdhd")
    data[at + 16 : at + 20] = b"\0\0\0\0"  # time scale 0
    maker.add("time scale 0.m4a", "header lies", bytes(data), **anything)
    data = bytearray(maker.good(".m4a"))
    at = data.find(b"stsz")
    data[at + 12 : at + 16] = b"\x7f\xff\xff\xff"  # two billion samples
    maker.add("2G samples.m4a", "header lies", bytes(data), **anything)
    data = bytearray(maker.good(".opus"))
    at = data.find(b"OpusHead")
    data[at + 9] = 255  # channels
    maker.add(
        "255 channels.opus",
        "header lies",
        bytes(data),
        **either(ok(), partial("decode_errors", "short_decode", "format_changes"), bad),
    )
    data = bytearray(maker.good(".mka"))
    at = data.find(b"\x44\x89")  # Duration
    data[at + 3 : at + 11] = struct.pack(">d", 1e15)
    maker.add("30 thousand years.mka", "header lies", bytes(data), **partial("truncated", least_s=3.0))
    maker.add(
        "deep boxes.mp4",
        "header lies",
        b"".join(struct.pack(">I4s", 8 * (4000 - n), b"moov") for n in range(3999)),
        **rejected("not_media", "no_audio"),
    )


def _wav(
    maker: Maker,
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
        data = np.round(maker.music.T * 32767).astype("<i2").tobytes()
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


def other_streams(maker: Maker) -> None:
    for suffix in (".mp4", ".mkv"):
        path = maker.outside / f"silent{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=5)
            stream.width, stream.height, stream.pix_fmt = 64, 36, "yuv420p"
            for number in range(10):
                frame = av.VideoFrame.from_ndarray(np.zeros((36, 64, 3), np.uint8), format="rgb24")
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        maker.add(f"picture only{suffix}", "no audio track", path.read_bytes(), **rejected("no_audio"))
    picture = b"\x89PNG\r\n\x1a\n" + maker.rng.bytes(3000)
    block = (
        struct.pack(">I", 3)
        + struct.pack(">I", 9)
        + b"image/png"
        + bytes(4)
        + bytes(16)
        + struct.pack(">I", len(picture))
        + picture
    )
    flac = maker.good(".flac")
    header = bytearray(flac[4:42])
    header[0] &= 0x7F  # another metadata block follows
    last = flac[4] & 0x80
    rest = flac[42:]
    covered = b"fLaC" + bytes(header) + bytes([6 | last]) + len(block).to_bytes(3, "big") + block + rest
    maker.add("cover.flac", "cover art", covered, **ok())
    body = b"\0image/png\0\x03\0" + picture
    size = len(body) + 10
    packed = bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127])
    tag = b"ID3\x03\0\0" + packed + b"APIC" + struct.pack(">I", len(body)) + b"\0\0" + body
    maker.add("cover.mp3", "cover art", tag + maker.good(".mp3"), **either(ok(), partial("truncated", "decode_errors")))
    path = maker.outside / "film.mkv"
    write_media(
        path,
        [AudioTrack(maker.music, RATE, "stereo", "eng"), AudioTrack(maker.music[:1], RATE, "mono", "deu")],
        picture=True,
    )
    maker.add("two tracks.mkv", "data streams", path.read_bytes(), **ok(), tracks=2)
    maker.add(
        "one unknown codec.mkv",
        "data streams",
        path.read_bytes()[::-1].replace(b"CAA_A", b"ZYX_A", 1)[::-1],  # that of the last track
        **either(ok(), rejected("unsupported_codec")),
        tracks=2,
    )
    path = write(maker.outside / "data.mkv", maker.music, codec="flac")
    data = path.read_bytes()
    note = b"'; drop table tracks; --"
    name, kind = b"../../notes.txt", b"text/plain"
    attached = b"\x46\x6e" + bytes([0x80 | len(name)]) + name + b"\x46\x60" + bytes([0x80 | len(kind)]) + kind
    attached += b"\x46\x5c" + bytes([0x80 | len(note)]) + note + b"\x46\xae\x81\x07"
    attached = b"\x61\xa7" + bytes([0x80 | len(attached)]) + attached
    data += b"\x19\x41\xa4\x69" + bytes([0x80 | len(attached)]) + attached  # behind the audio, as EBML
    maker.add("attachment.mkv", "data streams", data, **ok())


def channels_and_formats(maker: Maker) -> None:
    for channels in (1, 3, 7, 12, 24, 64):
        wave_ = np.tile(np.round(maker.music[:1].T * 32767).astype("<i2"), (1, channels))
        path = maker.outside / f"{channels}.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(channels)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(wave_.tobytes())
        maker.add(f"{channels} channels.wav", "channels", path.read_bytes(), **ok())
    left = np.ascontiguousarray(maker.music.T)
    forms: dict[str, tuple[int, int, np.ndarray]] = {
        "unsigned 8": (1, 8, np.round(left * 127 + 128).astype("u1")),
        "32 bits": (1, 32, np.round(left * 2147483000.0).astype("<i4")),
        "float": (3, 32, left.astype("<f4")),
        "double": (3, 64, left.astype("<f8")),
    }
    for name, (tag, bits, samples) in forms.items():
        maker.add(f"{name}.wav", "sample formats", _wav(maker, tag=tag, bits=bits, data=samples.tobytes()), **ok())
    packed = np.round(left * 8388607).astype("<i4").view("u1").reshape(-1, 4)[:, :3].tobytes()
    maker.add("24 bits.wav", "sample formats", _wav(maker, bits=24, data=packed), **ok())
    for name, value in (("nan", np.nan), ("infinities", np.inf), ("huge", 1e30), ("denormal", 1e-42)):
        samples = left.astype("<f4").copy()
        samples[5000:60_000] = value
        samples[5000:60_000:2] *= -1
        maker.add(f"{name}.wav", "sample formats", _wav(maker, tag=3, bits=32, data=samples.tobytes()), **ok())
    for rate in (8000, 11_025, 22_050, 32_000, 88_200, 96_000, 176_400, 192_000, 352_800, 384_000):
        samples = np.round(music_like(SECONDS, rate, maker.rng)[:1].T * 16000).astype("<i2").tobytes()
        maker.add(f"{rate} Hz.wav", "sample rates", _wav(maker, rate=rate, channels=1, data=samples), **ok())


def long_silence(maker: Maker) -> None:
    seconds = 2 * 3600
    maker.add("two hours of nothing.flac", "compressed silence", silent_flac(seconds), **ok(seconds, 2.0))


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
