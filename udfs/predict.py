"""The scan UDF: spans go in, scores come out, samples stay inside.

One task scores its spans in one pass. A decoder child process runs ahead; a thread cuts segments
and fills one batch per model, across span borders; the task's own thread runs the models.
"""

import math
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import SparkFiles, TaskContext
from pyspark.sql.pandas.types import to_arrow_schema

from udfs.contract import ModelContract, Predictor, ShippedModel, digest_of, front_end_s, load_predictor, predict
from udfs.decoder import Decoder
from udfs.decoder_findings import DECODER, findings
from udfs.decoding import Block, DecodeReport
from udfs.media import MediaError
from udfs.schemas import SCORED
from udfs.spans import TAIL_S, SegmentCutter
from udfs.stages import StageClock

ROWS_PER_BATCH = 4096
QUEUE_BATCHES = 2  # filled ahead of the model; bounds a worker's memory whatever the title's length
LATENCY_S = 0.25  # decoded beyond a span's last segment, so that the resampler's filter has what it needs
DOWNMIX_CHANNEL = -1
SILENCE = -1
DOWNMIX_NAME = "MIX"

_ARROW_SCORED = to_arrow_schema(SCORED, timezone="UTC")

# One per Python worker, kept from task to task. This module is importable, so that Spark ships its name and not
# its content: as globals of a submitted script they would be loaded anew in every task.
_predictors: dict[tuple[str, str, str], Predictor] = {}
_decoder: Decoder | None = None


@dataclass(frozen=True)
class ScanOptions:
    """How a task works; nothing here changes a score beyond what the size of a batch or another runtime moves.

    Args:
        batch_segments: segments per model call.
        decode_timeout_s: longest silence of the decoder before a file is given up.
        threads: threads of one model call.
        equal_channels_once: whether channels whose samples are equal share one score.
        silence_once: whether all digital silence shares one score.
        runtime: what runs the networks on a CPU (`models.runtimes.RUNTIMES`).
    """

    batch_segments: int = 64
    decode_timeout_s: float = 120.0
    threads: int = 1
    equal_channels_once: bool = True
    silence_once: bool = True
    runtime: str = "torch"


@dataclass
class _Batch:
    """Segments of one model on their way from the decoder to the model; several may have the same samples."""

    model: int
    waveforms: np.ndarray  # (batch, samples); those from `filled` on are unused
    filled: int = 0
    rows: list[tuple[Any, ...]] = field(
        default_factory=list
    )  # title, hash, track, channel, name, first sample, samples
    places: list[int] = field(default_factory=list)  # for each row: its place in `waveforms`, or SILENCE


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
    ready: queue.Queue[_Batch | dict[str, Any] | BaseException | None] = queue.Queue(QUEUE_BATCHES)
    stopped = threading.Event()
    producer = threading.Thread(target=_produce, args=(spans, models, options, ready, stopped), daemon=True)
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
            if isinstance(item, _Batch):
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
    batch: _Batch, model: ShippedModel, predictor: Predictor, silences: dict[int, np.ndarray], clock: StageClock
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


def _rows(batch: _Batch, model: ShippedModel, scores: dict[int, np.ndarray]) -> list[dict[str, Any]]:
    contract, rows = model.contract, []
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
        borders = np.flatnonzero(np.diff(np.concatenate([[False], column >= contract.event_score, [False]])))
        for first, stop in borders.reshape(-1, 2).tolist():
            events.append(
                {
                    "label": label,
                    "start_s": start_s + first * contract.frame_s,
                    "end_s": start_s + stop * contract.frame_s,
                    "scores": column[first:stop].tolist(),
                }
            )
    return events


class _Stopped(Exception):
    """The task's own thread has gone away."""


