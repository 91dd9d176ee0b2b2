"""What detectors are trained for: which segments they see, what they are to say of them, and how that is judged."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from models.checkpoint import Network
from models.clicks import ClickSource
from models.defects import OF_TASK, labels_of
from models.distributed import summed
from models.glitches import GlitchSource
from models.metrics import balanced_accuracy, confusion_matrix
from models.segments import SegmentSource
from models.serving import Classifier

THRESHOLDS = 1000  # steps of the score at which frames are counted


@dataclass(frozen=True)
class Task:
    """A kind of detector.

    Args:
        architectures: networks that can learn it.
        source: (recordings, sample rate in Hz, defects beside each clean segment, whether varied as training needs
            it) to where segments are drawn.
        loss: (output of the network, targets) to the mean loss.
        judge: (served network, segments (b, n), targets) to figures, over all processes that train together; `figure`
            names the one by which the best network is chosen.
        figure: see `judge`.
        labels: the network's classes; empty where its outputs are no classes.
    """

    architectures: tuple[str, ...]
    source: Callable[[list[Path], int, int, bool], SegmentSource]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    judge: Callable[[Classifier, torch.Tensor, torch.Tensor], dict[str, Any]]
    figure: str
    labels: tuple[str, ...] = ()


def evaluate(
    task: Task, network: Network, segments: torch.Tensor, targets: torch.Tensor, device: torch.device
) -> dict[str, Any]:
    """What a task's judge says about a network on segments (b, n) with their targets."""
    return task.judge(Classifier(network, device), segments, targets)


def _judge_classes(classifier: Classifier, segments: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
    """Balanced accuracy and confusion matrix of labels (b,)."""
    scores = torch.cat([classifier(batch) for batch in segments.split(64)])
    counts = torch.from_numpy(confusion_matrix(labels.numpy(), scores.argmax(dim=1).numpy(), scores.shape[1]))
    matrix = summed(counts.to(classifier.device)).cpu().numpy()
    return {"balanced_accuracy": balanced_accuracy(matrix), "confusion": matrix}


def _judge_frames(classifier: Classifier, segments: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
    """Largest F1 over the thresholds, and what it is made of, of frames (b, t)."""
    scores = torch.cat([classifier(batch)[..., 0] for batch in segments.split(64)])
    bins = (scores * THRESHOLDS).long().clamp(0, THRESHOLDS)
    counts = [torch.bincount(bins[targets == truth], minlength=THRESHOLDS + 1) for truth in (0, 1)]
    wrong, right = summed(torch.stack(counts).to(classifier.device)).cpu().numpy()
    return best_f1(right, wrong)


def best_f1(right: np.ndarray, wrong: np.ndarray) -> dict[str, Any]:
    """The threshold with the largest F1, from counts by score.

    Args:
        right: defective frames by score, (steps + 1,) from 0 to 1.
        wrong: others.

    Returns:
        "f1", "precision", "recall" and "threshold".

    >>> best_f1(np.array([2, 0, 6]), np.array([90, 3, 0]))
    {'f1': 0.8571428571428571, 'precision': 1.0, 'recall': 0.75, 'threshold': 1.0}
    """
    hits, false = right[::-1].cumsum()[::-1], wrong[::-1].cumsum()[::-1]  # from each score on
    f1 = 2 * hits / np.maximum(hits + false + right.sum(), 1)
    best = len(f1) - 1 - int(f1[::-1].argmax())  # of equal ones the highest
    return {
        "f1": float(f1[best]),
        "precision": float(hits[best] / max(hits[best] + false[best], 1)),
        "recall": float(hits[best] / max(right.sum(), 1)),
        "threshold": best / (len(right) - 1),
    }


def classes_of(task: str) -> Task:
    """What a detector learns that tells a task's defects (`models.defects.OF_TASK`) from one another and from clean sound."""
    return Task(
        architectures=("cnn6", "dscnn"),
        source=partial(SegmentSource, task=task),
        loss=functional.nll_loss,
        judge=_judge_classes,
        figure="balanced_accuracy",
        labels=labels_of(task),
    )


CLICKS = Task(
    architectures=("hooknet",),
    source=ClickSource,
    # The paper's root of the weighted mean square learns rare frames from few examples; here half of the segments have
    # some, and cross-entropy needs no weight to be chosen.
    loss=functional.binary_cross_entropy_with_logits,
    judge=_judge_frames,
    figure="f1",
)
TASKS = {
    **{task: classes_of(task) for task in OF_TASK},
    "clicks": CLICKS,
    "mp3_glitches": replace(CLICKS, source=GlitchSource),
}
