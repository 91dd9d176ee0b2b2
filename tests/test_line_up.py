"""Line-up tones: told from hums and clicks by what else is to be heard, and left out of detections."""

import duckdb
import numpy as np
import pytest
from deltalake import DeltaTable
from scipy import signal

from jobs import detect, scan, sql
from tests import toy_models
from tests.signals import heard, music_like, write, write_as
from udfs.line_up import PITCHES_HZ, tone_hz

RATE_HZ = 48_000


def tone(pitch_hz, seconds=1.0, decibels=-18.0, rate_hz=RATE_HZ, phase=0.3):
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return (10 ** (decibels / 20) * np.sin(2 * np.pi * pitch_hz * time_s + phase)).astype(np.float32)


def noise(decibels, samples=RATE_HZ):
    return 10 ** (decibels / 20) * np.random.default_rng(0).standard_normal(samples)


@pytest.mark.parametrize("pitch_hz", [*PITCHES_HZ, 997.0, 1_002.5])
@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("decibels", [-38, -18, 0])
def test_the_pitch_of_a_tone(pitch_hz, rate_hz, decibels):
    found = tone_hz(tone(pitch_hz, 1.0, decibels, rate_hz), rate_hz)
    assert found == pytest.approx(pitch_hz, rel=0.002)


def test_a_tone_from_tape_or_through_a_lossy_codec_is_one(tmp_path):
    time_s = np.arange(RATE_HZ) / RATE_HZ
    flutter = 2 * np.pi * 1_000 * time_s + 0.3 * np.sin(2 * np.pi * 4 * time_s)  # 0.12 % up and down
    assert tone_hz(0.1 * np.sin(flutter) + noise(-65), RATE_HZ) == pytest.approx(1_000, rel=0.003)
    for container, codec in (("mp3", "libmp3lame"), ("adts", "aac"), ("ogg", "libopus")):
        path = write_as(tmp_path / f"tone.{container}", container, codec, RATE_HZ, "mono", {}, tone(1_000, 6.0))
        _, samples, _ = heard(path)
        second = samples[0, 2 * RATE_HZ : 3 * RATE_HZ]
        assert tone_hz(second, RATE_HZ) == pytest.approx(1_000, rel=0.002), codec


def test_a_tone_that_comes_and_goes_is_one():
    interrupted = tone(1_000)
    interrupted[12_000:24_000] = 0.0  # EBU Tech 3304: 250 ms, on the left
    beep = np.pad(tone(1_000, 1 / 24), (20_000, RATE_HZ - 20_000 - 2_000))  # two seconds ahead of the picture
    for waveform in (interrupted, beep, beep + noise(-90), interrupted[::-1]):
        assert tone_hz(waveform, RATE_HZ) == pytest.approx(1_000, rel=0.002)


@pytest.mark.parametrize("what", ["silence", "NaN", "noise", "speech", "click", "swell", "overtone", "two", "cut"])
def test_what_else_is_to_be_heard_makes_it_none(what):
    waveform = tone(1_000).astype(np.float64)
    if what == "silence":
        waveform[:] = 0.0
    elif what == "NaN":
        waveform[100] = np.nan
    elif what == "noise":
        waveform += noise(-36)
    elif what == "speech":
        waveform += 0.1 * music_like(1.0, RATE_HZ, np.random.default_rng(3))[0]
    elif what == "click":
        waveform[20_000:20_003] += 0.3
    elif what == "swell":
        waveform *= np.linspace(0.5, 1.0, RATE_HZ)
    elif what == "overtone":
        waveform += tone(2_000, 1.0, -38)
    elif what == "two":  # a telephone's
        waveform += tone(440)
    elif what == "cut":  # samples are lost in the middle of the tone
        waveform = np.concatenate([waveform[:20_000], waveform[20_017:]])
    assert tone_hz(waveform.astype(np.float32), RATE_HZ) is None


@pytest.mark.parametrize("pitch_hz", [50, 60, 100, 120, 180, 250, 300, 415, 523.25, 1_050])
def test_a_hum_is_none(pitch_hz):
    assert tone_hz(tone(pitch_hz), RATE_HZ) is None
    assert tone_hz(tone(1_000, decibels=-45), RATE_HZ) is None
    assert tone_hz(tone(1_000, 0.005), RATE_HZ) is None  # nor what is too short to say


def test_whatever_is_random_is_none():
    rng = np.random.default_rng(7)
    for _ in range(200):
        low, high = np.sort(rng.uniform(50, 20_000, 2))
        filtered = signal.sosfilt(
            signal.butter(2, [low, high + 100], "band", fs=RATE_HZ, output="sos"), rng.standard_normal(RATE_HZ)
        )
        assert tone_hz((0.3 * filtered / np.abs(filtered).max()).astype(np.float32), RATE_HZ) is None


@pytest.mark.slow
def test_no_detection_is_made_of_it(spark, module_folder):
    toy_models.register_level(module_folder / "code")
    catalogue = module_folder / "masters"
    catalogue.mkdir()
    programme = 0.3 * music_like(12.0, RATE_HZ, np.random.default_rng(5))
    bars = np.repeat(tone(1_000, 20.0, -9)[None], 2, axis=0)
    write(catalogue / "master.wav", np.concatenate([bars, programme], axis=1))
    write(catalogue / "hum.wav", np.concatenate([np.repeat(tone(250, 20.0, -9)[None], 2, axis=0), programme], axis=1))
    settings = module_folder / "points.yaml"
    settings.write_text("operating_points:\n  loud: {threshold: 0.2, min_detected_s: 6, window_s: 20}\n")
    warehouse = module_folder / "warehouse"
    where = ["--warehouse", str(warehouse), "--settings", str(settings)]
    assert scan.main(["--catalogue", str(catalogue), "--model", "models:/level@champion", *where]) == 0

    def detected():
        found = spark.read.format("delta").load(str(warehouse / "detections")).collect()
        return [(row.title_id, row.defect, row.start_s, row.end_s) for row in found]

    assert detected() == [("hum.wav", "loud", 0.0, 20.0)]
    table = spark.read.format("delta").load(str(warehouse / "segments"))
    found = table.where("line_up_hz IS NOT NULL").collect()
    assert {(row.title_id, row.channel, row.start_s) for row in found} == {
        ("master.wav", channel, float(second)) for channel in (0, 1) for second in range(20)
    }
    assert all(abs(row.line_up_hz - 1_000) < 2 and row.scores["loud"] > 0.2 for row in found)
    [stretch] = spark.sql(sql.text("line_up"), segments=table).collect()
    assert stretch.asDict() == {
        "title_id": "master.wav", "content_hash": found[0].content_hash, "track": 0, "start_s": 0.0, "end_s": 20.0,
        "pitches_hz": [1_000], "channels": ["FL", "FR"],
    }  # fmt: skip
    segments = DeltaTable(str(warehouse / "segments")).to_pyarrow_dataset()
    theirs = duckdb.sql(sql.text("line_up").format(segments="segments")).to_arrow_table().to_pylist()
    assert segments.count_rows()
    assert theirs == [stretch.asDict()]
    # A warehouse of an earlier version has no such column; its scores count as they did.
    earlier = table.drop("line_up_hz")
    earlier.write.format("delta").mode("overwrite").option("overwriteSchema", "true").save(str(warehouse / "segments"))
    assert detect.main(where) == 0
    assert sorted(detected()) == [("hum.wav", "loud", 0.0, 20.0), ("master.wav", "loud", 0.0, 20.0)]
