import itertools
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from udfs.decoding import Block
from udfs.spans import SegmentCutter


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
        position, turn = max(0, start_s * rate - 5), 0  # decoding begins a little early
        while position < total:
            size = cuts[turn % len(cuts)]
            block = Block(position, rate, title[:, position : position + size], ("FC",))
            for number, samples, _ in cutter.push(block):
                assert number not in found
                found[number] = samples[0, 0]
                np.testing.assert_array_equal(samples[0], title[0, number * hop : number * hop + length])
            position, turn = position + size, turn + 1
    assert found == expected


def test_a_segment_over_a_gap_is_not_cut():
    cutter = SegmentCutter.for_span(10, 10, 10, 0, math.inf)
    blocks = [
        Block(0, 10, np.zeros((1, 25), np.float32), ("FC",)),
        Block(33, 10, np.zeros((1, 30), np.float32), ("FC",)),
    ]
    assert [number for block in blocks for number, _, _ in cutter.push(block)] == [0, 1, 4, 5]


def test_memory_stays_bounded():
    cutter = SegmentCutter.for_span(10, 10, 10, 0, math.inf)
    for turn in range(1000):
        list(cutter.push(Block(turn * 7, 10, np.zeros((2, 7), np.float32), ("FL", "FR"))))
        assert cutter._held < 20
