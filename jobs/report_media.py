"""Which part of a detection a report shows and plays, and how much of it fits into a file."""

from dataclasses import dataclass

import numpy as np

HANDLE_S = 10.0  # heard before and after a stretch: without its surroundings nobody can tell a defect from a scene
PICTURE_S = 90.0  # longest stretch of a picture: a click of 10 ms is still a pixel's tenth
# Length of a clip and bits per second of one channel, from the best to what still tells hiss from rain.
STEPS = ((60.0, 64_000), (60.0, 48_000), (45.0, 40_000), (40.0, 32_000), (30.0, 32_000), (30.0, 24_000))
STEREO_SHARE = 1.5  # of one channel's bit rate: left and right have much in common
BRIEF_S = 0.1  # what is detected for less, as clicks are, nobody sees in such a picture: its samples are drawn as well
PICTURE_BYTES = 35_000  # of a busy picture; real ones are counted once they are drawn
CLIP_OVERHEAD = 1.1
BASE64_SHARE = 4 / 3

Score = tuple[float, float, float]  # start_s, end_s, score


@dataclass(frozen=True)
class Window:
    """A stretch of a title: `[start_s, end_s)`, seconds from the title's zero."""

    start_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        """How long it is."""
        return self.end_s - self.start_s


@dataclass(frozen=True)
class CloseUp:
    """Samples around a moment.

    Args:
        start_s: time of the first, seconds from the title's zero.
        samples: by heard channel, `udfs.stretches.RATE_HZ` a second, full scale +-1.
    """

    start_s: float
    samples: list[list[float]]


@dataclass(frozen=True)
class MediaPlan:
    """What to cut for a report.

    Args:
        clip_s: longest clip, seconds.
        bit_rate: of a clip of one channel, bits per second.
        pictures: how many of the detections, from the first, get a picture.
        clips: how many get a clip.
    """

    clip_s: float
    bit_rate: int
    pictures: int
    clips: int


def window(stretch: Window, within: Window, scores: list[Score], longest_s: float) -> Window:
    """A stretch with its handles, or of a long one the part with the largest scores, with handles.

    Args:
        stretch: what was detected.
        within: what there is to show: the title, or the picture that a clip belongs to.
        scores: of the segments of the stretch, in order.
        longest_s: of the result; more than both handles.

    Example:
        >>> window(Window(30.0, 40.0), Window(0.0, 45.0), [], 60.0)
        Window(start_s=20.0, end_s=45.0)
        >>> window(Window(0.0, 300.0), Window(0.0, 300.0), [(0.0, 200.0, 0.9), (200.0, 300.0, 0.95)], 60.0)
        Window(start_s=190.0, end_s=250.0)
    """
    first_s = max(within.start_s, stretch.start_s - HANDLE_S)
    last_s = max(min(within.end_s, stretch.end_s + HANDLE_S), first_s + 0.1)
    if last_s - first_s <= longest_s:
        return Window(first_s, last_s)
    body_s = longest_s - 2 * HANDLE_S
    earliest_s = max(first_s, stretch.start_s)
    latest_s = max(min(last_s, stretch.end_s) - body_s, earliest_s)
    begin_s = earliest_s
    if scores:
        times_s, so_far = _integral(scores)
        starts_s = np.array([earliest_s, *(start_s for start_s, _, _ in scores)])
        starts_s = starts_s[(starts_s >= earliest_s) & (starts_s <= latest_s)]
        sums = np.interp(starts_s + body_s, times_s, so_far) - np.interp(starts_s, times_s, so_far)
        # Of equals the first: there the defect is heard to begin.
        begin_s = float(starts_s[np.argmax(sums.round(3))])
    start_s = min(max(begin_s - HANDLE_S, first_s), last_s - longest_s)
    return Window(start_s, start_s + longest_s)


def _integral(scores: list[Score]) -> tuple[np.ndarray, np.ndarray]:
    """Score times seconds up to each border of a segment; where segments overlap, each counts up to the next."""
    starts_s, ends_s, values = np.array(scores).T
    ends_s = np.minimum(ends_s, np.append(starts_s[1:], np.inf))
    times_s = np.stack([starts_s, ends_s], axis=1).ravel()
    gains = np.stack([np.zeros_like(values), values * (ends_s - starts_s)], axis=1).ravel()
    return times_s, np.cumsum(gains)


def media_plan(lengths_s: list[float], stereo: list[bool], room_bytes: float | None) -> MediaPlan:
    """The best clips that fit.

    Args:
        lengths_s: stretch with handles, one a detection, in the order of the report.
        stereo: whether it is heard in stereo.
        room_bytes: for pictures and clips in base64; None where there is no limit.
    """
    everything = len(lengths_s)
    if room_bytes is None:
        return MediaPlan(*STEPS[0], everything, everything)
    room = room_bytes / BASE64_SHARE
    for clip_s, bit_rate in STEPS:
        sizes = [
            _clip_bytes(length_s, clip_s, bit_rate, pair) for length_s, pair in zip(lengths_s, stereo, strict=True)
        ]
        if sum(sizes) + everything * PICTURE_BYTES <= room:
            return MediaPlan(clip_s, bit_rate, everything, everything)
    # Not even the smallest: pictures first, then the clips of the first detections. A few more than estimated
    # are cut, `fitting` decides by their real sizes.
    return MediaPlan(
        clip_s,
        bit_rate,
        pictures=fitting([PICTURE_BYTES // 2] * everything, room),
        clips=fitting([size // 2 for size in sizes], room),
    )


def _clip_bytes(length_s: float, clip_s: float, bit_rate: int, is_stereo: bool) -> int:
    share = STEREO_SHARE if is_stereo else 1.0
    return round(min(length_s, clip_s) * bit_rate * share / 8 * CLIP_OVERHEAD)


def fitting(sizes: list[int], room: float) -> int:
    """How many of the first fit together.

    Example:
        >>> fitting([10, 10, 30, 1], 25)
        2
    """
    taken = 0.0
    for count, size in enumerate(sizes):
        taken += size
        if taken > room:
            return count
    return len(sizes)
