"""What the decoder itself says of a track's sound: a detector without a model.

A stream that is damaged where its codec notices (AAC, AC-3, FLAC and others check what they decode), or that lacks
packets, needs no network to be found. These findings go into `segments` and `detections` beside the models', under the
name of `DECODER`. They come with every track that is scored, and alone make no scan decode anything.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from udfs.contract import ModelContract, ShippedModel
from udfs.decode_report import EVENT_LABELS, MISSING_AUDIO, PACKET_ERROR, DecodeReport
from udfs.media import shortfall_s

CHANNEL, CHANNEL_NAME = -1, "ALL"
CELL_S = 1.0  # rows lie on a grid as a model's segments do; spans are whole seconds, so that no row depends on how they were cut
CUT_OFF_S = 0.5

# Of the contract only labels and frames count: there is a row for a second in which an event begins, and none for others.
DECODER = ShippedModel("decoder", "1", "", "", ModelContract(48_000, 1.0, 1.0, EVENT_LABELS, frames=48))


def findings(span: dict[str, Any], report: DecodeReport) -> list[dict[str, Any]]:
    """Rows of `udfs.schemas.SCORED` with a span's events, one a second in which any begins.

    Packets that were refused one after the other are one event in each second; the others are whole.

    Args:
        span: row of `udfs.schemas.SPANS`.
        report: of the decoding of that span, which begins ahead of it and may go on behind it.
    """
    start_s, stop_s = span["start_s"], span["end_s"]
    events: list[tuple[str, float, float]] = []
    for label, begin_s, end_s in report.events:
        if label == PACKET_ERROR:
            events += [(label, *part) for part in _by_cell(max(begin_s, start_s), min(end_s, stop_s))]
        elif start_s <= begin_s < stop_s:
            events.append((label, begin_s, end_s))
    announced_s = span["announced_s"]
    if announced_s is not None and report.position_s < announced_s - shortfall_s(announced_s):
        # The packet in which the file was cut off does not decode either: one event is enough.
        events = [event for event in events if event[0] != PACKET_ERROR or event[1] < report.position_s - CUT_OFF_S]
        events.append((MISSING_AUDIO, max(report.position_s, start_s), announced_s))
    by_cell: dict[float, list[tuple[str, float, float]]] = defaultdict(list)
    for event in events:
        by_cell[event[1] // CELL_S * CELL_S].append(event)
    return [_row(span, cell_s, by_cell[cell_s]) for cell_s in sorted(by_cell)]


def _by_cell(begin_s: float, end_s: float) -> Iterator[tuple[float, float]]:
    while begin_s < end_s:
        part_s = min(begin_s // CELL_S * CELL_S + CELL_S, end_s)
        yield begin_s, part_s
        begin_s = part_s


def _row(span: dict[str, Any], cell_s: float, events: list[tuple[str, float, float]]) -> dict[str, Any]:
    found = {label for label, *_ in events}
    return {
        "title_id": span["title_id"],
        "content_hash": span["content_hash"],
        "track": span["track"],
        "channel": CHANNEL,
        "channel_name": CHANNEL_NAME,
        "model": DECODER.name,
        "model_version": DECODER.version,
        "start_s": cell_s,
        "end_s": max(cell_s + CELL_S, *(end_s for _, _, end_s in events)),
        "scores": [(label, float(label in found)) for label in EVENT_LABELS],
        "events": [
            {"label": label, "start_s": begin_s, "end_s": end_s, "scores": [1.0]} for label, begin_s, end_s in events
        ],
        "is_report": False,
    }
