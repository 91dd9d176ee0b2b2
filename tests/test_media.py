"""Decoding: exact where a span begins, safe whatever the file holds."""

import contextlib
import errno
import itertools
import os
import signal as signals
import struct
import threading
import time
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from scipy.io import wavfile
from signals import write, write_as

from jobs import plan
from jobs.track_rows import outcome
from udfs.blocks import Block, Resampler
from udfs.decode_report import DecodeReport
from udfs.decoder import Decoder, encode_path
from udfs.decoding import decode
from udfs.media import MediaError, probe
from udfs.slots import SAMPLES

CASES = {  # file -> (rate, options)
    "a.flac": (44_100, {}),
    "a.wav": (44_100, {}),
    "a.mp3": (44_100, {}),
    "a.opus": (48_000, {}),
    "a.m4a": (44_100, {}),
    "a.aac": (44_100, {}),
    "a.mka": (48_000, {}),
    "flac.mka": (44_100, {"codec": "flac"}),
    "a.webm": (48_000, {}),
    "a.mp4": (48_000, {"picture": True}),
    "ac3.mkv": (48_000, {"codec": "ac3", "picture": True}),
    "alac.m4a": (44_100, {"codec": "alac"}),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory, music):
    folder = tmp_path_factory.mktemp("formats")
    return {name: write(folder / name, music, rate, **options) for name, (rate, options) in CASES.items()}


def joined(blocks):
    blocks = list(blocks)
    for before, after in itertools.pairwise(blocks):
        assert after.position == before.position + before.samples.shape[1]
    return blocks[0].position, np.concatenate([block.samples for block in blocks], axis=1)


@pytest.mark.parametrize("name", CASES)
def test_samples_are_what_libswresample_makes_of_the_frames(files, name):
    _, ours = joined(decode(str(files[name]), 0))
    with av.open(str(files[name])) as container:
        stream = container.streams.audio[0]
        converter = av.AudioResampler(format="flt", layout=stream.layout, rate=stream.rate)
        frames = [converted for frame in container.decode(stream) for converted in converter.resample(frame)]
    packed = np.concatenate([frame.to_ndarray().reshape(-1, len(ours)) for frame in frames])
    # What lies before the title's zero (an encoder's delay) is not ours.
    np.testing.assert_array_equal(ours, np.clip(packed.T, -1.0, 1.0)[:, len(packed) - ours.shape[1] :])


def test_what_no_player_can_play_is_clipped(tmp_path):
    samples = np.tile(np.array([0.5, np.nan, np.inf, -np.inf, 1e30, -2.0, -0.25, 1e-42], dtype=np.float32), 6_000)
    wavfile.write(tmp_path / "a.wav", 48_000, np.stack([samples, np.full_like(samples, 0.125)], axis=1))
    _, heard = joined(decode(str(tmp_path / "a.wav"), 0))
    expected = np.tile(np.array([0.5, 0.0, 1.0, -1.0, 1.0, -1.0, -0.25, 1e-42], dtype=np.float32), 6_000)
    np.testing.assert_array_equal(heard, np.stack([expected, np.full_like(expected, 0.125)]))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rate_hz", [48_000, 44_100, 16_000])
def test_a_span_sounds_the_same_wherever_it_begins(files, name, rate_hz):
    info = probe(str(files[name]))[0]
    path = str(files[name])

    def resampled(start_s, stop_s):
        resampler = Resampler(rate_hz)
        for block in decode(path, 0, start_s, stop_s, can_seek=info.can_seek, is_timed=info.is_timed):
            yield from resampler.push(block)
        yield from resampler.flush()

    origin, whole = joined(resampled(0, float("inf")))
    assert origin == 0
    for start_s, stop_s in [(1, 3), (7, 9), (13, 19), (20, 24)]:
        position, part = joined(resampled(start_s, stop_s + 0.25))
        offset = start_s * rate_hz - position
        assert offset >= 0
        length = (stop_s - start_s) * rate_hz
        np.testing.assert_array_equal(
            part[:, offset : offset + length],
            whole[:, start_s * rate_hz : stop_s * rate_hz],
            err_msg=f"{name} {start_s}",
        )


