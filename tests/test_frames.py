"""Models with several frames a segment: events to the frame, whatever segment they lie in."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from signals import spans_of, write

from udfs import batches, contract, decoder, predict
from udfs.batches import ScanOptions
from udfs.blocks import Block
from udfs.contract import ContractError, ModelContract
from udfs.spans import SegmentCutter

RATE = 48_000
SEGMENT, MARGIN, FRAME = 16_384, 2_048, 128
CONTRACT = ModelContract(
    RATE, SEGMENT / RATE, (SEGMENT - 2 * MARGIN) / RATE, ("click",), frames=SEGMENT // FRAME, margin_s=MARGIN / RATE
)


class Peak:
    """The largest sample of each frame."""

    metadata = None

    def predict(self, waveforms):
        return np.abs(waveforms).reshape(len(waveforms), -1, FRAME).max(axis=2)[..., None]


@pytest.fixture
def rows_of(tmp_path, monkeypatch):
    """Scan a waveform (time,) in two spans; the rows of its segments."""
    monkeypatch.setitem(predict._predictors, ("peak", "cpu", "torch"), Peak())

    def rows(waveform):
        path = write(tmp_path / "t.wav", waveform[None].astype(np.float32))
        spans = spans_of(path, 0.0, 1.0, float("inf"), models=["peak/1"])
        model = contract.ShippedModel("peak", "1", "peak", "", CONTRACT)
        batches = predict.score_spans(spans, [model], ScanOptions(5), "cpu", lambda model: Path())
        found = [row for batch in batches for row in batch.to_pylist() if not row["is_report"]]
        decoder._kept.close()
        monkeypatch.setattr(decoder, "_kept", None)
        return sorted(found, key=lambda row: row["start_s"])

    return rows


def test_kept_parts_tile_the_title(rows_of):
    rows = rows_of(np.random.default_rng(0).uniform(-0.1, 0.1, 3 * RATE))
    assert rows[0]["start_s"] == 0
    for before, after in itertools.pairwise(rows):
        assert before["end_s"] == pytest.approx(after["start_s"], abs=1e-9)
    assert rows[-1]["end_s"] == pytest.approx(3, abs=FRAME / RATE)
    assert all(row["events"] == [] for row in rows)


def test_one_event_per_click_wherever_segments_meet(rows_of):
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 3 * RATE)
    border = SEGMENT - MARGIN  # where the first segment's part ends
    positions = [0, 5_000, border - 300, border - 1, border + 300, border + 12_288 - 64, 2 * RATE + 17]
    for at in positions:
        noise[at] = 0.9
    rows = rows_of(noise)
    events = [event for row in rows for event in row["events"]]
    assert [round(event["start_s"] * RATE / FRAME) for event in events] == [at // FRAME for at in positions]
    for event in events:
        assert event["label"] == "click"
        assert event["end_s"] - event["start_s"] == pytest.approx(FRAME / RATE)
        assert event["scores"] == [pytest.approx(0.9, abs=1e-3)]
    assert sum(dict(row["scores"])["click"] > 0.5 for row in rows) == len(
        {max((at - MARGIN) // 12_288, 0) for at in positions}
    )


@pytest.mark.parametrize(
    "samples", [60, 5_000, 12_288, 14_000, 14_400, SEGMENT, SEGMENT + 100, 24_576 + 2_048, 2 * RATE]
)
def test_the_last_sample_counts(rows_of, samples):
    waveform = np.zeros(samples)
    waveform[-1] = 0.9
    rows = rows_of(waveform)
    assert rows[-1]["end_s"] == pytest.approx(-(-samples // FRAME) * FRAME / RATE)
    [event] = [event for row in rows for event in row["events"]]
    assert event["start_s"] <= (samples - 1) / RATE < event["end_s"]


def test_a_track_that_ends_at_full_level_ends_without_a_step():
    sound = 0.9 * np.cos(np.arange(5_000) * 0.05)
    cutter = SegmentCutter.for_span(SEGMENT, CONTRACT.hop_samples, RATE, 0.0, math.inf)
    assert list(cutter.push(Block(0, RATE, sound[None], ("FC",)))) == []
    [(_, padded, _, length)] = batches._last_segment(cutter, CONTRACT)
    assert (padded.shape, length) == ((1, SEGMENT), 5_000)
    np.testing.assert_array_equal(padded[0, :5_000], sound)
    assert np.abs(np.diff(padded[0])).max() <= np.abs(np.diff(sound)).max()


def test_sliding_one_click_over_a_border_never_loses_it(rows_of):
    for at in range(SEGMENT - MARGIN - 3 * FRAME, SEGMENT - MARGIN + 3 * FRAME, 97):
        waveform = np.zeros(2 * RATE)
        waveform[at] = 0.8
        [event] = [event for row in rows_of(waveform) for event in row["events"]]
        assert event["start_s"] <= at / RATE < event["end_s"]


def test_neighbouring_frames_make_one_event(rows_of):
    waveform = np.zeros(2 * RATE)
    waveform[10 * FRAME : 14 * FRAME] = 0.7
    [event] = [event for row in rows_of(waveform) for event in row["events"]]
    assert (round(event["start_s"] * RATE), round(event["end_s"] * RATE)) == (10 * FRAME, 14 * FRAME)
    assert len(event["scores"]) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 0}, "frames must be a whole number from 1 on"),
        ({"margin_s": 0.2}, "margin_s must lie from 0 to half a segment"),
        ({"margin_s": 0.001}, "margin_s must be a whole number of frames"),
        ({"hop_s": 0.3}, "moments between segments are heard by none"),
        ({"event_score": 0.0}, "event_score must lie above 0"),
    ],
)
def test_contracts_of_frames_that_make_no_sense_are_refused(change, message):
    CONTRACT.check("peak/1")
    with pytest.raises(ContractError, match=message):
        replace(CONTRACT, **change).check("peak/1")


def test_output_of_other_frames_is_refused():
    from udfs.contract import predict as score

    with pytest.raises(ContractError, match=r"expected output \(2, 128, 1\)"):
        score(Peak(), np.zeros((2, 8_192), np.float32), CONTRACT, "peak/1")
