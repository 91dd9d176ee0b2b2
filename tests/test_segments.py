"""Segments drawn for training: what they carry, and that only the defect tells them apart."""

import numpy as np
import pytest
from signals import music_like

from models import segments
from models.cnn6 import LABELS
from models.segments import NoRoomForDefects, SegmentSource, muting
from models.tasks import TASKS


def test_silent_recordings_end_the_drawing(tmp_path):
    """Without an end to it, a folder of silence would train for ever."""
    np.save(tmp_path / "silence.npy", np.zeros((1, 96_000), dtype=np.int16))
    source = TASKS["artifacts"].source([tmp_path / "silence.npy"], 48_000, 4, False)  # hum would do, clipping cannot
    with pytest.raises(NoRoomForDefects, match="silent"):
        source.draw(0.5, np.random.default_rng(0))


def test_segments_carry_what_their_label_says(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, (music_like(20.0, 48_000, np.random.default_rng(1)) * 20_000).astype(np.int16))
    source = SegmentSource([path], 48_000)
    rng = np.random.default_rng(0)
    groups = [source.draw(1.0, rng) for _ in range(50)]
    drawn = [pair for group in groups for pair in group]
    labels = np.array([label for _, label in drawn])
    assert all(segment.shape == (48_000,) and segment.dtype == np.float32 for segment, _ in drawn)
    assert np.abs([segment for segment, _ in drawn]).max() <= 1.6  # what is resampled after clipping overshoots
    assert set(labels) == set(range(len(LABELS)))
    for group in groups:
        assert group[0][1] == 0
        assert len({label for _, label in group}) == source.group == 3
    again = [source.draw(1.0, r) for r in [np.random.default_rng(0)] for _ in range(3)]
    for first, second in zip(groups, again, strict=False):
        for (segment, label), (same, its_label) in zip(first, second, strict=True):
            np.testing.assert_array_equal(segment, same)
            assert label == its_label


def test_a_group_differs_in_its_defects_alone(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, (music_like(20.0, 48_000, np.random.default_rng(1)) * 20_000).astype(np.int16))
    source = SegmentSource([path], 48_000, defects=4, is_varied=False)
    rng = np.random.default_rng(2)
    heard = dict.fromkeys(LABELS[1:], 0)
    for _ in range(20):
        (clean, _), *others = source.draw(1.0, rng)
        assert {LABELS[label] for _, label in others} == set(LABELS[1:])
        is_coded = len(np.unique(np.round(clean * 32768) - clean * 32768)) > 1
        for segment, label in others:
            difference = segment - clean
            assert np.abs(difference).max() > 0
            if is_coded:
                continue
            heard[LABELS[label]] += 1
            if LABELS[label] == "hum":  # one line in the spectrum, where it is on for all of the segment
                power = np.abs(np.fft.rfft(difference * np.hanning(48_000))) ** 2
                assert power.argmax() < 1250
            if LABELS[label] == "distortion":
                changed = difference != 0
                assert np.ptp(np.abs(segment[changed])) <= 2 / 32768
    assert min(heard.values()) > 0


@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 96_000])
def test_defects_of_another_rate_are_those_of_a_file_that_is_resampled(tmp_path, monkeypatch, rate_hz):
    monkeypatch.setattr(segments, "OTHER_RATE_SHARE", 1.0)
    monkeypatch.setattr(segments, "OTHER_RATES_HZ", (rate_hz,))
    monkeypatch.setattr(segments, "through_codec", lambda waveform, rate, rng: waveform)
    path = tmp_path / "a.npy"
    np.save(path, (music_like(20.0, 48_000, np.random.default_rng(1)) * 20_000).astype(np.int16))
    source = segments.SegmentSource([path], 48_000, defects=4)
    rng, frequency_hz = np.random.default_rng(3), np.fft.rfftfreq(48_000, 1 / 48_000)
    for _ in range(6):
        for segment, label in source.draw(1.0, rng):
            assert segment.shape == (48_000,)
            assert segment.dtype == np.float32
            power = np.abs(np.fft.rfft(segment * np.hanning(48_000))) ** 2
            above = power[frequency_hz > 0.55 * rate_hz]
            assert above.sum() <= 1e-3 * power.sum(), LABELS[label]  # half of the rate is all that such a file holds
            if LABELS[label] == "distortion":  # flat before, not any more
                at_top = np.abs(segment) == np.abs(segment).max()
                assert at_top.sum() <= 2


