import itertools

import numpy as np
import pytest

from models.defects import (
    SHORTENING,
    SIMULATORS,
    click_additive,
    click_offset,
    click_reductive,
    distortion,
    hiss,
    hum,
    mp3_glitch,
    severity_of,
    underrun,
)
from models.intervals import draw_intervals, plant, plant_stream


def waveform_for(rate, channels, seed=0):
    rng = np.random.default_rng(seed)
    time_s = np.arange(rate * 3) / rate
    tones = sum(np.sin(2 * np.pi * f * time_s + rng.uniform(0, 6)) for f in (110, 431, 1333))
    return np.stack([0.2 * tones + 0.01 * rng.standard_normal(len(time_s)) for _ in range(channels)]).astype(np.float32)


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("name", SIMULATORS)
def test_mask_covers_what_changed_and_nothing_else(name, rate, channels):
    clean = waveform_for(rate, channels)
    before = clean.copy()
    parameters = SIMULATORS[name].draw(clean, rate, np.random.default_rng(1))
    defective, mask = SIMULATORS[name].apply(clean, rate, np.random.default_rng(2), **parameters)
    assert defective.dtype == np.float32
    assert mask.dtype == bool
    assert mask.shape == defective.shape
    np.testing.assert_array_equal(clean, before)  # the input is never written to
    assert mask.any()
    if name != "click_reductive":
        np.testing.assert_array_equal(mask, defective != clean)
    again, _ = SIMULATORS[name].apply(clean, rate, np.random.default_rng(2), **parameters)
    np.testing.assert_array_equal(defective, again)


@pytest.mark.parametrize("name", ["hum", "hiss", "distortion", "click_reductive"])
def test_full_scale_material_is_never_pushed_over(name):
    clean = waveform_for(48_000, 2)
    clean /= np.abs(clean).max() / 0.9
    parameters = SIMULATORS[name].draw(clean, 48_000, np.random.default_rng(3))
    defective, _ = SIMULATORS[name].apply(clean, 48_000, np.random.default_rng(3), **parameters)
    assert np.abs(defective).max() < 1.0


NOTHING = {
    "hum": {"frequency_hz": 50.0, "amplitude": 0.0},
    "hiss": {"amplitude": 0.0},
    "distortion": {"clip_level": 1.0},
    "click_additive": {"positions": [], "cutoffs": [], "signs": []},
    "click_reductive": {"starts": [], "lengths": []},
    "click_offset": {"positions": [], "offsets": []},
    "underrun": {"positions": [], "lengths": [], "manners": []},
    "mp3_glitch": {"probability": 0.0, "seed": 0},
}


@pytest.mark.parametrize("rate", [8_000, 48_000])
@pytest.mark.parametrize("name", SIMULATORS)
def test_zero_severity_changes_nothing(name, rate):
    clean = waveform_for(rate, 2)
    same, mask = SIMULATORS[name].apply(clean, rate, np.random.default_rng(0), **NOTHING[name])
    np.testing.assert_array_equal(same, clean)
    assert not mask.any()


def test_no_headroom_means_no_hum_and_silence_means_no_distortion():
    rng = np.random.default_rng(0)
    assert hum.draw(np.ones((1, 100), np.float32), 48_000, rng) is None
    assert hiss.draw(np.ones((1, 100), np.float32), 48_000, rng) is None
    assert distortion.draw(np.zeros((2, 100), np.float32), 48_000, rng) is None
    dither = rng.integers(-2, 3, (1, 100)).astype(np.float32) / 32768
    assert distortion.draw(dither, 48_000, rng) is None
    assert click_reductive.draw(np.zeros((2, 48_000), np.float32), 48_000, rng) is None


def test_hum_has_its_frequency_and_amplitude():
    silent = np.zeros((1, 48_000), np.float32)
    tone, _ = hum.apply(silent, 48_000, np.random.default_rng(0), frequency_hz=100, amplitude=0.25)
    spectrum = np.abs(np.fft.rfft(tone[0])) / 24_000
    assert spectrum.argmax() == 100
    assert spectrum[100] == pytest.approx(0.25, rel=1e-3)


