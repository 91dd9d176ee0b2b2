"""Pictures of an evaluation, as PNG files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


@contextmanager
def _figure(path: Path, **options: Any) -> Iterator[Any]:
    """Matplotlib's figure and axes, saved at the end."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(layout="constrained", **options)
    yield axes
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def draw_confusion(path: Path, title: str, classes: tuple[str, ...], matrix: np.ndarray) -> None:
    """A confusion matrix (classes, classes), rows true, columns said, as shares of the true class."""
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    with _figure(path, figsize=(6, 5)) as axes:
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (row, column), value in np.ndenumerate(share):
            axes.text(column, row, f"{value:.3f}", ha="center", va="center", color="white" if value > 0.5 else "black")
        ticks = range(len(classes))
        axes.set_xticks(ticks, classes, rotation=30)
        axes.set_yticks(ticks, classes)
        axes.set(xlabel="said", ylabel="true", title=f"{title}, share of the true class")


def draw_precision_recall(path: Path, title: str, curves: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Precision against recall, each (thresholds,), a curve a name."""
    with _figure(path, figsize=(6, 5)) as axes:
        for name, (precision, recall) in curves.items():
            axes.plot(recall, precision, label=name)
        axes.set(xlabel="recall", ylabel="precision", title=title, xlim=(0, 1.02), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.legend(loc="lower left")


def draw_recall_by_severity(path: Path, title: str, rows: list[dict[str, Any]]) -> list[Path]:
    """Recall against severity, a panel a simulator, of rows of `evaluations`; no picture where none is of a severity.

    Returns:
        The picture, if there is one.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["facet"] == "severity" and row["metric"] == "recall":
            found.setdefault(_simulator(row), []).append(row)
    if not found:
        return []
    with _figure(
        path, nrows=1, ncols=len(found), figsize=(3.2 * len(found), 3.4), sharey=True, squeeze=False
    ) as panels:
        for panel, (simulator, of_it) in zip(panels[0], sorted(found.items()), strict=True):
            of_it.sort(key=_least)
            values = np.array([row["value"] for row in of_it])
            spread = np.array([[row["value"] - row["low"], row["high"] - row["value"]] for row in of_it]).T
            panel.errorbar(range(len(of_it)), values, yerr=np.abs(spread), marker="o", capsize=3)
            panel.set_xticks(range(len(of_it)), [_range(row) for row in of_it], rotation=45, ha="right")
            panel.set(title=simulator, ylim=(0, 1.02))
            panel.grid(alpha=0.3)
        panels[0][0].set_ylabel(f"recall of {title}")
    return [path]


# A severity is named for its simulator: "hum -10..0 dB", "distortion 0.3".


def _simulator(row: dict[str, Any]) -> str:
    return str(row["facet_value"]).split(" ", 1)[0]


def _range(row: dict[str, Any]) -> str:
    return str(row["facet_value"]).split(" ", 1)[1]


def _least(row: dict[str, Any]) -> float:
    return float(_range(row).split(" ")[0].split("..")[0])
