"""What a task of the scan does with its spans, without Spark: one decode, no work twice, nothing left out."""

from pathlib import Path

import numpy as np
import pytest
import toy_models
from signals import music_like, spans_of, write

from udfs import batches, contract, decoder, predict
from udfs.batches import ScanOptions
from udfs.decoder import Decoder
from udfs.stages import StageClock

SECOND = 48_000


class Level:
    """The loudness of each waveform, as `toy_models.LEVEL` says; remembers what it was given."""

    metadata = None

    def __init__(self):
        self.seen = []
        self.calls = []  # how many each time

    def predict(self, waveforms):
        self.seen.extend(waveforms.copy())
        self.calls.append(len(waveforms))
        loud = np.abs(waveforms).mean(axis=1, dtype=np.float64)
        return np.stack([1 - loud, loud], axis=1)


@pytest.fixture
def level(monkeypatch):
    """The predictor of `scored`, and a decoder that ends with the test."""
    level = Level()
    monkeypatch.setitem(predict._predictors, ("level", "cpu", "torch"), level)
    monkeypatch.setattr(decoder, "_kept", None)
    yield level
    if decoder._kept is not None:
        decoder._kept.close()


def scored(spans, batch_segments=64, **options):
    """The rows of segments and reports, without their times."""
    model = contract.ShippedModel("level", "1", "level", "", toy_models.LEVEL)
    batches = predict.score_spans(spans, [model], ScanOptions(batch_segments, **options), "cpu", lambda model: Path())
    return [row for batch in batches for row in batch.drop_columns("stages_s").to_pylist()]


def segments_of(rows):
    return sorted((row["channel"], row["start_s"], row["end_s"]) for row in rows if not row["is_report"])


def test_one_pass_decodes_each_span_once(tmp_path, monkeypatch):
    asked = []
    path = write(tmp_path / "a.flac", music_like(12.5, 44_100, np.random.default_rng(1)) * 0.5, 44_100)
    models = [
        contract.ShippedModel("level", "1", "", "", toy_models.LEVEL),
        contract.ShippedModel("frames", "1", "", "", toy_models.FRAMES),
    ]

    class Counting(Decoder):
        def decode(self, *args, **kwargs):
            asked.append(args[4])
            return super().decode(*args, **kwargs)

    monkeypatch.setattr(decoder, "_kept", Counting(120.0))
    open_batches: dict = {}
    for span in spans_of(path, 0.0, 6.0, float("inf"), models=("level/1", "frames/1")):
        report = batches._produce_span(span, models, ScanOptions(), open_batches, lambda item: None, StageClock())
        assert report["error_code"] is None
    decoder._kept.close()
    assert asked == [[16_000, 48_000]] * 2  # both rates from one decode


@pytest.mark.parametrize("batch_segments", [1, 2, 5, 64])
def test_equal_channels_and_silence_are_scored_once(tmp_path, level, batch_segments):
    """Six channels of which some are equal, some silent, some only for a while: fewer waveforms, the same rows."""
    waveform = np.random.default_rng(1).uniform(-0.5, 0.5, (6, 8 * SECOND)).astype(np.float32)
    waveform[1] = waveform[0]
    waveform[2, 2 * SECOND :] = waveform[0, 2 * SECOND :]
    waveform[3] = 0.0
    waveform[4, : 4 * SECOND] = 0.0
    waveform[:, 6 * SECOND : 7 * SECOND] = 0.0
    waveform[5, SECOND // 2] += 0.01  # one sample apart from ...
    waveform[4, 5 * SECOND :] = waveform[5, 5 * SECOND :]
    spans = spans_of(write(tmp_path / "six.wav", waveform, layout="5.1"), 0.0, 3.0, float("inf"))
    every = scored(spans, batch_segments, equal_channels_once=False, silence_once=False)
    waveforms = len(level.seen)
    once = scored(spans, batch_segments)
    fewer = len(level.seen) - waveforms
    assert max(level.calls) <= batch_segments
    assert sorted(map(str, once)) == sorted(map(str, every))
    assert len(every) == 6 * 8 + 2
    assert waveforms == 6 * 8
    distinct = sum(
        len({channel.tobytes() for channel in waveform[:, k * SECOND : (k + 1) * SECOND] if channel.any()})
        for k in range(8)
    )
    assert distinct < 24
    # Silence once, and again what a batch's end parts from its equal.
    assert distinct + 1 <= fewer <= distinct + 1 + (distinct // batch_segments) * 2


@pytest.mark.parametrize("edges", [(0.0, float("inf")), (0.0, 2.0, float("inf"))])
@pytest.mark.parametrize(
    ("duration_s", "last"),
    [
        (4.0, (3.0, 4.0)),
        (4.09, (3.0, 4.0)),  # no more than a codec adds
        (4.1, (3.1, 4.1)),
        (4.75, (3.75, 4.75)),
    ],
)
def test_the_last_segment_ends_with_the_track(tmp_path, level, edges, duration_s, last):
    samples = round(duration_s * SECOND)
    waveform = np.random.default_rng(2).uniform(-0.5, 0.5, (2, samples)).astype(np.float32)
    rows = scored(spans_of(write(tmp_path / "t.wav", waveform), *edges))
    whole = [(float(start), start + 1.0) for start in range(4)]
    expected = sorted({*whole, last})
    np.testing.assert_allclose(segments_of(rows), [(channel, *place) for channel in range(2) for place in expected])
    for row in rows:
        if not row["is_report"]:
            begin, end = (round(row[name] * SECOND) for name in ("start_s", "end_s"))
            said = dict(row["scores"])["loud"]
            assert said == pytest.approx(np.abs(waveform[row["channel"], begin:end]).mean(), abs=1e-3)


@pytest.mark.parametrize(("duration_s", "heard_s"), [(0.05, None), (0.3, 0.6), (0.8, 1.0)])
def test_a_title_shorter_than_a_segment_is_scored(tmp_path, level, duration_s, heard_s):
    sound = np.full((1, round(duration_s * SECOND)), 0.5, np.float32)
    rows = scored(spans_of(write(tmp_path / "t.wav", sound), 0.0, float("inf")))
    if heard_s is None:  # less than a codec's padding may be nothing
        assert segments_of(rows) == []
        return
    assert segments_of(rows) == [(0, 0.0, pytest.approx(duration_s))]
    [waveform] = level.seen
    assert np.count_nonzero(waveform) == round(heard_s * SECOND)
