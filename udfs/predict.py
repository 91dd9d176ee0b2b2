"""The scan UDF: spans go in, scores come out, samples stay inside.

One task scores its spans in one pass. A decoder child process runs ahead; a thread cuts segments
and fills one batch per model, across span borders; the task's own thread runs the models.
"""

import math
import os
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import SparkFiles, TaskContext
from pyspark.sql.pandas.types import to_arrow_schema

from udfs.batches import ROWS_PER_BATCH, SILENCE, Batch, ScanOptions, produce
from udfs.contract import ModelContract, Predictor, ShippedModel, front_end_s, predict
from udfs.line_up import tone_hz
from udfs.model_files import digest_of, load_predictor
from udfs.runs import runs_of
from udfs.schemas import SCORED
from udfs.stages import StageClock

LINE_UP_SCORE = 0.1  # of any defect: what scores less is not searched for a line-up tone
QUEUE_BATCHES = 2  # filled ahead of the model; bounds a worker's memory whatever the title's length

_ARROW_SCORED = to_arrow_schema(SCORED, timezone="UTC")

# One per Python worker, kept from task to task. This module is importable, so that Spark ships its name and not
# its content: as globals of a submitted script they would be loaded anew in every task.
_predictors: dict[tuple[str, str, str], Predictor] = {}


