"""Labelled catalogues: what is planted is what is told, and the same seed gives the same bytes."""

import hashlib
import json

import numpy as np
import pytest
from deltalake import DeltaTable
from signals import music_like, write

from jobs import simulate
from jobs.launch import AuscultError
from models.defects import OF_TASK
from udfs.decoding import decode
from udfs.loudness import SILENCE_LUFS, measure


@pytest.fixture
def clean(tmp_path):
    folder = tmp_path / "clean"
    write(folder / "music" / "a b.flac", music_like(9.0, 48_000, np.random.default_rng(0)) * 0.5, 44_100)
    write(folder / "c.wav", music_like(6.0, 48_000, np.random.default_rng(1), channels=1) * 0.5)
    (folder / "broken.mp3").write_text("x")
    return folder


def made(clean, out, *arguments):
    status = simulate.main(["--catalogue", str(clean), "--out", str(out), "--mean-interval-s", "1", *arguments])
    assert status == 0
    return {
        name: DeltaTable(str(out / name)).to_pyarrow_dataset().to_table().to_pylist() for name in ("titles", "labels")
    }


def samples(path):
    return np.concatenate([block.samples for block in decode(str(path), 0)], axis=1)


def test_labels_tell_where_samples_changed(spark, clean, tmp_path):
    tables = made(clean, tmp_path / "out", "--seed", "3")
    titles = {row["title_id"]: row for row in tables["titles"]}
    assert set(titles) == {
        f"{version}/{name}.flac" for version in ["clean", *OF_TASK["artifacts"]] for name in ("music/a b", "c")
    }
    assert {row["clean_title_id"] for row in titles.values()} == {"music/a b.flac", "c.wav"}
    assert {row["simulator"] for row in tables["labels"]} == set(OF_TASK["artifacts"])
    for title_id, row in titles.items():
        version, name = title_id.split("/", 1)
        before = samples(tmp_path / "out" / "audio" / "clean" / name)
        after = samples(tmp_path / "out" / "audio" / title_id)
        assert row["duration_s"] == after.shape[1] / 48_000
        intervals = [label for label in tables["labels"] if label["title_id"] == title_id]
        assert bool(intervals) == (version != "clean")
        if version == "click_reductive":
            removed = sum(sum(json.loads(label["parameters"])["lengths"]) for label in intervals)
            assert before.shape[1] - after.shape[1] == removed
            continue
        told = np.zeros(after.shape[1], dtype=bool)
        for label in intervals:
            assert label["channels"] == list(range(after.shape[0]))
            for event in label["events"]:
                assert label["start_s"] <= event["start_s"] < event["end_s"] <= label["end_s"]
                told[round(event["start_s"] * 48_000) : round(event["end_s"] * 48_000)] = True
        changed = (np.abs(after - before) > 1.5 / 32768).any(axis=0)  # FLAC rounds to 16 bits
        assert not (changed & ~told).any()
        if version in ("hum", "hiss"):
            assert changed[told].mean() > 0.7


def test_clicks_on_one_channel(spark, clean, tmp_path):
    (clean / "broken.mp3").unlink()
    arguments = ["--defects", "clicks", "--version", "clean", "--version", "click_offset", "--one-channel-share", "1"]
    tables = made(clean, tmp_path / "out", *arguments)
    stereo = [label for label in tables["labels"] if label["title_id"] == "click_offset/music/a b.flac"]
    assert stereo
    before, after = (
        samples(tmp_path / "out" / "audio" / kind / "music/a b.flac") for kind in ("clean", "click_offset")
    )
    for label in stereo:
        [channel] = label["channels"]
        for event in label["events"]:
            where = slice(round(event["start_s"] * 48_000), round(event["end_s"] * 48_000))
            np.testing.assert_array_equal(after[1 - channel, where], before[1 - channel, where])
            assert (after[channel, where] != before[channel, where]).any()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(spark, clean, tmp_path):
    def digests(out):
        return {
            path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (out / "audio").rglob("*.*")
        }

    formats = [part for name in ("opus", "mp3", "m4a", "wav") for part in ("--format", name)]
    one, two, other = (
        made(clean, tmp_path / name, *formats, "--seed", seed) for name, seed in [("1", "7"), ("2", "7"), ("3", "8")]
    )
    assert digests(tmp_path / "1") == digests(tmp_path / "2") != digests(tmp_path / "3")
    key = lambda row: (row["title_id"], row["start_s"])  # noqa: E731
    uriless = [[{**row, "clean_uri": ""} for row in sorted(tables["labels"], key=key)] for tables in (one, two)]
    assert uriless[0] == uriless[1]
    assert sorted(other["labels"], key=key) != sorted(one["labels"], key=key)


