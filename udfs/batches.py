"""Fills the batches of a task: decodes its spans, cuts them into segments and gathers these by model.

It runs in a thread of its own, ahead of the models. A batch fills across the borders of spans and titles.
"""

import math
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from udfs.blocks import Block
from udfs.contract import ModelContract, ShippedModel
from udfs.decode_report import DecodeReport
from udfs.decoder import worker_decoder
from udfs.decoder_findings import DECODER, findings
from udfs.media import MediaError
from udfs.spans import TAIL_S, SegmentCutter
from udfs.stages import StageClock

ROWS_PER_BATCH = 4096  # most of a model's batch, whose rows may share samples, and of what a task gives back
LATENCY_S = 0.25  # decoded beyond a span's last segment, so that the resampler's filter has what it needs
DOWNMIX_CHANNEL = -1
SILENCE = -1
DOWNMIX_NAME = "MIX"


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
class Batch:
    """Segments of one model on their way from the decoder to the model; several may have the same samples."""

    model: int
    waveforms: np.ndarray  # (batch, samples); those from `filled` on are unused
    filled: int = 0
    rows: list[tuple[Any, ...]] = field(
        default_factory=list
    )  # title, hash, track, channel, name, first sample, samples
    places: list[int] = field(default_factory=list)  # for each row: its place in `waveforms`, or SILENCE


class _Stopped(Exception):
    """The task's own thread has gone away."""


def produce(
    spans: list[dict[str, Any]],
    models: list[ShippedModel],
    options: ScanOptions,
    ready: "queue.Queue[Batch | dict[str, Any] | BaseException | None]",
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
        open_batches: dict[int, Batch] = {}
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
    open_batches: dict[int, Batch],
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
        blocks = worker_decoder(options.decode_timeout_s).decode(
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
    open_batches: dict[int, Batch],
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
    open_batches: dict[int, Batch],
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
                batch = open_batches[number] = Batch(number, np.empty(shape, dtype=np.float32))
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
    if report.data:
        kinds = ", ".join(sorted(set(report.data.values())))
        return "data_bursts", (
            f"{len(report.data)} of its channels ({', '.join(sorted(report.data))}) carry data and no sound "
            f"({kinds}; SMPTE ST 337), which was scored as silence"
        )
    if report.gaps:
        return "time_jumps", f"the time stamps jump {report.gaps} times; audio around the jumps was not scored"
    if report.format_changes:
        return "format_changes", f"the sample format changes {report.format_changes} times midway"
    return None, None
