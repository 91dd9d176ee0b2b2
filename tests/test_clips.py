"""Clips and pictures of stretches of a title."""

import io
import os

import numpy as np
import pytest
from PIL import Image
from report_reading import heard
from signals import music_like, write

from udfs import clips, spectrogram, stretches
from udfs.decoder import Decoder, encode_path
from udfs.media import MediaError, probe

RATE_HZ = 48_000


@pytest.fixture(scope="module")
def hummed(tmp_path_factory):
    """A minute of music with a hum on its left channel from 20 to 40 s: file and samples."""
    music = music_like(60.0, RATE_HZ, np.random.default_rng(5)) * 0.3
    inside = slice(20 * RATE_HZ, 40 * RATE_HZ)
    music[0, inside] += (0.3 * np.sin(2 * np.pi * 120 * np.arange(20 * RATE_HZ) / RATE_HZ)).astype(np.float32)
    path = tmp_path_factory.mktemp("clips") / "hum.flac"
    write(path, music)
    return path, music


def test_one_pass_and_single_seeks_cut_the_same(hummed):
    """FLAC can seek; told that it cannot, it is gone through once: overlapping, nested, beyond the end."""
    source, waveform = hummed
    path = encode_path(os.fsencode(source))
    wanted = [
        stretches.Stretch(start, end, channels)
        for start, end, channels in [
            (30.0, 40.0, ("FL",)), (2.0, 12.5, ("FL", "FR")), (5.0, 7.0, ("FR",)), (55.0, 70.0, ("MIX",)), (80.0, 90.0, ("FL",)),
        ]
    ]  # fmt: skip
    info = probe(str(source))[0]
    assert info.can_seek
    decoder = Decoder()
    try:
        seeking = dict(stretches.sounds(decoder, path, info, wanted))
        info.can_seek = False
        passing = dict(stretches.sounds(decoder, path, info, wanted))
    finally:
        decoder.close()
    assert set(seeking) == set(passing) == set(range(5))
    for index in range(5):
        assert np.array_equal(seeking[index].samples, passing[index].samples)
        assert np.array_equal(seeking[index].decoded, passing[index].decoded)
    expected = waveform[0, 30 * RATE_HZ : 40 * RATE_HZ]
    assert np.abs(passing[0].samples[0] - expected).max() < 1e-4  # FLAC of 16 bit
    assert (passing[1].samples.shape[0], passing[1].heard) == (2, ("FL", "FR"))
    end = passing[3].part(55.0, 70.0)
    assert end.samples.shape == (1, 5 * RATE_HZ)
    assert np.abs(end.samples[0] - waveform[:, 55 * RATE_HZ :].mean(axis=0)).max() < 1e-4
    assert not passing[4].decoded.any()


def test_a_single_clip(hummed):
    path, _ = hummed
    samples = heard(clips.clip(path, 0, 19.0, 23.0, ("FL",), 64_000))
    assert samples.shape == (1, pytest.approx(4 * RATE_HZ, abs=1000))
    with pytest.raises(MediaError, match="expected audio track 3, the file has 1 now"):
        clips.clip(path, 3, 0.0, 1.0, (), 64_000)
    with pytest.raises(MediaError, match="no sound could be decoded"):
        clips.clip(path, 0, 100.0, 110.0, (), 64_000)


def test_pictures_show_clicks_and_short_stretches():
    samples = np.zeros((2, 60 * RATE_HZ), dtype=np.float32)
    samples[1, 30 * RATE_HZ] = 1.0  # one sample of a minute, on one channel
    drawn = Image.open(io.BytesIO(spectrogram.spectrogram(samples, 0.0, (0.0, 60.0), (25.0, 35.0), 24_000)))
    brightness = np.asarray(drawn.convert("RGB"), dtype=float).sum(axis=2)[30:200]
    left, right = (round(share * drawn.width) for share in (spectrogram.AXIS_LEFT, spectrogram.AXIS_RIGHT))
    middle = (left + right) // 2
    assert brightness[:, middle - 3 : middle + 4].max(axis=1).min() > 100
    assert brightness[:, left + 50 : left + 200].max() < 60
    short = np.random.default_rng(0).standard_normal((1, 2 * RATE_HZ)).astype(np.float32) * 0.1
    drawn = Image.open(io.BytesIO(spectrogram.spectrogram(short, 7.0, (7.0, 9.0), (7.0, 9.0), 4_000)))
    brightness = np.asarray(drawn.convert("RGB"), dtype=float).sum(axis=2)[30:200, left + 3 : right - 3]
    assert brightness.mean(axis=0).min() > 150  # no column without a level


@pytest.mark.parametrize(("moment_s", "first_s"), [(7.25, 7.24), (0.004, 0.0), (None, None)])
def test_a_close_up_has_the_samples_themselves(hummed, moment_s, first_s):
    """Of both channels, also where the title begins; none where none is asked for."""
    source, waveform = hummed
    decoder = Decoder()
    order = {
        "number": 3, "path": encode_path(os.fsencode(source)), "track": 0, "channels": ["FL", "FR"],
        "content_hash": probe(str(source))[0].content_hash, "start_s": moment_s or 1.0, "end_s": 1.0, "from_s": 0.0, "to_s": 9.0,
        "clip_start_s": 0.0, "clip_end_s": 9.0, "bit_rate": None, "has_picture": False, "close_up_s": moment_s,
    }  # fmt: skip
    try:
        [answer] = clips.answers([order], decoder)
    finally:
        decoder.close()
    assert answer["close_up_start_s"] == (None if first_s is None else pytest.approx(first_s))
    if first_s is None:
        assert answer["close_up"] is None
        return
    expected = waveform[:, round(first_s * RATE_HZ) : round((moment_s + clips.CLOSE_UP_S) * RATE_HZ)]
    assert np.shape(answer["close_up"]) == expected.shape
    assert np.abs(np.array(answer["close_up"]) - expected).max() < 1e-4  # FLAC of 16 bit
