import numpy as np
import pytest
from signals import music_like

from models import glitches
from models.codecs import recode
from models.defects.mp3_glitch import AUDIBLE_DB, BIT_RATE, FRAME, MP3_FRAME, ROUNDING, damaged, distance_db
from models.glitches import GlitchSource

RATE, SAMPLES = 44_100, 16_384


@pytest.fixture(scope="module")
def sound():
    return 0.5 * music_like(20.0, RATE, np.random.default_rng(0))[0]


def test_without_damage_both_decodes_are_what_the_codec_gives(sound):
    clean, same = damaged(sound, RATE, np.random.default_rng(1), probability=0.0)
    np.testing.assert_array_equal(clean, same)
    np.testing.assert_allclose(clean, recode(sound, RATE, "mp3", BIT_RATE), atol=1e-6)
    assert (distance_db(clean, same) == -200).all()


def test_damage_reaches_a_few_frames_and_leaves_the_rest_to_the_bit(sound):
    clean, broken = damaged(sound, RATE, np.random.default_rng(2))
    assert clean.shape == broken.shape == sound.shape
    assert np.abs(broken).max() <= 1.0
    changed = (clean != broken)[: len(clean) // MP3_FRAME * MP3_FRAME].reshape(-1, MP3_FRAME).any(axis=1)
    assert 0.02 < changed.mean() < 0.3  # one frame in twenty is hit, and its damage spreads into the next ones
    share = (distance_db(clean, broken) > AUDIBLE_DB).mean()
    assert 0.02 < share < 0.2  # the paper: 0.08


def test_the_same_seed_does_the_same_damage(sound):
    first, again = (damaged(sound, RATE, np.random.default_rng(3))[1] for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_distance_is_that_of_the_frame_and_in_decibels():
    noise = np.random.default_rng(0).standard_normal(SAMPLES).astype(np.float32)
    louder = noise.copy()
    louder[40 * FRAME : 60 * FRAME] *= np.float32(np.sqrt(1.1))  # a tenth more power: -10 dB
    decibels = distance_db(noise, louder)
    assert decibels.shape == (SAMPLES // FRAME,)
    np.testing.assert_allclose(decibels[43:57], -10.0, atol=1e-3)
    assert (decibels[:37] == -200).all()
    assert (decibels[63:] == -200).all()


@pytest.mark.parametrize(("level_db", "share"), [(-110, 0), (-103, 0), (-99, 1), (-60, 1)])
def test_changes_that_16_bits_cannot_hold_do_not_count(level_db, share):
    rng = np.random.default_rng(0)
    silence = 1e-7 * rng.standard_normal(SAMPLES).astype(np.float32)
    noise = (10 ** (level_db / 20) * rng.standard_normal(SAMPLES)).astype(np.float32)
    assert (distance_db(silence, silence + noise) > AUDIBLE_DB).mean() == pytest.approx(share, abs=0.02)


def test_rounding_to_16_bits_is_what_it_is_taken_for():
    sound = np.random.default_rng(0).uniform(-0.1, 0.1, 1 << 18)
    rounded = np.round(sound * 32768) / 32768
    assert np.mean((rounded - sound) ** 2) == pytest.approx(ROUNDING, rel=0.01)


def test_pairs_differ_where_the_target_says(sound, tmp_path):
    np.save(tmp_path / "a.npy", (sound[None] * 32767).astype(np.int16))
    source = GlitchSource([tmp_path / "a.npy"], RATE, is_varied=False)
    for number in range(10):
        (clean, none), (broken, target) = source.draw(SAMPLES / RATE, np.random.default_rng(number))
        assert clean.shape == broken.shape == (SAMPLES,)
        assert none.shape == target.shape == (SAMPLES // FRAME,)
        assert not none.any()
        assert target.any()
        np.testing.assert_array_equal(target == 1, distance_db(clean, broken) > AUDIBLE_DB)


@pytest.mark.parametrize("rate_hz", [48_000, 32_000])
def test_streams_of_other_rates_are_resampled_with_their_damage(sound, tmp_path, rate_hz, monkeypatch):
    monkeypatch.setattr(glitches, "OTHER_RATE_SHARE", 1.0)
    monkeypatch.setattr(glitches, "RATES_HZ", (RATE, rate_hz))
    np.save(tmp_path / "a.npy", (sound[None] * 32767).astype(np.int16))
    source = GlitchSource([tmp_path / "a.npy"], RATE)
    for number in range(6):
        (clean, none), (broken, target) = source.draw(SAMPLES / RATE, np.random.default_rng(number))
        assert clean.shape == broken.shape == (SAMPLES,)
        assert not none.any()
        assert target.any()
        np.testing.assert_array_equal(target == 1, distance_db(clean, broken) > AUDIBLE_DB)
        spectrum = np.abs(np.fft.rfft(broken - clean)) ** 2
        beyond = np.arange(len(spectrum)) * RATE / SAMPLES > 0.5 * rate_hz
        assert spectrum[beyond].sum() <= 0.01 * spectrum.sum()
