"""What the decoder itself says of a track's sound: a detector without a model.

A stream that is damaged where its codec notices (AAC, AC-3, FLAC and others check what they decode), or that lacks
packets, needs no network to be found. These findings go into `segments` and `detections` beside the models', under the
name of `DECODER`. They come with every track that is scored, and alone make no scan decode anything.
"""

from typing import Any

from udfs.contract import ModelContract, ShippedModel
from udfs.decoding import EVENT_LABELS, MISSING_AUDIO, PACKET_ERROR, DecodeReport
from udfs.media import shortfall_s

CHANNEL, CHANNEL_NAME = -1, "ALL"
CUT_OFF_S = 0.5

# Of the contract only labels and frames count: there is one row for a span with events, and none for others.
DECODER = ShippedModel("decoder", "1", "", "", ModelContract(48_000, 1.0, 1.0, EVENT_LABELS, frames=48))


def finding(span: dict[str, Any], report: DecodeReport) -> dict[str, Any] | None:
    """A row of `udfs.schemas.SCORED` with a span's events; None where it has none.

    Args:
        span: row of `udfs.schemas.SPANS`.
        report: of the decoding of that span, which begins ahead of it and may go on behind it.
    """
    start_s, stop_s = span["start_s"], span["end_s"]
    events = [
        [label, max(begin_s, start_s), end_s]
        for label, begin_s, end_s in report.events
        if begin_s < stop_s and end_s > start_s
    ]
    announced_s = span["announced_s"]
    if announced_s is not None and report.position_s < announced_s - shortfall_s(announced_s):
        # The packet in which the file was cut off does not decode either: one event is enough.
        events = [event for event in events if event[:1] != [PACKET_ERROR] or event[1] < report.position_s - CUT_OFF_S]
        events.append([MISSING_AUDIO, max(report.position_s, start_s), announced_s])
    if not events:
        return None
    found = {label for label, *_ in events}
    return {
        "title_id": span["title_id"],
        "content_hash": span["content_hash"],
        "track": span["track"],
        "channel": CHANNEL,
        "channel_name": CHANNEL_NAME,
        "model": DECODER.name,
        "model_version": DECODER.version,
        "start_s": start_s,
        "end_s": min(stop_s, max(report.position_s, *(end_s for _, _, end_s in events))),
        "scores": [(label, float(label in found)) for label in EVENT_LABELS],
        "events": [
            {"label": label, "start_s": begin_s, "end_s": end_s, "scores": [1.0]} for label, begin_s, end_s in events
        ],
        "is_report": False,
    }
