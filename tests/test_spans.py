import itertools
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from udfs.blocks import Block
from udfs.spans import SegmentCutter


def blocks_of(title, rate, cuts, position=0):
    """A title (1, time) from `position` on, in blocks of the sizes `cuts`, over and over."""
    for size in itertools.cycle(cuts):
        if position >= title.shape[1]:
            return
        yield Block(position, rate, title[:, position : position + size], ("FC",))
        position += size


@settings(max_examples=200, deadline=None)
@given(
    length=st.integers(1, 40),
    hop=st.integers(1, 60),
    total=st.integers(0, 600),
    cuts=st.lists(st.integers(1, 90), min_size=1, max_size=30),
    edges=st.lists(st.integers(1, 20), max_size=4, unique=True),
)
def test_segments_do_not_depend_on_blocks_or_spans(length, hop, total, cuts, edges):
    rate = 10
    title = np.arange(total, dtype=np.float32)[None]
    expected = {k: k * hop for k in range(max(0, (total - length) // hop + 1))} if total >= length else {}
    found = {}
    borders = [0, *sorted(edges), math.inf]
    for start_s, stop_s in itertools.pairwise(borders):
        cutter = SegmentCutter.for_span(length, hop, rate, start_s, stop_s)
        for block in blocks_of(title, rate, cuts, max(0, start_s * rate - 5)):  # decoding begins a little early
            for number, samples, _ in cutter.push(block):
                assert number not in found
                found[number] = samples[0, 0]
                np.testing.assert_array_equal(samples[0], title[0, number * hop : number * hop + length])
    assert found == expected


def test_a_segment_over_a_gap_is_not_cut():
    cutter = SegmentCutter.for_span(10, 10, 10, 0, math.inf)
    blocks = [
        Block(0, 10, np.zeros((1, 25), np.float32), ("FC",)),
        Block(33, 10, np.zeros((1, 30), np.float32), ("FC",)),
    ]
    assert [number for block in blocks for number, _, _ in cutter.push(block)] == [0, 1, 4, 5]


@settings(max_examples=200, deadline=None)
@given(
    length=st.integers(2, 40),
    hop=st.integers(1, 60),
    total=st.integers(0, 300),
    cuts=st.lists(st.integers(1, 90), min_size=1, max_size=30),
    least=st.integers(1, 5),
)
def test_no_sample_at_the_end_is_left_out(length, hop, total, cuts, least):
    title = np.arange(1.0, total + 1, dtype=np.float32)[None]
    cutter = SegmentCutter.for_span(length, hop, 10, 0, math.inf)
    ends = [0]
    for block in blocks_of(title, 10, cuts):
        ends += [number * hop + length for number, _, _ in cutter.push(block)]
    tail = cutter.tail(least)
    # With gaps between segments the next one's begin counts.
    begun = ends[-1] if len(ends) == 1 or hop <= length else (len(ends) - 1) * hop
    assert (tail is not None) == (total - begun >= least)
    if tail is not None:
        first, samples, names, own = tail
        assert (samples.shape, names, first + own) == ((1, length), ("FC",), total)
        np.testing.assert_array_equal(samples[0, :own], title[0, first:])
        assert own == length or first == (len(ends) - 1) * hop
        assert first <= begun


def test_the_end_of_a_short_track_is_mirrored_once():
    cutter = SegmentCutter.for_span(10, 10, 10, 0, math.inf)
    assert list(cutter.push(Block(0, 10, np.array([[1.0, 2.0, 3.0, 4.0]], np.float32), ("FC",)))) == []
    first, samples, _, own = cutter.tail()
    assert (first, own, samples[0].tolist()) == (0, 4, [1, 2, 3, 4, 4, 3, 2, 1, 0, 0])


def test_a_tail_does_not_reach_over_a_gap():
    cutter = SegmentCutter.for_span(10, 10, 10, 0, math.inf)
    for position, samples in ((0, 25), (33, 9)):
        list(cutter.push(Block(position, 10, np.full((1, samples), position + 1.0, np.float32), ("FC",))))
    first, samples, _, own = cutter.tail()
    assert (first, own) == (40, 2)
    assert set(samples[0].tolist()) == {34.0, 0.0}


def test_memory_stays_bounded():
    cutter = SegmentCutter.for_span(10, 10, 10, 0, math.inf)
    for turn in range(1000):
        list(cutter.push(Block(turn * 7, 10, np.zeros((2, 7), np.float32), ("FL", "FR"))))
        assert cutter._held < 20
