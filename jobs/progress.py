"""Tells a person how far a scan is."""

import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jobs.launch import log

TERMINAL_PAUSE_S = 2.0
LOG_PAUSE_S = 30.0


def _on_terminal() -> bool:
    """Whether a person watches: spark-submit stands between us and the terminal, so ask where it writes to."""
    if sys.stderr.isatty():
        return True
    try:
        output = os.open(f"/proc/{os.getppid()}/fd/1", os.O_WRONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.isatty(output)
    finally:
        os.close(output)


class Progress:
    """A line that renews itself on a terminal, plain log lines elsewhere.

    Args:
        spark: the session whose running tasks are watched.
        titles: titles of the catalogue.
    """

    def __init__(self, spark: Any, titles: int) -> None:
        self.spark = spark
        self.titles = titles
        self.is_terminal = _on_terminal()
        self.started = time.monotonic()
        self.channel_h = 0.0  # scored so far: hours of audio times channels
        self.seen = 0

    @contextmanager
    def chunk(self, channel_h: float, tasks: int, titles: int) -> Iterator[None]:
        """Show how a chunk of so many hours, tasks and titles comes along while it runs."""
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(over, channel_h, tasks, titles), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join(timeout=5)
        self.channel_h += channel_h

    def _watch(self, over: threading.Event, channel_h: float, tasks: int, titles: int) -> None:
        tracker = self.spark.sparkContext.statusTracker()
        while not over.wait(TERMINAL_PAUSE_S if self.is_terminal else LOG_PAUSE_S):
            stages = (tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds())
            finished = max(
                (stage.numCompletedTasks for stage in stages if stage and stage.numTasks == tasks), default=0
            )
            self._show(self.channel_h + channel_h * finished / tasks, self.seen + titles * finished / tasks)

    def committed(self, seen: int) -> None:
        """Note how many titles are safe in the tables, or need nothing."""
        self.seen = seen
        self._show(self.channel_h, seen)

    def end(self) -> None:
        """Leave the line that renewed itself."""
        if self.is_terminal:
            print(file=sys.stderr)

    def _show(self, channel_h: float, scored: float) -> None:
        wall_s = time.monotonic() - self.started
        share = scored / self.titles  # of the titles: the length of those that are still to be opened is not known
        text = f"{self.seen}/{self.titles} titles committed, {channel_h:.2f} channel hours scored"
        if channel_h > 0:
            text += f", {channel_h / wall_s * 3600:.0f} per hour"
        if 0 < share < 1:
            text += f", about {math.ceil(wall_s * (1 - share) / share / 60)} min to go"
        if self.is_terminal:
            print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)
        else:
            log.info(text)