def _produce(
    spans: list[dict[str, Any]],
    models: list[ShippedModel],
    options: ScanOptions,
    ready: "queue.Queue[_Batch | dict[str, Any] | BaseException | None]",
    stopped: threading.Event,
) -> None:
    """Decode the spans in order and put full batches and finished reports into `ready`; None at the end."""
    clock = StageClock()

    def put(item: Any) -> None:
        with clock.stage("await_model"):
            while not stopped.is_set():
                try:
                    ready.put(item, timeout=1.0)
                    return
                except queue.Full:
                    continue
        raise _Stopped

    try:
        open_batches: dict[int, _Batch] = {}
        for number, span in enumerate(spans):
            report = _produce_span(span, models, options, open_batches, put, clock)
            if number == len(spans) - 1:
                for batch in open_batches.values():
                    put(batch)
            put(report | {"stages_s": clock.taken()})
        put(None)
    except _Stopped:
        pass
    except BaseException as error:
        ready.put(error)


def _produce_span(
    span: dict[str, Any],
    models: list[ShippedModel],
    options: ScanOptions,
    open_batches: dict[int, _Batch],
    put: Callable[[Any], None],
    clock: StageClock,
) -> dict[str, Any]:
    """Decode one span into batches; returns its report row."""
    start_s, stop_s = span["start_s"], span["end_s"]
    wanted = [number for number, model in enumerate(models) if model.key in span["models"]]
    cutters = {}
    last_s = start_s
    for number in wanted:
        contract = models[number].contract
        cutter = SegmentCutter.for_span(
            contract.segment_samples, contract.hop_samples, contract.sample_rate_hz, start_s, stop_s
        )
        cutters[number] = cutter
        last_s = max(last_s, ((cutter.stop - 1) * cutter.hop + cutter.length) / contract.sample_rate_hz)
    rates_hz = sorted({models[number].contract.sample_rate_hz for number in wanted})
    report = DecodeReport()
    decoded_s = 0.0
    error_code = error = None
    try:
        blocks = worker_decoder(options).decode(
            span["path"],
            span["track"],
            start_s,
            math.inf if math.isinf(stop_s) else max(last_s, stop_s) + LATENCY_S,
            rates_hz,
            can_seek=span["can_seek"],
            is_timed=span["is_timed"],
            report=report,
        )
        for rate_hz, block in clock.each("await_decoder", blocks):
            if rate_hz == rates_hz[0]:
                begin = max(block.position / rate_hz, start_s)
                end = min((block.position + block.samples.shape[1]) / rate_hz, stop_s)
                decoded_s += max(0.0, end - begin)
            for number in wanted:
                if models[number].contract.sample_rate_hz == rate_hz:
                    contract, cutter = models[number].contract, cutters[number]
                    _cut(span, block, number, contract, cutter, options, open_batches, put, clock)
    except MediaError as failure:
        error_code, error = failure.code, failure.message
    clock.add(report.stages_s)
    for number in wanted:
        contract = models[number].contract
        _place(span, _last_segment(cutters[number], contract), number, contract, options, open_batches, put)
    if error_code is None:
        error_code, error = _damage(report)
        if DECODER.key in span["models"]:
            for row in findings(span, report):
                put(row)
    return {
        "title_id": span["title_id"],
        "content_hash": span["content_hash"],
        "track": span["track"],
        "start_s": start_s,
        "end_s": stop_s,
        "decoded_s": decoded_s,
        "error_code": error_code,
        "error": error,
        "is_report": True,
    }


# Position of the first sample, samples (channels, length), channel names, and how many of the samples are the track's.
_Segment = tuple[int, np.ndarray, tuple[str, ...], int]


def _cut(
    span: dict[str, Any],
    block: Block,
    number: int,
    contract: ModelContract,
    cutter: SegmentCutter,
    options: ScanOptions,
    open_batches: dict[int, _Batch],
    put: Callable[[Any], None],
    clock: StageClock,
) -> None:
    hop, whole = contract.hop_samples, contract.segment_samples
    cut = clock.each("cut", cutter.push(block))
    segments = ((segment * hop, samples, names, whole) for segment, samples, names in cut)
    _place(span, segments, number, contract, options, open_batches, put)