@pytest.mark.parametrize("name", CASES)
def test_probe_tells_the_truth(files, name):
    info = probe(str(files[name]))[0]
    rate, options = CASES[name]
    assert info.sample_rate_hz == rate
    assert info.channels == 2
    assert info.duration_s == pytest.approx(25.0, abs=0.1)
    assert info.codec == options.get("codec", info.codec)
    report = DecodeReport()
    _position, samples = joined(decode(str(files[name]), 0, is_timed=info.is_timed, report=report))
    assert samples.shape[1] / rate == pytest.approx(25.0, abs=0.1)
    assert (report.packet_errors, report.gaps) == (0, 0)


def test_lossless_audio_comes_back_to_the_sample(files, music):
    _, samples = joined(decode(str(write(files["a.flac"].with_name("exact.flac"), music)), 0))
    np.testing.assert_allclose(samples, music, atol=1.01 / 32768)


def test_resampled_audio_stays_in_its_place():
    time_s = np.arange(44_100 * 4) / 44_100
    tone = np.sin(2 * np.pi * 997 * time_s)[None].astype(np.float32)
    resampler = Resampler(48_000)
    blocks = [Block(i * 4410, 44_100, tone[:, i * 4410 : (i + 1) * 4410], ("FC",)) for i in range(40)]
    out = [made for block in blocks for made in resampler.push(block)] + list(resampler.flush())
    position, samples = joined(out)
    expected = np.sin(2 * np.pi * 997 * (np.arange(samples.shape[1]) + position) / 48_000)
    np.testing.assert_allclose(samples[0, 4800:-4800], expected[4800:-4800], atol=2e-3)


def test_content_hash_survives_name_and_container_but_not_content(tmp_path, music):
    import av

    first = write(tmp_path / "one.m4a", music)
    with av.open(str(first)) as source, av.open(str(tmp_path / "two.mka"), "w") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    other = write(tmp_path / "three.m4a", music * 0.5)
    hashes = [probe(str(path))[0].content_hash for path in (first, tmp_path / "two.mka", other)]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("channels", [1, 2, 6, 8, 12, 16])
def test_many_channels_decode_without_a_crash(tmp_path, channels):
    path = tmp_path / "many.wav"
    samples = (np.random.default_rng(0).uniform(-0.5, 0.5, (48_000, channels)) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(samples.tobytes())
    blocks = list(decode(str(path), 0))
    assert blocks[0].samples.shape == (channels, 48_000)
    assert len(set(blocks[0].channel_names)) == channels
    np.testing.assert_allclose(blocks[0].samples.T, samples / 32768, atol=1e-6)


def test_blocks_larger_than_a_slot_come_from_the_decoder_whole(tmp_path):
    """A second of 24 channels fills nine slots; two rates at once."""
    noise = np.random.default_rng(7).integers(-9_000, 9_000, (100_000, 24)).astype(np.int16)
    wavfile.write(tmp_path / "many.wav", 48_000, noise)
    path = str(tmp_path / "many.wav")
    assert max(block.samples.size for block in decode(path, 0)) > 2 * SAMPLES
    expected = {48_000: [], 44_100: []}
    for rate, blocks in expected.items():
        resampler = Resampler(rate)
        for block in decode(path, 0):
            blocks.extend(resampler.push(block))
        blocks.extend(resampler.flush())
    decoder, found = Decoder(), {48_000: [], 44_100: []}
    for rate, block in decoder.decode(
        encode_path(path), 0, 0, float("inf"), list(found), can_seek=False, is_timed=True, report=DecodeReport()
    ):
        assert block.samples.size <= SAMPLES
        found[rate].append(block)
    decoder.close()
    for rate, blocks in found.items():
        position, samples = joined(blocks)
        wanted_position, wanted = joined(expected[rate])
        assert position == wanted_position
        np.testing.assert_array_equal(samples, wanted)


def expect(code, path):
    with pytest.raises(MediaError) as caught:
        probe(str(path))
    assert caught.value.code == code
    assert caught.value.message


def test_files_that_are_not_media(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.flac").write_text("not audio " * 500)
    os.mkfifo(tmp_path / "fifo.wav")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "link.wav").symlink_to("/etc/hostname")
    expect("empty", tmp_path / "empty.wav")
    expect("not_media", tmp_path / "text.flac")
    expect("not_a_file", tmp_path / "fifo.wav")
    expect("not_a_file", tmp_path / "folder.wav")
    expect("symlink", tmp_path / "link.wav")
    expect("not_found", tmp_path / "absent.wav")


def test_storage_that_is_away_is_told_from_files_that_are(tmp_path, files, monkeypatch):
    (tmp_path / "mount").mkdir()
    expect("storage_error", tmp_path / "mount" / "a.wav")  # nothing is mounted there
    expect("storage_error", tmp_path / "mount" / "series" / "1" / "a.wav")
    (tmp_path / "films" / "other").mkdir(parents=True)
    expect("not_found", tmp_path / "films" / "gone" / "a.wav")  # its folder went with it
    (tmp_path / "mount" / "b.wav").touch()
    expect("not_found", tmp_path / "mount" / "a.wav")
    for number, code in (
        (errno.ESTALE, "storage_error"),
        (errno.EIO, "storage_error"),
        (errno.ETIMEDOUT, "storage_error"),
        (errno.EACCES, "unreadable"),
        (errno.ELOOP, "unreadable"),
    ):
        monkeypatch.setattr("udfs.media.os.open", raises(OSError(number, os.strerror(number))))
        expect(code, files["a.mp3"])


def raises(error):
    def call(*_args, **_kwargs):
        raise error

    return call


def test_a_decoder_that_gets_on_is_not_stopped(tmp_path):
    """However long it reads before it has something to hand over: here for longer than it may be still."""
    decoder = Decoder(timeout_s=0.8)
    path = tmp_path / "long.wav"
    size = 1 << 30
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", size + 36, b"WAVE", b"fmt ", 16, 1, 8, 48_000, 48_000 * 16, 16, 16, b"data", size
    )
    with open(path, "wb") as file:
        file.write(header)
        file.truncate(len(header) + size)  # silence, of which the disk stores nothing
    [track] = decoder.probe(encode_path(path))
    assert track.duration_s == pytest.approx(size / (48_000 * 16), rel=1e-6)
    decoder.close()