def test_half_of_the_hums_lie_between_whole_frequencies():
    rng = np.random.default_rng(0)
    frequencies_hz = np.array(
        [hum.draw(np.zeros((1, 100), np.float32), 48_000, rng)["frequency_hz"] for _ in range(2000)]
    )
    is_whole = frequencies_hz == np.round(frequencies_hz)
    assert 900 < is_whole.sum() < 1100
    assert 20 < frequencies_hz.min() < 30
    assert frequencies_hz.max() < 1220
    parts = np.histogram((frequencies_hz - np.round(frequencies_hz))[~is_whole], 10, (-0.5, 0.5))[0]
    assert parts.min() > 60  # of 100 on average


def test_overtones_of_a_hum_have_their_levels_and_stay_within_its_amplitude():
    silent = np.zeros((1, 48_000), np.float32)
    tone, _ = hum.apply(
        silent, 48_000, np.random.default_rng(0), frequency_hz=1_000, amplitude=0.3, overtones=[0.5, 0.25, *[0.0] * 19, 1.0]
    )  # fmt: skip
    spectrum = np.abs(np.fft.rfft(tone[0])) / 24_000
    first = 0.3 / 2.75
    assert spectrum[[1_000, 2_000, 3_000, 23_000]] == pytest.approx([first, first / 2, first / 4, first], rel=1e-3)
    assert np.abs(tone).max() <= 0.3
    low, _ = hum.apply(
        silent[:, :8_000], 8_000, np.random.default_rng(0), frequency_hz=1_000, amplitude=0.3, overtones=[0.5, 0.5, 0.5]
    )
    assert np.abs(np.fft.rfft(low[0]))[[1_000, 2_000, 3_000]] / 4_000 == pytest.approx([0.15, 0.075, 0.075], rel=1e-3)


def test_overtones_begin_where_their_phases_say():
    phases_rad, turns = [0.4, 2.0], 2 * np.pi * np.arange(48_000) / 48_000
    tone, _ = hum.apply(
        np.zeros((1, 48_000), np.float32), 48_000, np.random.default_rng(0),
        frequency_hz=50, amplitude=0.4, phase_rad=1.0, overtones=[2.0, 1.0], overtone_phases_rad=phases_rad,
    )  # fmt: skip
    expected = 0.1 * np.sin(50 * turns + 1.0) + 0.2 * np.sin(100 * turns + 0.4) + 0.1 * np.sin(150 * turns + 2.0)
    assert tone[0] == pytest.approx(expected, abs=1e-6)


def test_hiss_is_white_bounded_and_independent_by_channel():
    noisy, _ = hiss.apply(np.zeros((2, 96_000), np.float32), 48_000, np.random.default_rng(0), amplitude=0.3)
    assert np.abs(noisy).max() <= 0.3
    assert noisy.std() == pytest.approx(0.3 / np.sqrt(3), rel=0.02)
    assert abs(np.corrcoef(noisy)[0, 1]) < 0.02
    bands = np.add.reduceat(np.abs(np.fft.rfft(noisy[0])) ** 2, np.arange(0, 48_001, 6_000)[:-1])
    assert bands.max() / bands.min() < 1.2


def test_coloured_hiss_has_its_tilt_its_cutoff_and_its_bound():
    from scipy import signal

    silent = np.zeros((2, 480_000), np.float32)
    octaves_hz = 125 * 2 ** np.arange(7)  # to 8 kHz

    def levels_db(**colour):
        noisy, mask = hiss.apply(silent, 48_000, np.random.default_rng(0), amplitude=0.3, **colour)
        assert np.abs(noisy).max() == pytest.approx(0.3, rel=1e-4)
        assert mask.mean() > 0.999
        assert abs(np.corrcoef(noisy)[0, 1]) < 0.02
        frequency_hz, power = signal.welch(noisy[0], 48_000, nperseg=8192)
        at = [np.abs(frequency_hz / octave_hz - 1) < 0.1 for octave_hz in octaves_hz]
        return 10 * np.log10([power[near].mean() for near in at])

    assert np.diff(levels_db(tilt_db=-3.0)) == pytest.approx([-3.0] * 6, abs=1.0)
    assert np.diff(levels_db(tilt_db=2.0)) == pytest.approx([2.0] * 6, abs=1.0)
    limited = levels_db(cutoff_hz=2_000.0)
    assert limited[4] - limited[0] == pytest.approx(-3.0, abs=0.7)
    assert limited[6] - limited[0] == pytest.approx(-24.1, abs=0.7)  # two octaves of 12 dB
    begun = levels_db(low_hz=1_000.0)
    assert begun[3] - begun[6] == pytest.approx(-2.9, abs=0.7)
    assert begun[0] - begun[6] == pytest.approx(-18.0, abs=0.7)  # three octaves of 6 dB


