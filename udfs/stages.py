"""Where a scan's time goes: seconds by stage, summed over tasks.

Stages of a task, which run in three threads and processes at once, so that they add up to more than its time:

- decode, resample: the decoder's child process; `send`: it waits for the worker to take what it decoded.
- cut: segments are cut and compared; `await_decoder`: for what was decoded; `await_model`: for the model to take a batch.
- front_end: spectrograms and the like, where the model's code counts them apart; model: the rest of its calls, or all of
  them; `await_audio`: it has no batch to work on.
- rows: scores become rows; `write`: Spark takes them and writes them to files.

Of the driver: `plan` (titles are opened, on the executors, and cut into spans), `score` (chunks run, from the first task to
the last) and `commit` (the tables are written).
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

WORK = ("decode", "resample", "cut", "front_end", "model", "rows", "write")  # stages of a task that are not waiting

T = TypeVar("T")


class StageClock:
    """Adds up the seconds that one thread spends in each stage.

    >>> clock = StageClock()
    >>> with clock.stage("decode"):
    ...     pass
    >>> list(clock.seconds), list(clock.taken()), list(clock.taken())
    (['decode'], ['decode'], [])
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time inside to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] += time.perf_counter() - started

    def each(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Pass items on; what making each of them takes counts to a stage."""
        iterator = iter(items)
        try:
            while True:
                started = time.perf_counter()
                try:
                    item = next(iterator)
                except StopIteration:
                    return
                finally:
                    self._seconds[name] += time.perf_counter() - started
                yield item
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()  # a generator that is left early ends what it began

    def add(self, seconds: dict[str, float]) -> None:
        """Add what another clock measured."""
        for name, value in seconds.items():
            self._seconds[name] += value

    @property
    def seconds(self) -> dict[str, float]:
        """What was counted so far."""
        return dict(self._seconds)

    def taken(self) -> dict[str, float]:
        """What was counted since this was last asked."""
        seconds, self._seconds = dict(self._seconds), defaultdict(float)
        return seconds