def test_titles_are_brought_to_a_loudness(spark, clean, tmp_path):
    made(clean, tmp_path / "out", "--loudness-lufs", "-23", "--version", "clean", "--version", "distortion")
    for name in ("music/a b", "c"):
        levelled = samples(tmp_path / "out" / "audio" / "clean" / f"{name}.flac")
        layout = "stereo" if len(levelled) == 2 else "mono"
        assert measure([levelled], 48_000, layout)[0] == pytest.approx(-23.0, abs=0.15)
    with pytest.raises(SystemExit):
        simulate.main(["--catalogue", str(clean), "--out", str(tmp_path / "no"), "--loudness-lufs", "3"])
    with pytest.raises(SystemExit):
        simulate.main(["--catalogue", str(clean), "--out", str(tmp_path / "no"), "--limit", "-1"])


@pytest.mark.parametrize(
    ("layout", "channels", "expected"), [("mono", 1, -23.0), ("stereo", 2, -20.0), ("5.1", 6, -15.35)]
)
def test_loudness_is_that_of_bs_1770(layout, channels, expected):
    # A sine of -20 dBFS at 997 Hz on one channel has -23 LUFS; the surrounds weigh 1.41, the LFE nothing (BS.1770-5).
    sine = 0.1 * np.sin(2 * np.pi * 997 * np.arange(5 * 48_000) / 48_000).astype(np.float32)
    waveform = np.repeat(sine[None], channels, axis=0)
    blocks = [waveform[:, :777], waveform[:, 777:100_000], waveform[:, 100_000:]]
    loudness, peak = measure(blocks, 48_000, layout)
    assert loudness == pytest.approx(expected, abs=0.1)
    assert peak == pytest.approx(0.1, rel=1e-3)
    assert measure([np.zeros((channels, 48_000), np.float32)], 48_000, layout) == (SILENCE_LUFS, 0.0)


def test_what_cannot_be_made_is_told(spark, clean, tmp_path):
    write(tmp_path / "two" / "a.flac", music_like(2.0, 48_000, np.random.default_rng(0)))
    write(tmp_path / "two" / "a.wav", music_like(2.0, 48_000, np.random.default_rng(0)))
    with pytest.raises(AuscultError, match="differ in their suffix only"):
        simulate.main(["--catalogue", str(tmp_path / "two"), "--out", str(tmp_path / "out")])


def test_a_title_that_is_cut_short_fades(clean, tmp_path):
    """The last 20 ms fall to nothing, whatever the blocks; what fits as a whole is left as it is."""
    from udfs.decoder import Decoder, encode_path
    from udfs.simulation import simulate as simulated

    decoder = Decoder()
    path = clean / "c.wav"
    waveforms = {}
    for seconds in (1.001, float("inf")):
        target = tmp_path / f"{seconds}.flac"
        simulated(decoder, encode_path(str(path)), target, "clean", np.random.default_rng(0), seconds, 10.0)
        waveforms[seconds] = samples(target)
    decoder.close()
    cut, whole = waveforms.values()
    assert cut.shape[1] == round(1.001 * 48_000)
    np.testing.assert_array_equal(cut[:, :-960], whole[:, : cut.shape[1] - 960])
    gain = np.arange(960, 0, -1) / 960 - 1 / 960
    np.testing.assert_allclose(cut[:, -960:], whole[:, cut.shape[1] - 960 : cut.shape[1]] * gain, atol=2e-4)
