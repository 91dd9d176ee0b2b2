"""Rows of the table evaluations."""

from typing import Any

from models.metrics import Estimate

SEED = 0  # of the bootstrap: the same table gives the same intervals
FACETS = ("format", "kind", "severity")
WHOLE = ("all", "all")  # facet and value of the figures over everything


def figure_row(
    part: tuple[str, str], label: str | None, metric: str, figure: Estimate | float, segments: float | None = None
) -> dict[str, Any]:
    """A figure as a row.

    Args:
        part: facet and value that it holds for.
        label: class or kind of event; None where the figure is over all.
        metric: its name.
        figure: with its interval where it has one.
        segments: of how many segments or events it is.
    """
    estimate = figure if isinstance(figure, Estimate) else None
    return {
        "facet": part[0],
        "facet_value": part[1],
        "label": label,
        "metric": metric,
        "value": figure if estimate is None else estimate.value,
        "low": None if estimate is None else estimate.low,
        "high": None if estimate is None else estimate.high,
        "segments": None if segments is None else int(segments),
    }
