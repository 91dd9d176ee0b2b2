import numpy as np
import pytest
from scipy import signal

from models.codecs import CODECS, recode


@pytest.mark.parametrize(("codec", "rate_hz"), [(c, r) for c in CODECS for r in (8_000, 24_000, 48_000)])
def test_what_comes_back_is_the_same_sound_at_the_same_time(codec, rate_hz):
    rng = np.random.default_rng(0)
    noise = signal.lfilter(*signal.butter(2, 0.1), rng.standard_normal(round(1.2 * rate_hz)))
    sound = np.clip(0.3 * noise, -1, 1).astype(np.float32)
    if codec == "opus" and rate_hz != 48_000:
        with pytest.raises(ValueError, match="expected 48000 Hz"):
            recode(sound, rate_hz, codec, 32_000)
        return
    coded = recode(sound, rate_hz, codec, 64_000)
    assert coded.shape == sound.shape
    assert coded.dtype == np.float32
    assert signal.correlate(coded, sound, "full").argmax() == len(sound) - 1
    assert np.mean((coded - sound) ** 2) < 0.2 * np.mean(sound**2)
    begin = slice(0, 700)  # of which decoders drop what the encoder put before the sound, no more
    assert np.mean((coded[begin] - sound[begin]) ** 2) < 0.5 * np.mean(sound[begin] ** 2)
    assert not np.array_equal(coded, sound)
    np.testing.assert_array_equal(recode(sound, rate_hz, codec, 64_000), coded)
