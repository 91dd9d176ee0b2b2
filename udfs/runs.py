"""Where a series of yes and no says yes."""

import numpy as np


def runs_of(mask: np.ndarray) -> list[tuple[int, int]]:
    """First place and the place after the last of each run of True in a mask, bool (places,).

    >>> runs_of(np.array([True, True, False, True]))
    [(0, 2), (3, 4)]
    """
    borders = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return [(first, stop) for first, stop in borders.reshape(-1, 2).tolist()]