def _last_segment(cutter: SegmentCutter, contract: ModelContract) -> Iterator[_Segment]:
    """What is left at the end of a track, where it is worth a segment of its own."""
    if contract.frames == 1:
        if (tail := cutter.tail(round(TAIL_S * contract.sample_rate_hz))) is not None:
            yield tail
    elif (rest := cutter.rest()) is not None:
        position, samples, names = rest
        if position == 0 or samples.shape[1] > contract.margin_s * contract.sample_rate_hz:
            yield position, _mirrored(samples, contract.segment_samples), names, samples.shape[1]


def _mirrored(samples: np.ndarray, length: int) -> np.ndarray:
    """The end of a track with its mirror image behind it: (channels, length).

    Silence would do where the sound fades; a track that ends at full level would end with a step, which is a click.
    """
    return np.pad(samples, ((0, 0), (0, length - samples.shape[1])), mode="symmetric")


def _place(
    span: dict[str, Any],
    segments: Iterable[_Segment],
    number: int,
    contract: ModelContract,
    options: ScanOptions,
    open_batches: dict[int, _Batch],
    put: Callable[[Any], None],
) -> None:
    for position, samples, names, length in segments:
        if contract.channels == "downmix":
            channels = [(DOWNMIX_CHANNEL, DOWNMIX_NAME, samples.mean(axis=0))]
        else:
            channels = [(channel, name, samples[channel]) for channel, name in enumerate(names)]
        placed: list[tuple[np.ndarray, int]] = []  # this segment's channels that are in the open batch
        for channel, name, waveform in channels:
            place = _place_of_equal(waveform, placed, options)
            batch = open_batches.get(number)
            if batch is not None and place is None and batch.filled == options.batch_segments:
                put(open_batches.pop(number))
                batch = None
                placed.clear()
            if batch is None:
                shape = (options.batch_segments, contract.segment_samples)
                batch = open_batches[number] = _Batch(number, np.empty(shape, dtype=np.float32))
            if place is None:
                place = batch.filled
                batch.waveforms[place] = waveform
                batch.filled += 1
                placed.append((waveform, place))
            batch.places.append(place)
            batch.rows.append((span["title_id"], span["content_hash"], span["track"], channel, name, position, length))
        batch = open_batches[number]
        if batch.filled == options.batch_segments or len(batch.rows) >= ROWS_PER_BATCH:
            put(open_batches.pop(number))


def _place_of_equal(waveform: np.ndarray, placed: list[tuple[np.ndarray, int]], options: ScanOptions) -> int | None:
    """Where a waveform (samples,) with the same samples is, SILENCE if it has none but zeros; None where it is new."""
    # The first samples tell most apart; NaN equals nothing and is scored by itself.
    if options.silence_once and not waveform[:64].any() and not waveform.any():
        return SILENCE
    if options.equal_channels_once:
        for other, place in placed:
            if np.array_equal(waveform[:64], other[:64]) and np.array_equal(waveform, other):
                return place
    return None


def _damage(report: DecodeReport) -> tuple[str | None, str | None]:
    """Code and words for what the decoder could not decode; (None, None) where all was well."""
    if report.packet_errors:
        return "decode_errors", f"{report.packet_errors} packets could not be decoded, the first: {report.first_error}"
    if report.gaps:
        return "time_jumps", f"the time stamps jump {report.gaps} times; audio around the jumps was not scored"
    if report.format_changes:
        return "format_changes", f"the sample format changes {report.format_changes} times midway"
    return None, None


def worker_decoder(options: ScanOptions) -> Decoder:
    """The Python worker's decoder, kept from task to task."""
    global _decoder
    if _decoder is None or _decoder.timeout_s != options.decode_timeout_s:
        if _decoder is not None:
            _decoder.close()
        _decoder = Decoder(options.decode_timeout_s)
    return _decoder


def probe_udf(options: ScanOptions) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function for `DataFrame.mapInArrow(f, udfs.schemas.PROBED)` over rows of (title_id, path)."""
    from udfs.probing import probe_batches

    return lambda batches: probe_batches(batches, worker_decoder(options))
