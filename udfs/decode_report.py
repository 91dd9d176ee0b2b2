"""What went wrong while a track was decoded."""

from dataclasses import dataclass, field
from typing import Any

from udfs.media import describe

# What a track's events are called (`DecodeReport.events`).
PACKET_ERROR, TIME_JUMP, MISSING_AUDIO = EVENT_LABELS = ("packet_error", "time_jump", "missing_audio")
SHORTEST_EVENT_S = 0.001  # an event lasts at least so long, as one millisecond counts in detections
JOINED_S = 0.1  # events of a kind this close together are one
MAX_EVENTS = 1000  # of a span; the last one then reaches to the end of the damage


@dataclass
class DecodeReport:
    """What went wrong while decoding, filled in as the decoding goes, and seconds by stage (`udfs.stages`).

    Args:
        packet_errors: packets that could not be read or decoded, count.
        gaps: jumps of the time stamps, count.
        format_changes: changes of sample rate or channels midway, count.
        data: names of channels that carry data in the place of sound, and what it is (`udfs.data_bursts`).
        first_error: the first packet's error.
        decoded_s: audio decoded, seconds.
        position_s: where on the title's time line the decoding is.
        events: where something went wrong, in order: [label of `EVENT_LABELS`, start, end], seconds of the title.
        stages_s: seconds by stage.
    """

    packet_errors: int = 0
    gaps: int = 0
    format_changes: int = 0
    data: dict[str, str] = field(default_factory=dict)
    first_error: str | None = None
    decoded_s: float = 0.0
    position_s: float = 0.0
    events: list[list[Any]] = field(default_factory=list)
    stages_s: dict[str, float] = field(default_factory=dict)

    def note(self, error: Exception, start_s: float | None = None, length_s: float = 0.0) -> None:
        """Count one packet that could not be decoded, and where it would have been heard."""
        self.packet_errors += 1
        if self.first_error is None:
            self.first_error = describe(error)
        start_s = self.position_s if start_s is None else start_s
        self.add_event(PACKET_ERROR, start_s, start_s + length_s)

    def add_jump(self, start_s: float, end_s: float) -> None:
        """Note a jump of the time stamps, unless it is the place of packets that could not be decoded."""
        last = next((event for event in reversed(self.events) if event[0] == PACKET_ERROR), None)
        if last is None or not last[1] - JOINED_S <= start_s <= end_s <= last[2] + JOINED_S:
            self.add_event(TIME_JUMP, start_s, end_s)

    def add_event(self, label: str, start_s: float, end_s: float) -> None:
        """Note where something went wrong."""
        start_s, end_s = max(0.0, start_s), max(start_s + SHORTEST_EVENT_S, end_s)
        last = next((event for event in reversed(self.events) if event[0] == label), None)
        if last is not None and (start_s <= last[2] + JOINED_S or len(self.events) >= MAX_EVENTS):
            last[1:] = min(last[1], start_s), max(last[2], end_s)
        else:
            self.events.append([label, start_s, end_s])
