"""Cuts planned titles into chunks that are committed together, and a chunk's spans into tasks of about the same work.

Pure functions over plain values; nothing here touches Spark or files.
"""

import heapq
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from jobs.plan import TitlePlan
from udfs.remote import is_remote

# Decoding from the start of a title to a span costs about this share of scoring the same audio on a CPU.
SKIP_COST = 0.03
UNASSIGNED = -1


@dataclass(frozen=True)
class Span:
    """One row of `udfs.schemas.SPANS`."""

    task: int
    title_id: str
    path: str
    track: int
    content_hash: str
    start_s: float
    end_s: float
    can_seek: bool
    is_timed: bool
    models: tuple[str, ...]
    announced_s: float | None


def chunks(plans: Iterable[TitlePlan], channel_s: float) -> Iterator[list[TitlePlan]]:
    """Group titles, in order, into chunks of at least `channel_s` seconds of audio times channels."""
    chunk: list[TitlePlan] = []
    weight = 0.0
    for plan in plans:
        chunk.append(plan)
        weight += sum(track.channel_s for track in plan.tracks)
        if weight >= channel_s:
            yield chunk
            chunk, weight = [], 0.0
    if chunk:
        yield chunk


def assign_tasks(plans: list[TitlePlan], tasks: int) -> tuple[list[Span], list[float]]:
    """Balance the spans of a chunk over tasks, longest first.

    Those of an object on remote storage stay together, as far as they fit into one task's share of the chunk: each task
    fetches the whole of it.

    Returns:
        The spans in the order of their tasks, and each task's weight (seconds of audio times
        channels, with what decoding from the start costs on top).
    """
    by_title = [_weighted(plan) for plan in plans]
    share = sum(entry.weight for entries in by_title for entry in entries) / max(1, tasks)
    units: list[list[_WeightedSpan]] = []
    for plan, entries in zip(plans, by_title, strict=True):
        is_fetched = plan.title.path is not None and is_remote(plan.title.path)
        for entry in entries:
            is_same = is_fetched and entry is not entries[0]
            if is_same and sum(other.weight for other in units[-1]) + entry.weight <= share:
                units[-1].append(entry)
            else:
                units.append([entry])
    tasks = max(1, min(tasks, len(units)))
    heap = [(0.0, task) for task in range(tasks)]
    weights = [0.0] * tasks
    spans: list[Span] = []
    for unit in sorted(units, key=lambda unit: -sum(entry.weight for entry in unit)):
        load, task = heapq.heappop(heap)
        weights[task] = load + sum(entry.weight for entry in unit)
        heapq.heappush(heap, (weights[task], task))
        spans.extend(replace(entry.span, task=task) for entry in unit)
    spans.sort(key=lambda span: (span.task, span.title_id, span.track, span.start_s))
    return spans, weights


class _WeightedSpan(NamedTuple):
    """A span that has no task yet, and seconds of audio times channels, with what decoding from the start costs on top."""

    weight: float
    span: Span


def _weighted(plan: TitlePlan) -> list[_WeightedSpan]:
    entries = []
    for track in plan.tracks:
        for start_s, end_s in track.spans if track.equal is None else ():
            info, path = track.info, plan.title.path
            assert info is not None
            assert path is not None
            length_s = max(min(end_s, info.duration_s) - start_s, 1.0)
            skipped_s = 0.0 if info.can_seek else start_s
            weight = (length_s + SKIP_COST * skipped_s) * max(1, info.channels)
            announced_s = max(info.duration_s, info.declared_s or 0.0) if math.isinf(end_s) else None
            span = Span(
                UNASSIGNED, plan.title.title_id, path, info.track, info.content_hash, start_s, end_s, info.can_seek,
                info.is_timed, track.models, announced_s,
            )  # fmt: skip
            entries.append(_WeightedSpan(weight, span))
    return entries
