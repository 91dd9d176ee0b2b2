"""Files whose sound is cut off, damaged, encrypted or not there."""

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import av
import encrypted_files
import ogg
from hostile_case import RATE, SECONDS, SUFFIXES, Maker, either, ok, partial, rejected
from signals import music_like, write, write_as


def nothing_in_them(maker: Maker) -> None:
    for suffix in SUFFIXES:
        maker.add(f"empty{suffix}", "empty", b"", **rejected("empty"))
        maker.add(f"random{suffix}", "random bytes", maker.rng.bytes(20_000), **rejected("not_media", "no_audio"))
    maker.add("zeros.wav", "random bytes", bytes(50_000), **rejected("not_media", "no_audio"))
    maker.add("one byte.mp3", "random bytes", b"\xff", **rejected("not_media"))
    maker.add("text.flac", "random bytes", b"this is no audio\n" * 400, **rejected("not_media"))
    maker.add("page.mp4", "random bytes", b"<html><script>alert(1)</script></html>" * 50, **rejected("not_media"))
    maker.add("archive.wav", "random bytes", b"PK\x03\x04" + maker.rng.bytes(9000), **rejected("not_media", "no_audio"))


def cut_off(maker: Maker) -> None:
    # Containers that say how long they are; of the others nobody can know, and what is there is scanned.
    declared = {".flac", ".wav", ".mp3", ".mka", ".mkv", ".webm"}
    for suffix in SUFFIXES:
        data = maker.good(suffix)
        half = data[: len(data) // 2]
        if suffix in (".m4a", ".mp4"):  # the index comes last
            expected = rejected("no_index")
        elif suffix == ".opus":
            expected = partial("truncated", least_s=0.5, most_s=2.6)
        elif suffix in declared:
            expected = partial("truncated", "decode_errors", "short_decode", least_s=0.5, most_s=2.6)
        else:
            expected = either(ok(1.6, 1.0), partial("decode_errors", "truncated", least_s=0.5, most_s=2.6))
        maker.add(f"half{suffix}", "truncated", half, **expected)
        maker.add(
            f"head{suffix}",
            "truncated",
            data[:60],
            **(
                partial("truncated", most_s=0.01)  # four samples
                if suffix == ".wav"
                else rejected("not_media", "no_index", "no_audio", "no_samples", "decode_errors", "short_decode")
            ),
        )
    fast = _faststart(maker)
    maker.add(
        "half faststart.m4a",
        "truncated",
        fast[: len(fast) * 6 // 10],
        **partial("truncated", "decode_errors", "short_decode", least_s=0.5, most_s=2.6),
    )
    maker.add("no moov.mp4", "no moov", _without(maker.good(".mp4"), b"moov"), **rejected("no_index"))
    maker.add(
        "no mdat.mp4",
        "no moov",
        _without(maker.good(".mp4"), b"mdat"),
        **rejected("not_media", "no_audio", "no_samples", "decode_errors", "truncated"),
    )
    maker.add(
        "only moov size.mp4",
        "no moov",
        b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + b"\xff\xff\xff\xffmoov",
        **rejected("not_media", "no_audio"),
    )


def _faststart(maker: Maker) -> bytes:
    path = maker.outside / "fast.m4a"
    with (
        av.open(str(maker.sources[".m4a"])) as old,
        av.open(str(path), "w", format="ipod", options={"movflags": "faststart"}) as new,
    ):
        stream = new.add_stream_from_template(old.streams.audio[0])
        for packet in old.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    return path.read_bytes()


def _without(data: bytes, box: bytes) -> bytes:
    at, out = 0, b""
    while at + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind != box:
            out += data[at : at + size]
        at += max(size, 8)
    return out


def wrong_names(maker: Maker) -> None:
    for real, worn in (
        (".flac", ".mp3"),
        (".mp3", ".wav"),
        (".opus", ".m4a"),
        (".wav", ".flac"),
        (".mka", ".aac"),
        (".m4a", ".mkv"),
    ):
        maker.add(f"really{real}{worn}", "wrong extension", maker.good(real), **ok())
    maker.add("no extension", "wrong extension", maker.good(".flac"), **ok())
    maker.add(
        "junk before.mp3",
        "wrong extension",
        maker.rng.bytes(500) + maker.good(".mp3"),
        **either(ok(), partial("decode_errors", "time_jumps"), rejected("not_media")),
    )
    maker.add(
        "junk after.flac",
        "wrong extension",
        maker.good(".flac") + maker.rng.bytes(3000),
        **either(ok(), partial("decode_errors", "time_jumps", "short_decode")),
    )
    maker.add(
        "id3 before.flac", "wrong extension", b"ID3\x04\0\0\0\0\x0f\x7f" + bytes(2047) + maker.good(".flac"), **ok()
    )


def changing_midway(maker: Maker) -> None:
    other = music_like(2.0, RATE, maker.rng)[:1] * 0.5

    def at(suffix: str, rate: int, name: str) -> bytes:
        return write(maker.outside / f"{name}{suffix}", other, rate).read_bytes()

    changed = either(
        ok(5.2, 1.0),
        partial("format_changes", "decode_errors", "time_jumps", "short_decode", "truncated", least_s=2.0, most_s=6.0),
    )
    maker.add(
        "rate and channels change.aac",
        "changes midway",
        maker.good(".aac") + at(".aac", 22_050 * 2, "other"),
        **changed,
    )
    maker.add(
        "rate and channels change.mp3", "changes midway", maker.good(".mp3") + at(".mp3", 44_100, "other"), **changed
    )
    maker.add(
        "rate and channels change.flac",
        "changes midway",
        maker.good(".flac") + at(".flac", 44_100, "other"),
        **changed,
    )
    maker.add("chained.opus", "changes midway", maker.good(".opus") + at(".opus", 48_000, "other"), **changed)
    maker.add(
        "two of them.wav",
        "changes midway",
        maker.good(".wav") + at(".wav", 44_100, "other"),
        **either(ok(), changed),
    )
    maker.add("two of them.m4a", "changes midway", maker.good(".m4a") + maker.good(".m4a"), **either(ok(), changed))


def damaged_packets(maker: Maker) -> None:
    for suffix in SUFFIXES:
        data = bytearray(maker.good(suffix))
        begin = len(data) * 4 // 10
        data[begin : begin + 1500] = maker.rng.bytes(1500)
        # Damage in PCM and in MP3 is sound; elsewhere the decoder may or may not notice it.
        maker.add(
            f"damaged{suffix}",
            "packets corrupted",
            bytes(data),
            **either(
                ok(SECONDS, 1.6),
                partial("decode_errors", "time_jumps", "short_decode", "truncated", "format_changes", least_s=1.0),
            ),
        )
        data = bytearray(maker.good(suffix))
        data[begin : begin + 4000] = b""
        maker.add(
            f"missing{suffix}",
            "packets missing",
            bytes(data),
            **either(
                ok(SECONDS, 1.9),
                partial("decode_errors", "time_jumps", "short_decode", "truncated", "format_changes", least_s=0.8),
                rejected("no_index", "no_audio", "no_packets")
                if suffix in (".m4a", ".mp4")
                else partial("decode_errors", least_s=0.8),
            ),
        )
    for codec in ("flac", "aac"):
        lost = _remuxed(maker, f"lost {codec}.mka", codec, lambda number, packet: not 20 <= number < 25)
        maker.add(f"lost {codec}.mka", "packets missing", lost, **partial("time_jumps", "decode_errors", least_s=2.0))


def _remuxed(maker: Maker, name: str, codec: str, change: Callable[[int, Any], bool]) -> bytes:
    source = write(maker.outside / f"source-{name}", maker.music, codec=codec)
    target = maker.outside / name
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.audio[0])
        for number, packet in enumerate(old.demux(audio=0)):
            if packet.dts is None:
                continue
            if change(number, packet):
                packet.stream = stream
                new.mux(packet)
    return target.read_bytes()


def time_stamps(maker: Maker) -> None:
    def jumping(by_s: float) -> Callable[[int, Any], bool]:
        def change(number: int, packet: Any) -> bool:
            if number >= 20:
                packet.pts += round(by_s / packet.time_base)
                packet.dts = packet.pts
            return True

        return change

    jumps = partial("time_jumps", "short_decode", "decode_errors", "truncated", least_s=2.0)
    maker.add("jump of a minute.mka", "time stamps", _remuxed(maker, "minute.mka", "aac", jumping(60.0)), **jumps)
    maker.add(
        "jump of ten hours.mka",
        "time stamps",
        _remuxed(maker, "hours.mka", "aac", jumping(36_000.0)),
        **either(ok(), jumps),
    )
    # Backwards: written by hand, for no muxer does it.
    data = bytearray(maker.good(".mka"))
    clusters = [at for at in range(len(data) - 4) if data[at : at + 4] == b"\x1f\x43\xb6\x75"]
    for at in clusters[-1:]:
        stamp = data.find(b"\xe7", at)
        size = data[stamp + 1] & 0x7F
        data[stamp + 2 : stamp + 2 + size] = bytes(size)
    maker.add(
        "back to zero.mka",
        "time stamps",
        bytes(data),
        **either(ok(), partial("time_jumps", "short_decode", "decode_errors", "truncated")),
    )
    pages = ogg.pages(maker.good(".opus"))
    half = len(pages) // 2
    maker.add(
        "granules stand still.opus",
        "time stamps",
        ogg.joined(pages[:half] + [replace(page, granule=5) for page in pages[half:]]),
        **either(
            ok(),
            partial("time_jumps", "short_decode", "decode_errors", "truncated", least_s=0.5),
            rejected("not_media", "no_packets"),
        ),
    )


def encrypted(maker: Maker) -> None:
    def plain(container: str, codec: str, options: dict[str, str], title: str | None = None) -> bytes:
        path = maker.outside / f"plain.{container}"
        return write_as(path, container, codec, RATE, "stereo", options, maker.music[0], title).read_bytes()

    stream, cinema = plain("mpegts", "ac3", {}), plain("mxf", "pcm_s24le", {})
    web = plain("webm", "libopus", {}, encrypted_files.TITLE)
    for name, content in {
        "packaged.mp4": plain("mp4", "aac", encrypted_files.CENC),
        "packaged opus.mp4": plain("mp4", "libopus", encrypted_files.CENC),
        "cinema.mxf": encrypted_files.mxf(cinema),
        "web.webm": encrypted_files.matroska(web),
        "off air.ts": encrypted_files.transport_stream(stream, 0.0, 1.0),
    }.items():
        maker.add(name, "encrypted", content, **rejected("encrypted"))
    paid = encrypted_files.transport_stream(stream, 0.7, 1.0)
    maker.add("off air, paid until then.ts", "encrypted", paid, **partial("encrypted", least_s=0.6 * SECONDS))
