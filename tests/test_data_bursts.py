"""Data in PCM channels: real AC-3 in FFmpeg's own IEC 61937 bursts, and the frames of Dolby E as SMPTE ST 337 lays them out."""

import av
import numpy as np
import pytest
import soundfile

from tests.signals import heard, music_like, spans_of
from udfs.batches import ScanOptions, produce
from udfs.data_bursts import DataBursts

RATE_HZ = 48_000
WORDS = {16: (0xF872, 0x4E1F), 20: (0x6F872, 0x54E1F), 24: (0x96F872, 0xA54E1F)}


@pytest.fixture(scope="module")
def music():
    return music_like(6.0, RATE_HZ, np.random.default_rng(1))


def bursts(bits, rng, seconds=6.0, kind=28, per_second=25):
    """Dolby E's form: int32 (2, samples), left-justified, a word in either channel of a pair, guard bands around bursts."""
    pair = np.zeros((2, round(seconds * RATE_HZ)), dtype=np.int64)
    step = RATE_HZ // per_second
    for start in range(0, pair.shape[1] - step + 1, step):
        payload = rng.integers(0, 1 << bits, (2, step - 200))
        payload[:, 0] = WORDS[bits]
        payload[:, 1] = kind << (bits - 16), rng.integers(0, 1 << bits)
        pair[:, start + 100 : start + step - 100] = payload << (32 - bits)
    return pair.astype(np.uint32).view(np.int32)


def as_int32(music):
    return (np.round(music.astype(np.float64) * (1 << 23)).astype(np.int64) << 8).astype(np.int32)


def ac3_words(folder, music):
    """AC-3 as FFmpeg packs it for a digital cable: int16 (2, samples)."""
    path = folder / "bursts.spdif"
    with av.open(str(path), "w", format="spdif") as container:
        stream = container.add_stream("ac3", rate=RATE_HZ, layout="stereo")
        stream.bit_rate = 384_000
        for start in range(0, music.shape[1], 1536):
            piece = np.ascontiguousarray(music[:, start : start + 1536])
            frame = av.AudioFrame.from_ndarray(piece, "fltp", "stereo")
            frame.sample_rate, frame.pts = RATE_HZ, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return np.frombuffer(path.read_bytes(), dtype="<i2").reshape(-1, 2).T


@pytest.mark.parametrize("bits", WORDS)
def test_a_pair_with_data_is_silence_and_what_is_beside_it_is_not(tmp_path, music, bits):
    path = tmp_path / "master.wav"
    samples = np.concatenate([as_int32(music), bursts(bits, np.random.default_rng(2))])
    soundfile.write(path, samples.T, RATE_HZ, subtype="PCM_24", format="WAV")
    _info, found, report = heard(path)
    names = sorted(report.data)
    assert len(names) == 2
    assert set(report.data.values()) == {"Dolby E"}
    assert not found[2:].any()
    assert np.abs(found[:2] - music).max() < 1e-6


@pytest.mark.parametrize("suffix", ["flac", "mov", "mxf"])
def test_ac3_of_a_real_encoder_in_lossless_files(tmp_path, music, suffix):
    path = tmp_path / f"master.{suffix}"
    words = ac3_words(tmp_path, music)
    samples = words.astype(np.int32) << 16
    codec, form = ("flac", "s32") if suffix == "flac" else ("pcm_s24le", "s32")
    with av.open(str(path), "w") as container:
        if suffix == "mxf":
            picture = container.add_stream("mpeg2video", rate=25)
            picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
        stream = container.add_stream(codec, rate=RATE_HZ, layout="stereo")
        stream.format = form
        if suffix == "mxf":
            for number in range(25 * 6):
                frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), dtype=np.uint8), format="rgb24")
                frame.pts = number
                container.mux(picture.encode(frame))
            container.mux(picture.encode(None))
        for start in range(0, samples.shape[1], 1920):
            piece = np.ascontiguousarray(samples[:, start : start + 1920].T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(piece, "s32", "stereo")
            frame.sample_rate, frame.pts = RATE_HZ, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    _info, found, report = heard(path)
    assert report.data == {"FL": "AC-3", "FR": "AC-3"}
    assert found.shape[1] > 5 * RATE_HZ
    assert not found.any()


@pytest.mark.parametrize("bits", [20, 24])
@pytest.mark.parametrize("half", [0, 1])
def test_tracks_of_one_channel_each(tmp_path, bits, half):
    path = tmp_path / "half.wav"
    soundfile.write(path, bursts(bits, np.random.default_rng(3))[half], RATE_HZ, subtype="PCM_24", format="WAV")
    _info, found, report = heard(path)
    assert report.data == {"FC": ["Dolby E", "half of a pair"][half]}
    assert not found.any()


def test_data_that_begins_and_ends_midway_costs_no_more_than_its_seconds(tmp_path, music):
    data = bursts(20, np.random.default_rng(4))
    data[:, : 2 * RATE_HZ] = as_int32(music)[:, : 2 * RATE_HZ]
    data[:, 4 * RATE_HZ :] = as_int32(music)[:, 4 * RATE_HZ :]
    soundfile.write(tmp_path / "partly.wav", data.T, RATE_HZ, subtype="PCM_24", format="WAV")
    _info, found, report = heard(tmp_path / "partly.wav")
    assert report.data == {"FL": "Dolby E", "FR": "Dolby E"}
    apart = np.abs(found - music).max(axis=0)
    assert apart[:RATE_HZ].max() < 1e-6
    assert apart[5 * RATE_HZ :].max() < 1e-6
    assert not found[:, round(2.1 * RATE_HZ) : 4 * RATE_HZ].any()


def test_sound_is_no_data(music):
    rng = np.random.default_rng(5)
    first = np.float32((WORDS[16][0] - 65536) / 32768)
    noise = rng.integers(-32768, 32768, (2, 60 * RATE_HZ)) / 32768  # every word of 16 bits 44 times a channel
    square = np.where(np.arange(RATE_HZ) % 100 < 50, 1.0, -1.0)[None].repeat(2, axis=0)
    square[:, ::1920] = first  # regularly, and next to no silence
    once = np.concatenate([music[:, :RATE_HZ], square], axis=1)
    once[0, 500], once[1, 500] = first, np.float32(WORDS[16][1] / 32768)
    for sound in (noise, square, once):
        bursts_of = DataBursts()
        for start in range(0, sound.shape[1], RATE_HZ):
            block = sound[:, start : start + RATE_HZ].astype(np.float32)
            before = block.copy()
            assert bursts_of.silence(block, RATE_HZ) == {}
            assert np.array_equal(block, before)


def test_a_scan_says_so(tmp_path):
    import queue
    import threading

    path = tmp_path / "dolby-e.wav"
    soundfile.write(path, bursts(20, np.random.default_rng(6)).T, RATE_HZ, subtype="PCM_24", format="WAV")
    ready: queue.Queue = queue.Queue()
    [span] = spans_of(path, 0.0, 6.0, models=())
    produce([span | {"announced_s": None}], [], ScanOptions(), ready, threading.Event())
    report = ready.get()
    assert report["error_code"] == "data_bursts"
    assert report["error"] == (
        "2 of its channels (FL, FR) carry data and no sound (Dolby E; SMPTE ST 337), which was scored as silence"
    )
