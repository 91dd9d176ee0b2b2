"""Figures of merit of a classifier."""

import numpy as np


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes, classes): row = true class, column = predicted class.

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def balanced_accuracy(matrix: np.ndarray) -> float:
    """Mean recall over the classes that occur.

    >>> balanced_accuracy(np.array([[1, 1], [0, 1]]))
    0.75
    """
    counts = matrix.sum(axis=1)
    present = counts > 0
    return float((np.diag(matrix)[present] / counts[present]).mean())
