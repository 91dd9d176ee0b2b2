"""Whole files in the containers and codecs that masters, archives and broadcasters keep: nothing is wrong with them, and none is said to be."""

import dsd
import numpy as np
import pytest
from scipy import signal
from signals import heard, write_as

from udfs.blocks import Block, Resampler
from udfs.decode_report import TIME_JUMP

SECONDS = 9.37
# Container as FFmpeg's muxers are called, codec, rate, layout; then what the muxer is told.
CASES = [
    ("mxf", "pcm_s24le", 48_000, "stereo", {}),
    ("mxf_opatom", "pcm_s24le", 48_000, "mono", {}),
    ("mov", "pcm_s24le", 96_000, "5.1", {}),
    ("wav", "pcm_s24le", 48_000, "7.1", {"rf64": "always"}),
    ("wav", "pcm_f32le", 44_100, "stereo", {}),
    ("wav", "mp2", 44_100, "stereo", {}),
    ("wav", "libmp3lame", 44_100, "stereo", {"rf64": "always"}),
    ("wav", "adpcm_ms", 44_100, "stereo", {}),
    ("w64", "mp2", 44_100, "stereo", {}),
    ("w64", "libmp3lame", 44_100, "stereo", {}),
    ("w64", "pcm_s32le", 192_000, "stereo", {}),
    ("aiff", "pcm_s24be", 44_100, "stereo", {}),
    ("caf", "alac", 48_000, "stereo", {}),
    ("au", "pcm_s16be", 44_100, "stereo", {}),
    ("avi", "pcm_s16le", 48_000, "stereo", {}),
    ("avi", "ac3", 48_000, "5.1", {}),
    ("mpeg", "mp2", 48_000, "stereo", {}),
    ("mpeg", "ac3", 48_000, "5.1", {}),
    ("vob", "pcm_dvd", 48_000, "stereo", {}),
    ("vob", "pcm_s16be", 44_100, "stereo", {}),
    ("mpegts", "aac", 48_000, "5.1", {}),
    ("mpegts", "eac3", 48_000, "5.1", {}),
    ("mpegts", "pcm_bluray", 48_000, "5.1(side)", {"mpegts_m2ts_mode": "1"}),
    ("mp4", "eac3", 48_000, "5.1", {}),
    ("matroska", "tta", 44_100, "stereo", {}),
    ("matroska", "wavpack", 44_100, "stereo", {}),
    ("wv", "wavpack", 44_100, "stereo", {}),
    ("asf", "wmav2", 44_100, "stereo", {}),
    ("flv", "eac3", 48_000, "5.1", {}),
    ("flv", "libopus", 48_000, "stereo", {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("container", "codec", "rate_hz", "layout", "options"), CASES, ids=lambda value: str(value).replace("{}", "")
)
def test_nothing_is_said_of_a_whole_file(container, codec, rate_hz, layout, options, music, tmp_path):
    time_s = np.arange(round(SECONDS * rate_hz)) / rate_hz
    waveform = np.interp(time_s, np.arange(music.shape[1]) / 48_000, music[0]).astype(np.float32)
    path = write_as(tmp_path / "a", container, codec, rate_hz, layout, options, waveform)
    info, samples, report = heard(path)
    assert (info.error_code, info.sample_rate_hz) == (None, rate_hz)
    assert info.duration_s == pytest.approx(SECONDS, abs=0.15)
    assert (report.events, report.packet_errors, report.gaps, report.format_changes) == ([], 0, 0, 0)
    assert samples.shape[1] / rate_hz == pytest.approx(SECONDS, abs=0.15)
    # The sound is in its place, but for an encoder's delay that the container does not tell.
    middle = waveform[2 * rate_hz : 7 * rate_hz]
    around = samples[0][2 * rate_hz - rate_hz // 16 : 7 * rate_hz + rate_hz // 16]
    likeness = signal.correlate(around, middle, "valid") / (middle @ middle)
    assert likeness.max() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("multiple", [64, 128, 256, 512])
@pytest.mark.parametrize("suffix", list(dsd.MAKERS))
def test_dsd_is_heard_as_what_it_was_made_of(suffix, multiple, music, tmp_path):
    # Low enough that the decoder, which is late by a part of a sample, does not turn it.
    waveform = signal.sosfilt(signal.butter(4, 3_000, fs=48_000, output="sos"), music[:, : 2 * 48_000])
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(dsd.MAKERS[suffix](waveform, 48_000, multiple))
    info, samples, report = heard(path)
    assert (info.error_code, info.channels, info.sample_rate_hz) == (None, 2, multiple * 44_100 // 8)
    assert info.duration_s == pytest.approx(2.0, abs=0.02)
    assert (report.events, report.packet_errors, report.gaps, report.format_changes) == ([], 0, 0, 0)
    in_band = Resampler(48_000)  # what the shaping of its noise has driven up lies above
    blocks = [*in_band.push(Block(0, info.sample_rate_hz, samples, ("FL", "FR"))), *in_band.flush()]
    found = np.concatenate([block.samples for block in blocks], axis=1)
    inside = slice(4_800, 91_200)
    for channel, clean in zip(found, waveform, strict=True):
        gain = channel[inside] @ clean[inside] / (clean[inside] @ clean[inside])
        assert gain == pytest.approx(0.5, abs=0.05)  # half of full scale is a DSD's 0 dB
        assert np.corrcoef(channel[inside], clean[inside])[0, 1] > 0.99


def test_packs_that_are_lost_stay_a_jump(music, tmp_path):
    waveform = music[0, : round(SECONDS * 48_000)]
    path = write_as(tmp_path / "a", "vob", "pcm_s16be", 48_000, "stereo", {}, waveform)
    packs = path.read_bytes()
    lost_s = 20 * 2013 / (48_000 * 4)  # of a pack's 2,048 bytes all but the headers are samples
    path.write_bytes(packs[: 400 * 2048] + packs[420 * 2048 :])
    [(label, start_s, end_s)] = heard(path)[2].events
    assert label == TIME_JUMP
    assert end_s - start_s == pytest.approx(lost_s, abs=0.03)
