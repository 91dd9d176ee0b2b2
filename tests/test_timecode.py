"""Timecode against a count of numbers by hand, known facts of drop-frame, and back to frames."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.launch import AuscultError
from jobs.timecode import Timeline, count_frames, frames_to_timecode, read_frame_rate, timecode_to_frames, timeline

RATES = ["23.976", "24", "25", "29.97", "29.97df", "30", "50", "59.94df", "60"]


def numbers_of_an_hour(nominal, dropped):
    """Every number of an hour in order, by counting: no arithmetic in common with the module."""
    mark = ";" if dropped else ":"
    for minute in range(60):
        for second in range(60):
            first = dropped if second == 0 and minute not in (0, 10, 20, 30, 40, 50) else 0
            for frame in range(first, nominal):
                yield f"00:{minute:02d}:{second:02d}{mark}{frame:02d}"


@pytest.mark.parametrize("text", RATES)
def test_every_frame_of_an_hour_has_its_number_and_back(text):
    rate = read_frame_rate(text)
    dropped = {"29.97df": 2, "59.94df": 4}.get(text, 0)
    numbers = list(numbers_of_an_hour(rate.nominal, dropped))
    assert [frames_to_timecode(frame, rate) for frame in range(len(numbers))] == numbers
    assert [timecode_to_frames(number, rate) for number in numbers] == list(range(len(numbers)))
    assert frames_to_timecode(len(numbers), rate) == numbers[0].replace("00:", "01:", 1)


@pytest.mark.parametrize("text", RATES)
def test_seconds_of_a_timecode_lie_in_its_frame(text):
    place = Timeline(read_frame_rate(text), timecode_to_frames("10:00:00:00", read_frame_rate(text)))
    for frame in range(0, 100_000, 97):
        code = frames_to_timecode(place.first_frame + frame, place.rate)
        assert place.timecode(place.seconds(code)) == place.timecode(place.seconds(code), up=True) == code


@pytest.mark.parametrize(
    ("rate", "frames", "code"),
    [  # facts of SMPTE ST 12-1 that every textbook has
        ("29.97df", 1_800, "00:01:00;02"),
        ("29.97df", 17_982, "00:10:00;00"),
        ("29.97df", 107_892, "01:00:00;00"),
        ("29.97df", 2_589_408, "00:00:00;00"),  # a day
        ("59.94df", 3_600, "00:01:00;04"),
        ("59.94df", 215_784, "01:00:00;00"),
        ("29.97", 108_000, "01:00:00:00"),
        ("23.976", 86_400, "01:00:00:00"),
        ("25", 2_160_000, "00:00:00:00"),
        ("25", -1, "23:59:59:24"),
    ],
)
def test_known_numbers(rate, frames, code):
    assert frames_to_timecode(frames, read_frame_rate(rate)) == code


@pytest.mark.parametrize("text", ["29.97df", "59.94df"])
def test_drop_frame_keeps_up_with_the_clock(text):
    rate = read_frame_rate(text)
    for hour in range(24):
        number = frames_to_timecode(round(hour * 3600 * rate.per_s), rate)
        assert abs(timecode_to_frames(number, rate) - timecode_to_frames(f"{hour:02d}:00:00;00", rate)) <= 6
    assert abs(rate.day / rate.per_s - 86_400) < Fraction(1, 10)  # seconds; non-drop would be 86 seconds off


@settings(deadline=None)
@given(st.floats(0.0, 1e6), st.sampled_from(RATES))
def test_start_and_end_enclose_the_stretch(seconds, text):
    per_s = read_frame_rate(text).per_s
    first, last = count_frames(seconds, per_s), count_frames(seconds, per_s, up=True)
    slack = Fraction(1, 10**5)
    assert first - slack <= Fraction(seconds) * per_s <= last + slack
    assert last - first <= 1


def test_a_stretch_past_midnight_goes_on_from_zero():
    assert timeline("25", "23:59:59:00").timecode(1.0) == "00:00:00:00"
    assert timeline("29.97df", "23:59:59;29").timecode(0.04) == "00:00:00;00"


@pytest.mark.parametrize(
    ("rate", "start", "message"),
    [
        ("29,97", "00:00:00:00", "frame rate '29,97': expected such as"),
        ("25/0", "00:00:00:00", "frame rate '25/0'"),
        ("0", "00:00:00:00", "frame rate 0: expected"),
        ("27.5", "00:00:00:00", "frame rate 55/2: expected"),
        ("120", "00:00:00:00", "frame rate 120: expected a whole number up to 60"),
        ("25df", "00:00:00:00", "drop-frame timecode exists at 29.97 and 59.94 only"),
        ("25", "10:00:00", "expected hh:mm:ss:ff"),
        ("25", "10:00:00:25", "below 24 hours at 25 frames"),
        ("25", "24:00:00:00", "below 24 hours"),
        ("29.97", "10:00:00;00", "is drop-frame by its ';'"),
        ("29.97df", "10:01:00;01", "leaves this number out; take frame 02"),
    ],
)
def test_what_is_wrong_is_told(rate, start, message):
    with pytest.raises(AuscultError, match=message):
        timeline(rate, start)