def scan_udf(
    models: list[ShippedModel], options: ScanOptions
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function for `DataFrame.mapInArrow(f, udfs.schemas.SCORED)` over rows of `udfs.schemas.SPANS`.

    Arrow and not pandas: building the rows with their maps of scores took 4.4 against 7.4 microseconds each.
    """

    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        # Spans are paths and numbers: the whole task's share is a few kilobytes.
        spans = [span for batch in batches for span in batch.to_pylist()]
        yield from score_spans(spans, models, options, task_device(), model_folder)

    return score


def task_device() -> str:
    """Device of the running task: its assigned GPU if Spark gave it one, else the CPU."""
    context = TaskContext.get()
    resources = context.resources() if context is not None else {}
    if "gpu" not in resources:
        return "cpu"
    # Spark never sets CUDA_VISIBLE_DEVICES; where a container runtime did, the one device it left is number 0.
    index = "0" if os.environ.get("CUDA_VISIBLE_DEVICES") else resources["gpu"].addresses[0]
    return f"cuda:{index}"


def model_folder(model: ShippedModel) -> Path:
    """Where Spark unpacked a model on this executor."""
    return Path(SparkFiles.get(model.archive))


def score_spans(
    spans: list[dict[str, Any]],
    models: list[ShippedModel],
    options: ScanOptions,
    device: str,
    folder_of: Callable[[ShippedModel], Path],
) -> Iterator[pa.RecordBatch]:
    """Score spans with every model they still need; yields batches of `udfs.schemas.SCORED`.

    Bad media never raises: each span ends with one report row, which says what went wrong.

    Raises:
        ContractError: a model's output does not fit its contract (the model is wrong, not the media).
    """
    predictors = [_predictor(model, device, folder_of, options) for model in models]
    silences: dict[int, np.ndarray] = {}  # scores of digital silence by number of the model
    ready: queue.Queue[Batch | dict[str, Any] | BaseException | None] = queue.Queue(QUEUE_BATCHES)
    stopped = threading.Event()
    producer = threading.Thread(target=produce, args=(spans, models, options, ready, stopped), daemon=True)
    producer.start()
    rows: list[dict[str, Any]] = []
    last: dict[str, Any] | None = None  # a report waits for the next, so that the last has all the times
    clock = StageClock()
    try:
        while True:
            with clock.stage("await_audio"):
                item = ready.get()
            if item is None:
                break
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, Batch):
                rows.extend(_scored_rows(item, models[item.model], predictors[item.model], silences, clock))
            elif not item["is_report"]:
                rows.append(item)
            else:
                if last is not None:
                    rows.append(last)
                last = item
            if len(rows) >= ROWS_PER_BATCH:
                with clock.stage("rows"):
                    batch = pa.RecordBatch.from_pylist(rows, schema=_ARROW_SCORED)
                with clock.stage("write"):
                    yield batch
                rows = []
        if rows:
            with clock.stage("rows"):
                batch = pa.RecordBatch.from_pylist(rows, schema=_ARROW_SCORED)
            with clock.stage("write"):
                yield batch
        if last is not None:
            clock.add(last["stages_s"])
            yield pa.RecordBatch.from_pylist([last | {"stages_s": clock.taken()}], schema=_ARROW_SCORED)
    finally:
        stopped.set()
        producer.join(timeout=5)


def _predictor(
    model: ShippedModel, device: str, folder_of: Callable[[ShippedModel], Path], options: ScanOptions
) -> Predictor:
    import torch

    if torch.get_num_threads() != options.threads:
        torch.set_num_threads(options.threads)
    key = (model.digest, device, options.runtime)
    if key not in _predictors:
        folder = folder_of(model)
        found = digest_of(folder)
        if found != model.digest:
            raise RuntimeError(
                f"model {model.key}: expected files with digest {model.digest}, found {found} in {folder}; "
                f"they changed on the way to this executor"
            )
        _predictors[key] = load_predictor(folder, device, options.runtime)
    return _predictors[key]


def _scored_rows(
    batch: Batch, model: ShippedModel, predictor: Predictor, silences: dict[int, np.ndarray], clock: StageClock
) -> list[dict[str, Any]]:
    scores: dict[int, np.ndarray] = {}
    before_s = front_end_s(predictor)
    with clock.stage("model"):
        if batch.filled:
            found = predict(predictor, batch.waveforms[: batch.filled], model.contract, model.key)
            scores.update(enumerate(found))
        if SILENCE in batch.places:
            if batch.model not in silences:
                silence = np.zeros((1, model.contract.segment_samples), dtype=np.float32)
                [silences[batch.model]] = predict(predictor, silence, model.contract, model.key)
            scores[SILENCE] = silences[batch.model]
    if (heard_s := front_end_s(predictor) - before_s) > 0:
        clock.add({"front_end": heard_s, "model": -heard_s})
    with clock.stage("rows"):
        return _rows(batch, model, scores)


def _rows(batch: Batch, model: ShippedModel, scores: dict[int, np.ndarray]) -> list[dict[str, Any]]:
    contract, rows = model.contract, []
    defects = [contract.labels.index(label) for label in contract.defects]
    tones = {
        place: tone_hz(batch.waveforms[place], contract.sample_rate_hz)
        for place, said in scores.items()
        if place != SILENCE and said[..., defects].max(initial=0.0) >= LINE_UP_SCORE
    }
    for (title_id, content_hash, track, channel, channel_name, position, samples), place in zip(
        batch.rows, batch.places, strict=True
    ):
        # Sample numbers and not sums of seconds: times do not drift in long titles.
        start_s = position / contract.sample_rate_hz
        end_s = start_s + samples / contract.sample_rate_hz
        said, events = scores[place], None
        if contract.frames > 1:
            # Nothing lies before the first segment nor behind the last, which the track ends in.
            first = contract.margin_frames if position else 0
            stop = contract.frames - contract.margin_frames
            if samples < contract.segment_samples:
                stop = math.ceil(samples / contract.segment_samples * contract.frames)
            kept = said[first:stop]
            start_s, end_s = start_s + first * contract.frame_s, start_s + (first + len(kept)) * contract.frame_s
            said, events = kept.max(axis=0), _events(kept, contract, start_s)
        rows.append(
            {
                "title_id": title_id,
                "content_hash": content_hash,
                "track": track,
                "channel": channel,
                "channel_name": channel_name,
                "model": model.name,
                "model_version": model.version,
                "start_s": start_s,
                "end_s": end_s,
                "scores": list(zip(contract.labels, said.tolist(), strict=True)),
                "events": events,
                "line_up_hz": tones.get(place),
                "is_report": False,
            }
        )
    return rows


def _events(kept: np.ndarray, contract: ModelContract, start_s: float) -> list[dict[str, Any]]:
    """Runs of frames from the contract's `event_score` on, of scores (frames, labels) that begin at `start_s`."""
    events = []
    for label, column in zip(contract.labels, kept.T, strict=True):
        if label in contract.clean_labels or column.max() < contract.event_score:
            continue
        for first, stop in runs_of(column >= contract.event_score):
            events.append(
                {
                    "label": label,
                    "start_s": start_s + first * contract.frame_s,
                    "end_s": start_s + stop * contract.frame_s,
                    "scores": column[first:stop].tolist(),
                }
            )
    return events
