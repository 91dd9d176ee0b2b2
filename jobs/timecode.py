"""SMPTE timecode: seconds of a file to hours, minutes, seconds and frames, and back.

Frames are counted from the file's first one. A timecode numbers them at the whole rate next to the real one (30 for
30000/1001), so non-drop timecode at such rates runs slower than the clock. Drop-frame timecode leaves out numbers, never
frames: 00 and 01 (00 to 03 at 60000/1001) of every minute that ten does not divide, which keeps it within a frame or two
of the clock over a day (SMPTE ST 12-1). Numbers start again at 24 hours.
"""

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from jobs.launch import AuscultError

# A stretch that begins on a frame border says so in a float of seconds, which may lie a rounding error before it. This
# much of a frame is a fiftieth of an audio sample at 48 kHz and 24 frames a second.
TOLERANCE_FRAMES = Fraction(1, 100_000)
LARGEST_RATE = 60  # faster pictures number their frames in pairs (SMPTE ST 12-3)
_TIMECODE = re.compile(r"(\d\d):(\d\d):(\d\d)([:;.,])(\d\d)", re.ASCII)
_RATE = re.compile(r"(\d+(?:\.\d+)?|\d+/\d+)(df|ndf)?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class FrameRate:
    """How fast frames follow one another, and how they are numbered.

    Args:
        per_s: frames per second.
        is_drop: whether numbers are left out to keep up with the clock (only at 30000/1001 and 60000/1001).

    Raises:
        AuscultError: there is no timecode at that rate.
    """

    per_s: Fraction
    is_drop: bool = False

    def __post_init__(self) -> None:
        slowed = Fraction(1000, 1001) * self.nominal
        if not 1 <= self.nominal <= LARGEST_RATE or self.per_s not in (self.nominal, slowed):
            raise AuscultError(
                f"frame rate {self.per_s}: expected a whole number up to {LARGEST_RATE}, or its 1000/1001 (29.97)"
            )
        if self.is_drop and self.per_s not in (Fraction(30_000, 1001), Fraction(60_000, 1001)):
            raise AuscultError(f"frame rate {self.per_s}: drop-frame timecode exists at 29.97 and 59.94 only")

    @cached_property
    def nominal(self) -> int:
        """Frame numbers per second of timecode."""
        return round(self.per_s)

    @cached_property
    def dropped(self) -> int:
        """Numbers left out in each minute that ten does not divide."""
        return self.nominal // 15 if self.is_drop else 0

    @cached_property
    def day(self) -> int:
        """Frames in 24 hours of timecode."""
        return 24 * 3600 * self.nominal - 24 * 54 * self.dropped


def read_frame_rate(text: str) -> FrameRate:
    """A frame rate as people write it: 25, 23.976, 30000/1001, 29.97df, 59.94ndf.

    Examples:
        >>> read_frame_rate("25")
        FrameRate(per_s=Fraction(25, 1), is_drop=False)
        >>> read_frame_rate("29.97df")
        FrameRate(per_s=Fraction(30000, 1001), is_drop=True)
        >>> read_frame_rate("23.98") == read_frame_rate("24000/1001") == read_frame_rate("23.976ndf")
        True

    Raises:
        AuscultError: it is none.
    """
    match = _RATE.fullmatch(text.strip())
    if match is None or re.search(r"/0+$", match[1]):
        raise AuscultError(f"frame rate {text!r}: expected such as 25, 30000/1001, 29.97 (non-drop) or 29.97df")
    per_s = Fraction(match[1])
    slowed = Fraction(1000, 1001) * math.ceil(per_s)
    if per_s.denominator != 1 and abs(per_s - slowed) < Fraction(1, 200):  # 29.97 stands for 30000/1001
        per_s = slowed
    return FrameRate(per_s, is_drop=(match[2] or "").lower() == "df")


def clock(seconds: float, digits: int = 1) -> str:
    """A time as h:mm:ss.s, with so many digits behind the point.

    Example:
        >>> clock(3725.96), clock(3725.9596, 3)
        ('1:02:06.0', '1:02:05.960')
    """
    unit = 10**digits
    whole, rest = divmod(round(seconds * unit), unit)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}.{rest:0{digits}d}"


def count_frames(seconds: float, per_s: Fraction, *, up: bool = False) -> int:
    """Frames before a time: the number of the frame that it lies in, or with `up` of the next border.

    Args:
        seconds: time from the first frame.
        per_s: frames per second.
        up: round up instead of down, for the exclusive end of a stretch.

    Examples:
        >>> count_frames(12.05, Fraction(25)), count_frames(12.05, Fraction(25), up=True)
        (301, 302)
        >>> count_frames(12.04, Fraction(25)), count_frames(12.04, Fraction(25), up=True)
        (301, 301)
    """
    exact = Fraction(seconds) * per_s
    nearest = round(exact)
    if abs(exact - nearest) < TOLERANCE_FRAMES:
        return nearest
    return math.ceil(exact) if up else math.floor(exact)


