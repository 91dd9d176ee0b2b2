"""Tells from a failed Spark job whether a title killed the process that scored it."""

import re
from dataclasses import dataclass

_TASK = re.compile(r"Task (\d+) in stage [\d.]+ failed \d+ times")
# Causes that a title's content can have. A machine that goes away is Spark's to retry and does not count as a failure.
_DEATHS = (
    (re.compile(r"Fatal Python error: ([^\n]+)"), "{0}"),
    (re.compile(r"Python worker exited unexpectedly \(crashed\)"), "the Python worker was killed"),
    (re.compile(r"Python worker process .*(?:died|terminated)"), "the Python worker was killed"),
    (
        re.compile(r"ExecutorLostFailure .*exited caused by one of the running tasks\) Reason: ([^\n]+)"),
        "executor lost: {0}",
    ),
)


@dataclass(frozen=True)
class Death:
    """Why a job failed whose worker died.

    Args:
        task: partition of the task that failed too often; None where Spark does not say.
        cause: in words.
    """

    task: int | None
    cause: str


def died(error: BaseException) -> Death | None:
    """What killed a worker, or None where the job failed of something else (an exception, a full disk, a bad model)."""
    text = _said(error)
    for pattern, cause in _DEATHS:
        if match := pattern.search(text):
            task = _TASK.search(text)
            said = " ".join(cause.format(*match.groups()).split())[:200]
            return Death(int(task[1]) if task is not None else None, said)
    return None


def _said(error: BaseException) -> str:
    java = getattr(error, "java_exception", None)
    return f"{error}\n{java.toString()}" if java is not None else str(error)