def test_numbers_are_no_mpeg_audio(tmp_path):
    """Minus ones and small numbers look like frames of MPEG audio, layer I, and FFmpeg opens half of such files."""
    rng = np.random.default_rng(3)
    taken = 0
    for number in range(60):
        table = rng.integers(0, 2_000, int(rng.integers(200, 1_500))).astype("<i2")
        table[rng.random(len(table)) < 0.5] = -1
        path = tmp_path / f"{number}.dat"
        path.write_bytes(table.tobytes())
        tracks = []
        with contextlib.suppress(MediaError):
            tracks = probe(str(path))
        taken += len(tracks)
        assert all(track.error_code == "not_media" and "look like mp1" in track.error for track in tracks)
    assert taken > 20


@pytest.mark.parametrize(
    ("container", "codec"), [("mp3", "libmp3lame"), ("mp2", "mp2"), ("vob", "mp2"), ("mpegts", "mp2")]
)
@pytest.mark.parametrize("samples", [2_400, 9_600])
def test_short_sounds_are_mpeg_audio(tmp_path, music, container, codec, samples):
    path = tmp_path / "short.bin"
    write_as(path, container, codec, 48_000, "stereo", {}, music[0, :samples])
    [track] = probe(str(path))
    assert track.codec in ("mp2", "mp3")
    assert track.error_code is None


def test_streams_spliced_at_three_rates_are_mpeg_audio(tmp_path, music):
    parts = [write(tmp_path / f"{rate}.mp3", music[:, :96_000], rate).read_bytes() for rate in (32_000, 44_100, 48_000)]
    (tmp_path / "spliced.mp3").write_bytes(b"".join(parts))
    [track] = probe(str(tmp_path / "spliced.mp3"))
    assert (track.codec, track.error_code) == ("mp3", None)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{other}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {other}\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:{other}\n#EXT-X-ENDLIST\n",
    ],
)
def test_playlists_in_disguise_open_nothing(tmp_path, music, text):
    other = write(tmp_path / "other.wav", music[:, :48_000])
    trap = tmp_path / "song.mp3"
    trap.write_text(text.format(other=other))
    expect("not_media", trap)