def frames_to_timecode(frames: int, rate: FrameRate) -> str:
    """The timecode of a frame; `;` before its last part marks drop-frame.

    Args:
        frames: number of the frame, from 0 at 00:00:00:00; 24 hours later begins at 0 again.
        rate: frames per second, and whether numbers are dropped.

    Examples:
        >>> drop = read_frame_rate("29.97df")
        >>> [frames_to_timecode(frame, drop) for frame in (1799, 1800, 17981, 17982)]
        ['00:00:59;29', '00:01:00;02', '00:09:59;29', '00:10:00;00']
        >>> frames_to_timecode(107_892, drop), frames_to_timecode(108_000, read_frame_rate("29.97"))
        ('01:00:00;00', '01:00:00:00')
        >>> frames_to_timecode(-1, read_frame_rate("25")), frames_to_timecode(drop.day, drop)
        ('23:59:59:24', '00:00:00;00')
    """
    number = frames % rate.day
    if rate.is_drop:
        minute = 60 * rate.nominal - rate.dropped  # frames in a minute that drops
        tens, rest = divmod(number, 10 * minute + rate.dropped)
        # The first minute of ten has all its numbers.
        number += rate.dropped * (9 * tens + max(0, rest - rate.dropped) // minute)
    seconds, frame = divmod(number, rate.nominal)
    minutes, second = divmod(seconds, 60)
    hour, minute_of_hour = divmod(minutes, 60)
    return f"{hour:02d}:{minute_of_hour:02d}:{second:02d}{';' if rate.is_drop else ':'}{frame:02d}"


def timecode_to_frames(text: str, rate: FrameRate) -> int:
    """The number of the frame with a timecode, from 0 at 00:00:00:00.

    Examples:
        >>> timecode_to_frames("00:01:00;02", read_frame_rate("29.97df"))
        1800
        >>> timecode_to_frames("10:00:00:00", read_frame_rate("25"))
        900000

    Raises:
        AuscultError: it is no timecode at that rate, or drop-frame timecode leaves its number out.
    """
    match = _TIMECODE.fullmatch(text.strip())
    expected = f"timecode {text!r}: expected hh:mm:ss:ff below 24 hours at {rate.nominal} frames a second"
    if match is None:
        raise AuscultError(expected)
    hour, minute, second, frame = (int(match[group]) for group in (1, 2, 3, 5))
    if hour > 23 or minute > 59 or second > 59 or frame >= rate.nominal:
        raise AuscultError(expected)
    if match[4] != ":" and not rate.is_drop:
        raise AuscultError(f"timecode {text!r}: is drop-frame by its {match[4]!r}, the frame rate is not; say 29.97df")
    if second == 0 and frame < rate.dropped and minute % 10:
        raise AuscultError(
            f"timecode {text!r}: drop-frame timecode leaves this number out; take frame {rate.dropped:02d}"
        )
    minutes = 60 * hour + minute
    return (60 * minutes + second) * rate.nominal + frame - rate.dropped * (minutes - minutes // 10)


@dataclass(frozen=True)
class Timeline:
    """Where the seconds of a file lie in the timecode of its picture.

    Args:
        rate: the picture's frame rate.
        first_frame: number of the file's first frame, from 0 at 00:00:00:00.
    """

    rate: FrameRate
    first_frame: int = 0

    def frames(self, seconds: float, *, up: bool = False) -> int:
        """Number of the frame that a time lies in, or with `up` of the next border; from 0 at 00:00:00:00."""
        return self.first_frame + count_frames(seconds, self.rate.per_s, up=up)

    def timecode(self, seconds: float, *, up: bool = False) -> str:
        """Timecode of the frame that a time lies in, or with `up` of the next border.

        Examples:
            >>> Timeline(read_frame_rate("25"), 900_000).timecode(12.5)
            '10:00:12:12'
            >>> Timeline(read_frame_rate("25"), 900_000).timecode(12.5, up=True)
            '10:00:12:13'
        """
        return frames_to_timecode(self.frames(seconds, up=up), self.rate)

    def seconds(self, text: str) -> float:
        """Time at which the frame with a timecode begins, seconds from the file's first frame (below 24 hours).

        Examples:
            >>> Timeline(read_frame_rate("25"), 900_000).seconds("10:00:12:13")
            12.52
        """
        frames = (timecode_to_frames(text, self.rate) - self.first_frame) % self.rate.day
        return float(frames / self.rate.per_s)


def timeline(frame_rate: str, start: str) -> Timeline:
    """A timeline as the command line gives it.

    Examples:
        >>> timeline("29.97df", "10:00:00;00").timecode(60.06)
        '10:01:00;02'

    Raises:
        AuscultError: rate or timecode cannot be read, or one is drop-frame and the other is not.
    """
    rate = read_frame_rate(frame_rate)
    return Timeline(rate, timecode_to_frames(start, rate))