def test_distortion_may_bend_one_side_only():
    clean = np.float32([[0.2, -0.9, 0.8, -0.6, 0.55]])
    clipped, mask = distortion.apply(clean, 48_000, np.random.default_rng(0), clip_level=0.5, sides=(1.4, 1.0))
    assert clipped[0] == pytest.approx([0.2, -0.7, 0.5, -0.6, 0.5])
    assert mask[0].tolist() == [False, True, True, False, True]


def test_additive_click_matches_scipys_filter():
    from scipy import signal

    impulse = np.zeros(300)
    impulse[50] = 1.0
    reference = signal.sosfilt(signal.butter(3, 0.4, output="sos"), impulse)
    clicked, _ = click_additive.apply(
        np.zeros((1, 300), np.float32), 48_000, np.random.default_rng(0), positions=[50.0], cutoffs=[0.2], signs=[1.0]
    )
    np.testing.assert_allclose(clicked[0], reference, atol=1 / 32768)


def test_reductive_click_jumps_and_crosses_zero():
    clean = waveform_for(48_000, 1)
    drawn = click_reductive.draw(clean, 48_000, np.random.default_rng(4))
    shorter, mask = click_reductive.apply(clean, 48_000, np.random.default_rng(0), **drawn)
    assert shorter.shape[1] == clean.shape[1] - sum(drawn["lengths"])
    removed = 0
    for start, length in zip(drawn["starts"], drawn["lengths"], strict=True):
        joint = int(start - removed)
        assert abs(shorter[0, joint] - shorter[0, joint - 1]) >= click_reductive.MIN_JUMP
        assert mask[0, joint - 1 : joint + 1].all()
        piece = clean[0, int(start) - 1 : int(start + length) + 1]
        assert piece.min() < 0 <= piece.max()
        removed += length


def test_intervals_tile_the_title_and_alternate():
    intervals = list(draw_intervals(300.0, np.random.default_rng(5)))
    assert intervals[0][0] == 0.0
    assert intervals[-1][1] == 300.0
    for (_, end, was), (start, _, is_now) in itertools.pairwise(intervals):
        assert start == end
        assert was != is_now
    lengths = [e - s for s, e, _ in draw_intervals(200_000.0, np.random.default_rng(6))]
    assert np.mean(lengths) == pytest.approx(10.5, rel=0.05)


@pytest.mark.parametrize("name", SIMULATORS)
def test_planting_leaves_the_rest_alone(name):
    clean = waveform_for(48_000, 2)
    defective, planted = plant(clean, 48_000, name, [(1.0, 2.0)], np.random.default_rng(8))
    assert len(planted) == 1
    assert 1.0 <= planted[0].start_s < planted[0].end_s <= 2.0
    np.testing.assert_array_equal(defective[:, :48_000], clean[:, :48_000])
    np.testing.assert_array_equal(defective[:, -48_000:], clean[:, -48_000:])


@pytest.mark.parametrize("name", SIMULATORS)
def test_a_defect_on_one_channel_leaves_the_others_alone(name):
    clean = waveform_for(48_000, 3)
    on_one = []
    pieces = plant_stream(
        [clean], 48_000, name, [(0.2, 1.2), (1.5, 2.5)], np.random.default_rng(9), on_one, one_channel_share=1.0
    )
    defective = np.concatenate(list(pieces), axis=1)
    assert len(on_one) == 2
    for interval in on_one:
        if name in SHORTENING:
            assert interval.channels == (0, 1, 2)
            continue
        assert len(interval.channels) == 1
        where = slice(round(interval.start_s * 48_000), round(interval.end_s * 48_000))
        changed = (defective[:, where] != clean[:, where]).any(axis=1)
        assert np.flatnonzero(changed).tolist() == list(interval.channels)


