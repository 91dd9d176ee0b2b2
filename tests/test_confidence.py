"""Intervals hold what they are to hold as often as they say, from however few titles."""

import numpy as np
import pytest

from jobs import confidence


def estimates(titles, segments, rng, *, more, less):
    """(Truth, bootstrap's ends, estimate) of drawn catalogues whose titles' recalls follow a beta distribution."""
    for _ in range(300):
        found = rng.binomial(segments, rng.beta(more, less, titles))
        weights = rng.multinomial(titles, np.full(titles, 1 / titles), 300)
        drawn, value = weights @ found / (titles * segments), found.sum() / (titles * segments)
        estimate = confidence.of_share(float(value), drawn, titles, titles * segments)
        yield more / (more + less), np.percentile(drawn, [2.5, 97.5]), estimate


@pytest.mark.parametrize("titles", [2, 3, 5, 10, 25])
@pytest.mark.parametrize(("segments", "more", "less"), [(1, 9, 1), (200, 9, 1), (200, 90, 10)])
def test_intervals_hold_the_truth(titles, segments, more, less):
    drawn = list(estimates(titles, segments, np.random.default_rng(0), more=more, less=less))
    held = np.mean([found.low <= truth <= found.high for truth, _, found in drawn])
    assert held > 0.87
    if titles <= 3:
        assert np.mean([low <= truth <= high for truth, (low, high), _ in drawn]) < 0.8  # the bootstrap alone


def test_no_interval_is_narrower_than_the_bootstrap():
    for _, (low, high), found in estimates(6, 40, np.random.default_rng(1), more=3, less=1):
        assert found.low <= low <= high <= found.high
        assert 0 <= found.low <= found.value <= found.high <= 1


def test_many_titles_that_differ_speak_for_themselves():
    for _, ends, found in estimates(confidence.ENOUGH_TITLES, 200, np.random.default_rng(2), more=9, less=1):
        assert (found.low, found.high) == pytest.approx(tuple(ends))
    same = confidence.of_share(1.0, np.ones(100), titles=100, observations=20_000)
    assert (same.low, same.high) == pytest.approx(confidence.wilson(1.0, 100))


def test_what_is_of_nothing_has_no_interval():
    none = np.full(10, np.nan)
    for found in (
        confidence.of_share(np.nan, none, 0, 0),
        confidence.of_f1(np.nan, none, 0, 0),
        confidence.of_mean(np.nan, none, [], 0),
        confidence.of_rate(np.nan, none, 0, 0, 0.0),
    ):
        assert np.isnan([found.value, found.low, found.high]).all()


def test_a_rate_of_none_in_a_short_time_may_be_one_of_some():
    found = confidence.of_rate(0.0, np.zeros(100), titles=3, count=0, hours=0.5)
    assert found.low == 0
    assert found.high == pytest.approx(7.378, abs=0.001)
    many = confidence.of_rate(2.0, np.linspace(1.5, 2.5, 101), titles=3, count=20, hours=10.0)
    assert many.low < 1.5
    assert many.high > 2.5