def test_muting_is_silent_to_the_sample():
    rng = np.random.default_rng(0)
    gains = [muting(57_600, 48_000, rng) for _ in range(50)]
    for gain in gains:
        assert gain.shape == (57_600,)
        assert gain.dtype == np.float32
        assert 0.0 <= gain.min() <= gain.max() <= 1.0
        assert 0.02 < (gain == 0.0).mean() < 1.0
        assert np.abs(np.diff(gain)).max() < 0.25  # no shorter than a tenth of a millisecond from one to the other
    inner = [gain[4_800:-4_800] for gain in gains]  # without the margin, which is cut off later
    cut_off = [(gain[0] == 1.0) != (gain[-1] == 1.0) and np.count_nonzero(np.diff(gain == 0.0)) == 1 for gain in inner]
    assert sum(cut_off) > 10  # on one side of a moment there is sound, on the other none


def test_what_is_planted_sounds_on_where_the_recording_is_muted(tmp_path, monkeypatch):
    for name in ("OTHER_RATE", "LOWERED", "SILENT"):
        monkeypatch.setattr(segments, f"{name}_SHARE", 0.0)
    monkeypatch.setattr(segments, "MUTED_SHARE", 1.0)
    monkeypatch.setattr(segments, "through_codec", lambda waveform, rate, rng: waveform)
    path = tmp_path / "a.npy"
    np.save(path, (music_like(20.0, 48_000, np.random.default_rng(1)) * 20_000).astype(np.int16))
    source = segments.SegmentSource([path], 48_000, defects=4)
    rng = np.random.default_rng(3)
    shares = []
    for _ in range(15):
        (clean, _), *others = source.draw(1.0, rng)
        silent = clean == 0.0
        [noisy] = [segment for segment, label in others if LABELS[label] == "hiss"]
        if silent.mean() > 0.1 and (noisy != clean).mean() > 0.99:
            shares.append((noisy[silent] != 0.0).mean())
    assert len(shares) > 5
    assert min(shares) > 0.9


def test_mains_hum_has_its_pitches_and_overtones():
    rng = np.random.default_rng(0)
    drawn = [segments._real("hum", rng) for _ in range(2_000)]
    mains = [parameters for parameters in drawn if "overtone_phases_rad" in parameters]
    assert len(mains) / len(drawn) == pytest.approx(segments.MAINS_SHARE, abs=0.03)
    known_hz = np.array(segments.MAINS_HZ)
    for parameters in mains:
        assert np.abs(parameters["frequency_hz"] / known_hz - 1).min() <= segments.MAINS_TOLERANCE
        assert len(parameters["overtones"]) == len(parameters["overtone_phases_rad"])
    stronger = [max(parameters["overtones"], default=0.0) > 1.0 for parameters in mains]
    assert 0.2 < np.mean(stronger) < 0.8  # than the first tone


def test_a_floor_of_noise_is_no_defect(tmp_path, monkeypatch):
    """All segments of a group have it, the clean one as well, far below the sound."""
    shares = [name for name in vars(segments) if name.endswith("_SHARE")]
    for name in shares:
        monkeypatch.setattr(segments, name, 0.0)
    monkeypatch.setattr(segments, "FLOOR_SHARE", 1.0)
    monkeypatch.setattr(segments, "through_codec", lambda waveform, rate, rng: waveform)
    path, time_s = tmp_path / "a.npy", np.arange(48_000 * 20) / 48_000
    np.save(path, (np.sin(2 * np.pi * 480 * time_s)[None] * 10_000).round().astype(np.int16))
    source = segments.SegmentSource([path], 48_000, defects=1, intended_share=0.0)
    rng = np.random.default_rng(3)
    below_db = []
    for _ in range(40):
        (clean, label), _ = source.draw(1.0, rng)
        assert LABELS[label] == "no_defect"
        power = np.abs(np.fft.rfft(clean * np.hanning(48_000))) ** 2
        is_tone = np.abs(np.arange(24_001) - 480) < 5
        below_db.append(10 * np.log10(power[~is_tone].sum() / power[is_tone].sum()))
    low, high = segments.FLOOR_DB
    assert low - 1 < min(below_db) < low + 6
    assert high - 6 < max(below_db) < high + 1