def test_offset_clicks_are_one_to_three_samples_of_the_papers_size_and_never_clip():
    loud = np.random.default_rng(0).uniform(-1, 1, (2, 10 * 44_100)).astype(np.float32)
    drawn = click_offset.draw(loud, 44_100, np.random.default_rng(1))
    clicked, mask = click_offset.apply(loud, 44_100, np.random.default_rng(2), **drawn)
    changed = np.abs(clicked - loud)[mask]
    assert 0.3 - 1e-6 <= changed.min() <= changed.max() < 1.0
    assert np.abs(clicked).max() <= 1.0
    assert mask.sum(axis=1).tolist() == [sum(map(len, drawn["offsets"]))] * 2
    assert {len(sizes) for sizes in drawn["offsets"]} <= {1, 2, 3}


def test_offset_click_goes_the_other_way_where_it_would_clip():
    signal = np.float32([[0.9, -0.9, 0.0]])
    clicked, _ = click_offset.apply(signal, 44_100, np.random.default_rng(0), positions=[0], offsets=[[0.5, -0.5, 0.5]])
    np.testing.assert_allclose(clicked, [[0.4, -0.4, 0.5]], atol=1e-6)


@pytest.mark.parametrize(
    ("manner", "expected"), [("silence", [1, 2, 0, 0, 5]), ("hold", [1, 2, 2, 2, 5]), ("repeat", [1, 2, 1, 2, 5])]
)
def test_underrun_loses_the_sound_as_its_manner_says(manner, expected):
    signal = np.float32([[1, 2, 3, 4, 5]]) / 10
    lost, mask = underrun.apply(signal, 44_100, np.random.default_rng(0), positions=[2], lengths=[2], manners=[manner])
    np.testing.assert_allclose(lost * 10, [expected], atol=1e-6)
    assert mask.tolist() == [[False, False, True, True, False]]


def test_underruns_that_are_drawn_can_be_heard():
    """One end at least bends the waveform by more than anything around it; a quiet stretch holds none."""
    clean = waveform_for(44_100, 1)
    clean[:, 44_100 : 2 * 44_100] *= 1e-3
    for seed in range(20):
        drawn = underrun.draw(clean, 44_100, np.random.default_rng(seed))
        for position, length, manner in zip(drawn["positions"], drawn["lengths"], drawn["manners"], strict=True):
            assert not 44_100 + 256 < position < 2 * 44_100 - length - 256
            lost, _ = underrun.apply(
                clean, 44_100, np.random.default_rng(0), positions=[position], lengths=[length], manners=[manner]
            )
            bends = [np.abs(np.diff(x[0, position - 200 : position + length + 200], 2)).max() for x in (lost, clean)]
            assert bends[0] > max(0.01, bends[1])


def test_underrun_of_silence_is_none():
    assert underrun.draw(np.zeros((1, 48_000), np.float32), 48_000, np.random.default_rng(0)) is None


@pytest.mark.parametrize(("rate", "coded_hz"), [(44_100, 44_100), (96_000, 48_000)])
def test_glitches_are_what_damage_to_the_mp3_changes(rate, coded_hz):
    clean = waveform_for(rate, 2)
    broken, mask = mp3_glitch.apply(clean, rate, np.random.default_rng(0), probability=0.1, seed=5)
    assert np.abs(broken).max() <= 1.0
    hit = mask.reshape(2, -1, rate // 100).any(axis=2)  # by 10 ms
    assert 0.05 < hit.mean() < 0.6
    assert (hit[0] & hit[1]).sum() > 0.5 * hit[0].sum()  # both channels in the same frames of their streams
    if rate == coded_hz:
        decoded, damaged = mp3_glitch.damaged(clean[0], rate, np.random.default_rng(5), 0.1)
        unclipped = mask[0] & (np.abs(broken[0]) < 1.0)
        np.testing.assert_allclose((broken - clean)[0][unclipped], (damaged - decoded)[unclipped], atol=1e-6)
    assert -50 < severity_of("mp3_glitch", clean, broken, mask, {}) < 30


def test_silence_has_no_glitch():
    assert mp3_glitch.draw(np.zeros((2, 48_000), np.float32), 48_000, np.random.default_rng(0)) is None