def test_half_a_file_is_noticed(tmp_path, music):
    for name in ("half.mp3", "half.flac", "half.wav"):
        path = write(tmp_path / name, music)
        os.truncate(path, path.stat().st_size // 2)
        info = probe(str(path))[0]
        assert info.declared_s == pytest.approx(25, abs=0.2), name
        assert info.duration_s < 15, name


def test_a_lost_packet_leaves_a_gap_and_shifts_nothing(tmp_path, music):
    import av

    source = write(tmp_path / "whole.mka", music, codec="flac")
    with av.open(str(source)) as opened, av.open(str(tmp_path / "holey.mka"), "w") as target:
        stream = target.add_stream_from_template(opened.streams.audio[0])
        for number, packet in enumerate(opened.demux(audio=0)):
            if packet.dts is not None and not 100 <= number < 110:
                packet.stream = stream
                target.mux(packet)
    report = DecodeReport()
    blocks = list(decode(str(tmp_path / "holey.mka"), 0, report=report))
    assert report.gaps == 1
    _, whole = joined(decode(str(source), 0))
    assert sum(block.samples.shape[1] for block in blocks) < whole.shape[1] - 9 * 4000
    misplaced = 0
    for block in blocks:
        reference = whole[:, block.position : block.position + block.samples.shape[1]]
        misplaced += int((block.samples != reference).any(axis=0).sum())
    assert misplaced <= 4608  # one frame: a jump is believed once the next frame agrees with it


def test_a_decoder_that_dies_or_hangs_is_asked_once_more(music, tmp_path):
    """What was given before the accident is not given again; an accident with every child is the file's fault."""
    decoder = Decoder(timeout_s=60)
    # So long that no child, which may run ahead by the blocks that fit the slots, is done before it is killed.
    path = encode_path(write(tmp_path / "long.mp3", np.tile(music, (1, 1 + 30 * 44_100 // music.shape[1])), 44_100))
    assert decoder.probe(path)[0].codec == "mp3"

    def blocks():
        for _, block in decoder.decode(
            path, 0, 0, float("inf"), [48_000], can_seek=True, is_timed=True, report=DecodeReport()
        ):
            yield block

    position, whole = joined(blocks())
    stream = blocks()
    first = [next(stream) for _ in range(3)]
    decoder._process.kill()
    again, disturbed = joined([*first, *stream])
    assert again == position
    np.testing.assert_array_equal(disturbed, whole)

    stream = blocks()
    next(stream)
    killed = decoder._process
    killed.kill()
    while decoder._process is killed:  # what it had given before
        next(stream)
    decoder._process.kill()
    with pytest.raises(MediaError) as caught:
        list(stream)
    assert caught.value.code == "crashed"
    assert "SIGKILL" in caught.value.message

    assert decoder.probe(path)[0].codec == "mp3"
    decoder.timeout_s = 5.0
    os.kill(decoder._process.pid, signals.SIGSTOP)
    assert decoder.probe(path)[0].codec == "mp3"  # after five seconds, of a new child
    decoder.close()


def test_a_decoder_outlives_the_thread_that_first_asked_it(files):
    decoder = Decoder(timeout_s=60)
    served = []

    def ask():
        decoder.probe(encode_path(files["a.mp3"]))
        served.append(decoder._process)

    for _ in range(3):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        time.sleep(0.2)  # a child bound to the thread would be gone by now
        assert served[0].poll() is None
    assert len({process.pid for process in served}) == 1
    decoder.close()


def test_names_that_are_not_text(tmp_path, music):
    raw = os.fsencode(tmp_path) + b"/caf\xe9 %41\n'quote'.wav"
    write(tmp_path / "plain.wav", music[:, :48_000])
    os.rename(tmp_path / "plain.wav", raw)
    decoder = Decoder()
    assert decoder.probe(encode_path(raw))[0].codec == "pcm_s16le"
    decoder.close()


def shifted(source, target, shifts_s, lengths_s=(None, None)):
    """A file whose tracks are one file's packets, each so much later and cut to its length."""
    with contextlib.ExitStack() as stack:
        new = stack.enter_context(av.open(str(target), "w"))
        inputs = [stack.enter_context(av.open(str(source))) for _ in shifts_s]
        streams = [new.add_stream_from_template(old.streams.audio[0]) for old in inputs]
        moved = []
        for old, stream, shift_s, length_s in zip(inputs, streams, shifts_s, lengths_s, strict=True):
            for packet in old.demux(audio=0):
                if packet.size and (length_s is None or packet.pts * packet.time_base < length_s):
                    packet.stream = stream
                    packet.pts = packet.dts = packet.pts + round(shift_s / packet.time_base)
                    moved.append(packet)
        for packet in sorted(moved, key=lambda packet: packet.pts * packet.time_base):
            new.mux(packet)
    return str(target)


def test_tracks_that_begin_late_or_end_early_are_whole(music, tmp_path):
    whole = write(tmp_path / "whole.flac", np.tile(music, (1, 2))[:, : 30 * 48_000], 48_000)
    late, short = probe(shifted(whole, tmp_path / "tracks.mka", (5.0, 0.0), (None, 12.0)))
    assert (late.begins_s, late.duration_s) == pytest.approx((5.0, 35.0), abs=0.2)
    assert (short.begins_s, short.duration_s) == pytest.approx((0.0, 12.0), abs=0.2)
    assert (late.declared_s, short.declared_s) == (pytest.approx(35.0, abs=0.2), None)
    for info in (late, short):
        report = DecodeReport()
        list(decode(str(tmp_path / "tracks.mka"), info.track, is_timed=info.is_timed, report=report))
        row = {**plan._row(plan.Title("t", "file:///t", "/t", 1, 1), info)}
        found = outcome(row, [{"decoded_s": report.decoded_s, "error_code": None, "error": None}], "s")
        assert (found["status"], found["error_code"]) == ("ok", None), found
    half = {"decoded_s": report.decoded_s / 2, "error_code": None, "error": None}
    assert outcome({**plan._row(plan.Title("t", "", "/t", 1, 1), short)}, [half], "s")["error_code"] == "short_decode"


@pytest.mark.parametrize("claimed", [0, 0xFFFFFFFF])
def test_a_wave_file_that_does_not_know_its_length_is_whole(music, tmp_path, claimed):
    path = Path(write(tmp_path / "a.wav", music, 48_000))
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = content[4:8] = claimed.to_bytes(4, "little")
    path.write_bytes(content)
    [info] = probe(str(path))
    report = DecodeReport()
    decoded = sum(block.samples.shape[1] for block in decode(str(path), 0, is_timed=info.is_timed, report=report))
    assert decoded == music.shape[1]
    assert (report.events, report.packet_errors, info.beyond_s) == ([], 0, 0.0)


def test_what_a_wave_file_holds_beyond_its_header_is_told(music, tmp_path):
    """As after 4 GiB of a header of 32 bits; chunks, tags and padding behind the data are none of it."""
    path = Path(write(tmp_path / "a.wav", music, 48_000))
    whole = path.read_bytes()
    at = whole.index(b"data") + 4
    kept = music.shape[1] // 3
    head = whole[:4] + (at + kept * 4).to_bytes(4, "little") + whole[8:at] + (kept * 4).to_bytes(4, "little")
    path.write_bytes(head + whole[at + 4 :])
    [info] = probe(str(path))
    assert info.beyond_s == pytest.approx((music.shape[1] - kept) / 48_000, abs=0.01)
    row = {**plan._row(plan.Title("t", "file:///t", "/t", 1, 1), info)}
    found = outcome(row, [{"decoded_s": info.duration_s, "error_code": None, "error": None}], "s")
    assert (found["status"], found["error_code"]) == ("partial", "beyond_header")
    assert "deliver it again" in found["error"]
    size = (300_000).to_bytes(4, "little")
    behinds = [b"", b"LIST" + size + bytes(300_000), b"bext" + size + b"\x90" * 300_000, bytes(300_000)]
    behinds += [bytes(8) + behinds[1], b"\0id3 " + size + b"\x90" * 300_000, b"\xff\xd8\xff\xe0" + b"\x90" * 300_000]
    for behind in behinds:
        path.write_bytes(whole + behind)
        assert probe(str(path))[0].beyond_s == 0.0
