"""95 % intervals of figures over titles that stay honest where the titles are few.

A bootstrap over titles shows how much they differ. Of two titles that are both right it shows nothing: every draw is right
as well, and the interval is 1.00 to 1.00. Each interval here is therefore the wider one, at either end, of the bootstrap's
and of one that is drawn from counts. A share's is Wilson's (E. B. Wilson, "Probable inference, the law of succession, and
statistical inference", 1927), of as many observations as its segments, events or titles are worth: that follows from how
much the titles differ and from how many there are to tell (E. L. Korn and B. I. Graubard, "Confidence intervals for
proportions with small expected number of positive counts estimated from survey data", 1998). It lies between the number of
titles and that of the observations, and is the number of titles where these do not differ at all.
"""

from collections.abc import Iterable

import numpy as np
from scipy import stats

from models import metrics
from models.metrics import Estimate

# So many titles that hold several segments or events each, and differ, show by themselves how much titles differ.
ENOUGH_TITLES = 30
LEVEL = 0.95
_TAIL = (1 - LEVEL) / 2


def wilson(value: float, observations: float) -> tuple[float, float]:
    """Wilson's interval of a share of so many observations.

    >>> [round(end, 3) for end in wilson(1.0, 2)]
    [0.342, 1.0]
    """
    z2_n = stats.norm.ppf(_TAIL) ** 2 / observations
    centre = (value + z2_n / 2) / (1 + z2_n)
    half = np.sqrt(z2_n * value * (1 - value) + z2_n**2 / 4) / (1 + z2_n)
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def of_share(value: float, drawn: np.ndarray, titles: int, observations: float) -> Estimate:
    """A share with its interval.

    Args:
        value: the share; NaN where there is nothing that it is of.
        drawn: (resamples,): the same of each draw of titles, NaN where a draw has nothing.
        titles: number of titles (or groups of them, where groups are drawn) that hold what the share is of.
        observations: how many segments, events or titles it is of.

    >>> found = of_share(1.0, np.ones(100), titles=2, observations=2)
    >>> round(found.low, 3), found.high
    (0.342, 1.0)
    """
    bootstrap = metrics.estimate(value, drawn)
    if np.isnan(bootstrap.low) or (observations > titles and _is_enough(drawn, titles)):
        return bootstrap
    return _wider(bootstrap, *wilson(value, _worth(value, drawn, titles, observations)))


def of_f1(value: float, drawn: np.ndarray, titles: int, observations: float) -> Estimate:
    """F1 with its interval: F1 is 2 J / (1 + J), and J the share that is right of all that is there or was said to be.

    Args:
        value: F1; NaN where there is nothing that it is of.
        drawn: (resamples,): the same of each draw of titles.
        titles: number of titles (or groups) with anything that is there or was said to be.
        observations: how many segments, events or titles are, or were said to be.

    >>> found = of_f1(1.0, np.ones(100), titles=2, observations=2)
    >>> round(found.low, 3), found.high
    (0.51, 1.0)
    """
    found = of_share(value / (2 - value), drawn / (2 - drawn), titles, observations)
    return Estimate(value, *(2 * end / (1 + end) for end in (found.low, found.high)))


def of_mean(value: float, drawn: np.ndarray, parts: Iterable[Estimate], titles: int) -> Estimate:
    """A mean of shares with its interval, from theirs (G. Y. Zou and A. Donner, "Construction of confidence limits ...", 2008).

    Args:
        value: the mean; NaN where there is none.
        drawn: (resamples,): the same of each draw of titles.
        parts: the shares; those that are NaN are not in the mean.
        titles: number of titles.

    >>> found = of_mean(1.0, np.ones(100), [of_share(1.0, np.ones(100), 2, 80)] * 2, titles=2)
    >>> round(found.low, 3), found.high
    (0.535, 1.0)
    """
    bootstrap = metrics.estimate(value, drawn)
    known = [part for part in parts if not np.isnan(part.low)]
    if np.isnan(bootstrap.low) or not known or _is_enough(drawn, titles):
        return bootstrap
    down, up = (
        np.sqrt(sum((getattr(part, end) - part.value) ** 2 for part in known)) / len(known) for end in ("low", "high")
    )
    return _wider(bootstrap, max(0.0, value - float(down)), min(1.0, value + float(up)))


def of_rate(value: float, drawn: np.ndarray, titles: int, count: float, hours: float) -> Estimate:
    """A count per hour with its interval; beside the bootstrap's Garwood's for counts that obey Poisson (1936).

    Args:
        value: the rate; NaN where there are no hours.
        drawn: (resamples,): the same of each draw of titles.
        titles: number of titles.
        count: of what.
        hours: in how many.

    >>> found = of_rate(0.0, np.zeros(100), titles=2, count=0, hours=2.0)
    >>> found.low, round(found.high, 2)
    (0.0, 1.84)
    """
    bootstrap = metrics.estimate(value, drawn)
    if np.isnan(bootstrap.low) or _is_enough(drawn, titles):
        return bootstrap
    low = stats.chi2.ppf(_TAIL, 2 * count) / 2 if count else 0.0
    return _wider(bootstrap, float(low / hours), float(stats.chi2.ppf(1 - _TAIL, 2 * count + 2) / 2 / hours))


def _worth(value: float, drawn: np.ndarray, titles: int, observations: float) -> float:
    """How many independent observations a share is worth."""
    if _is_without_spread(drawn):
        return titles
    known = value * (1 - value) / np.nanvar(drawn)
    # That the spread is itself told from few titles costs as much as Student's t is wider for them.
    known *= (stats.t.ppf(_TAIL, observations - 1) / stats.t.ppf(_TAIL, titles - 1)) ** 2
    return float(np.clip(known, titles, observations))


def _is_enough(drawn: np.ndarray, titles: int) -> bool:
    return titles >= ENOUGH_TITLES and not _is_without_spread(drawn)


def _is_without_spread(drawn: np.ndarray) -> bool:
    return bool(np.nanmax(drawn) - np.nanmin(drawn) < 1e-9)


def _wider(one: Estimate, low: float, high: float) -> Estimate:
    return Estimate(one.value, min(one.low, low), max(one.high, high))
