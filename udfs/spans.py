"""Cuts spans into segments on the title's own time grid."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from udfs.blocks import Block

TAIL_S = 0.1  # less than this behind a track's last whole segment is not scored: codecs pad as much


@dataclass
class SegmentCutter:
    """Collects the blocks of one span and cuts the segments that begin inside it.

    Segment k of a title covers samples `[k * hop, k * hop + length)`, whatever the spans are. A segment that is not wholly
    covered by decoded audio (a gap, the end of the track) is not cut; `rest` and `tail` give what is left at the end.

    Args:
        length: samples of a segment.
        hop: samples between the starts of segments.
        first: first segment number of the span.
        stop: segment number after the span's last.
    """

    length: int
    hop: int
    first: int
    stop: int
    _parts: list[np.ndarray] = field(default_factory=list)
    _start: int = 0
    _held: int = 0
    _names: tuple[str, ...] = ()
    _last: np.ndarray | None = None  # the segment before the one that comes next, (channels, length)

    @classmethod
    def for_span(cls, length: int, hop: int, rate_hz: int, start_s: float, stop_s: float) -> "SegmentCutter":
        """The cutter of the segments that begin in `[start_s, stop_s)`.

        >>> cutter = SegmentCutter.for_span(length=4, hop=3, rate_hz=4, start_s=1.0, stop_s=3.0)
        >>> cutter.first, cutter.stop  # segments begin at samples 0, 3, 6, 9, 12; the span is [4, 12)
        (2, 4)
        """
        first = math.ceil(round(start_s * rate_hz, 6) / hop)
        stop = 1 << 62 if math.isinf(stop_s) else math.ceil(round(stop_s * rate_hz, 6) / hop)
        return cls(length, hop, first, stop)

    def push(self, block: Block) -> Iterator[tuple[int, np.ndarray, tuple[str, ...]]]:
        """Take a block in; yield (number, samples (channels, length), channel names) of complete segments."""
        if self._held and (block.position != self._start + self._held or block.channel_names != self._names):
            self._parts, self._held, self._last = [], 0, None
        if not self._held:
            self._start, self._names = block.position, block.channel_names
        self._parts.append(block.samples)
        self._held += block.samples.shape[1]
        number = max(self.first, -(-self._start // self.hop))
        if number >= self.stop or number * self.hop + self.length > self._start + self._held:
            self._drop_before(min(number, self.stop) * self.hop)
            return
        joined = self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts, axis=1)
        while number < self.stop and number * self.hop + self.length <= self._start + self._held:
            offset = number * self.hop - self._start
            self._last = joined[:, offset : offset + self.length]
            yield number, self._last, self._names
            number += 1
        self._parts = [joined]
        self._drop_before(number * self.hop)

    def rest(self) -> tuple[int, np.ndarray, tuple[str, ...]] | None:
        """What is left at the end of a track: (its first sample's position, samples (channels, fewer than length), names)."""
        number = max(self.first, -(-self._start // self.hop))
        left = self._start + self._held - number * self.hop
        if not self._held or number >= self.stop or left <= 0:
            return None
        joined = np.concatenate(self._parts, axis=1)
        return number * self.hop, joined[:, joined.shape[1] - left :], self._names

    def tail(self, least: int = 1) -> tuple[int, np.ndarray, tuple[str, ...], int] | None:
        """The last segment, which ends where the track does and so overlaps the one before.

        Where less than a segment was decoded without a gap, that is followed by its mirror image and by silence: with
        silence alone a track that is cut off would end in a step, with images upon images it would sound like a tone.

        Args:
            least: samples; there is no last segment where fewer than these lie behind the last whole one.

        Returns:
            Its first sample's position, samples (channels, length), channel names, and how many of them are the track's;
            or None.
        """
        rest = self.rest()
        if rest is None:
            return None
        position, samples, names = rest
        last = self._last if self.hop <= self.length else None
        if samples.shape[1] - (0 if last is None else self.length - self.hop) < least:
            return None
        if last is not None:
            ahead = last[:, samples.shape[1] - self.length + self.hop : self.hop]
            return position - ahead.shape[1], np.concatenate([ahead, samples], axis=1), names, self.length
        mirrored = np.concatenate([samples, samples[:, ::-1]], axis=1)[:, : self.length]
        return position, np.pad(mirrored, ((0, 0), (0, self.length - mirrored.shape[1]))), names, samples.shape[1]

    def _drop_before(self, position: int) -> None:
        """Forget samples that no further segment needs."""
        while self._parts and self._start + self._parts[0].shape[1] <= position:
            dropped = self._parts.pop(0).shape[1]
            self._start += dropped
            self._held -= dropped
        if self._parts and position > self._start:
            cut = position - self._start
            self._parts[0] = self._parts[0][:, cut:]
            self._start += cut
            self._held -= cut
