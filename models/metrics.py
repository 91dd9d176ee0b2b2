"""Figures of merit of a classifier, with their uncertainty."""

from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A figure and the ends of its 95 % interval; NaN where there is nothing to measure."""

    value: float
    low: float
    high: float


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes, classes): row = true class, column = predicted class.

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def recalls(matrix: np.ndarray) -> np.ndarray:
    """Recall by class (..., classes) of confusion matrices (..., classes, classes); NaN for absent classes.

    >>> recalls(np.array([[1, 1], [0, 1]])).tolist()
    [0.5, 1.0]
    """
    return ratio(np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(axis=-1))


def precisions(matrix: np.ndarray) -> np.ndarray:
    """Precision by class (..., classes) of confusion matrices (..., classes, classes); NaN where nothing was said.

    >>> precisions(np.array([[1, 1], [0, 1]])).tolist()
    [1.0, 0.5]
    """
    return ratio(np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(axis=-2))


def balanced_accuracy(matrix: np.ndarray) -> float:
    """Mean recall over the classes that occur.

    >>> balanced_accuracy(np.array([[1, 1], [0, 1]]))
    0.75
    """
    return float(mean_recall(matrix))


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Element by element; NaN where the whole is nothing."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole > 0, part / whole, np.nan)


def bootstrap(matrices: np.ndarray, rng: np.random.Generator, resamples: int = RESAMPLES) -> np.ndarray:
    """Confusion matrices (resamples, classes, classes) of catalogues drawn from the titles with replacement.

    Segments of one title resemble each other, so titles are drawn, not segments (a cluster bootstrap; Efron and
    Tibshirani, "An Introduction to the Bootstrap", 1993).

    Args:
        matrices: counts (titles, classes, classes), one matrix a title.
        rng: draws.
        resamples: how often.
    """
    titles = len(matrices)
    weights = rng.multinomial(titles, np.full(titles, 1.0 / titles), resamples)  # (resamples, titles)
    return np.asarray(np.tensordot(weights, matrices, axes=1))


def estimate(value: float, drawn: np.ndarray) -> Estimate:
    """A figure with the percentile interval of its resampled values (resamples,)."""
    if np.isnan(value) or np.isnan(drawn).all():
        return Estimate(float(value), float("nan"), float("nan"))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Estimate(float(value), float(low), float(high))


def mean_recall(matrices: np.ndarray) -> np.ndarray:
    """Balanced accuracy (...,) of confusion matrices (..., classes, classes)."""
    found = recalls(matrices)
    present = (~np.isnan(found)).sum(axis=-1)
    return ratio(np.nansum(found, axis=-1), present)


def paired_difference(new: np.ndarray, old: np.ndarray, rng: np.random.Generator) -> Estimate:
    """Balanced accuracy of one model minus another's on the same titles, by a paired bootstrap.

    Args:
        new: counts (titles, classes, classes).
        old: the same titles in the same order.
        rng: draws the titles, the same for both.
    """
    both = bootstrap(np.stack([new, old], axis=1), rng)  # (resamples, 2, classes, classes)
    accuracies = mean_recall(both)
    value = float(mean_recall(new.sum(axis=0)) - mean_recall(old.sum(axis=0)))
    return estimate(value, accuracies[:, 0] - accuracies[:, 1])
