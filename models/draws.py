"""Random numbers that several simulators draw."""

from typing import Any

import numpy as np


def log_uniform(rng: np.random.Generator, low: float, high: float, size: int | tuple[int, ...] | None = None) -> Any:
    """Numbers whose logarithm is spread evenly between two bounds: as many from 1 to 10 as from 10 to 100.

    Args:
        rng: the dice.
        low: least, more than 0.
        high: largest.
        size: of the array; None for one float.
    """
    return np.exp(rng.uniform(np.log(low), np.log(high), size))
