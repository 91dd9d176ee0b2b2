"""Sounds that are meant and resemble defects."""

import numpy as np
import pytest
from signals import music_like

from models.intended import SOUNDS, driven


@pytest.mark.parametrize("name", list(SOUNDS))
@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_sounds_that_are_meant_are_not_the_defects_they_resemble(name, rate_hz):
    for seed in range(5):
        sound = SOUNDS[name](rate_hz, rate_hz, np.random.default_rng(seed))
        assert sound.shape == (rate_hz,)
        assert sound.dtype == np.float32
        assert np.sqrt(np.mean(sound**2)) == pytest.approx(1.0, rel=1e-3)
        np.testing.assert_array_equal(sound, SOUNDS[name](rate_hz, rate_hz, np.random.default_rng(seed)))
        power = np.abs(np.fft.rfft(sound * np.hanning(rate_hz))) ** 2
        thirds = [part.mean() for part in np.array_split(power[rate_hz // 40 :], 8)]
        if name in ("rain", "wind", "ambience", "record_surface", "cymbals"):  # not white
            assert max(thirds) > 4 * min(thirds)
        else:  # no single steady line: a pure tone through a Hann window keeps all its power within 2 Hz
            peak = int(power.argmax())
            assert power[max(peak - 2, 0) : peak + 3].sum() < 0.999 * power.sum()


def test_a_moment_of_a_sound_that_is_meant_is_never_silent():
    for name in SOUNDS:
        for seed in range(200):
            sound = SOUNDS[name](2_000, 44_100, np.random.default_rng(seed))
            assert np.isfinite(sound).all()
            assert np.abs(sound).max() > 0


def test_a_driven_amplifier_bends_and_keeps_the_peak():
    clean = music_like(2.0, 48_000, np.random.default_rng(0))[0]
    heard = driven(clean, np.random.default_rng(1))
    assert heard.shape == clean.shape
    assert np.abs(heard).max() == pytest.approx(np.abs(clean).max(), rel=1e-3)
    top = np.abs(heard) > 0.999 * np.abs(heard).max()
    assert top.mean() < 0.01  # rounded, not clipped
