"""Ogg files as encoders in the field have left them: stamps and empty packets that are odd, and nothing wrong with the sound."""

from dataclasses import replace

import numpy as np
import ogg
import pytest
import soundfile
from signals import heard

from udfs.decode_report import TIME_JUMP

RATE_HZ = 44_100


@pytest.fixture(scope="module")
def vorbis(tmp_path_factory, music):
    """Ten seconds by libvorbis, with clicks, at which its blocks change size."""
    path = tmp_path_factory.mktemp("ogg") / "a.ogg"
    waveform = music[:, : 10 * RATE_HZ].T.copy()
    waveform[:: RATE_HZ // 3] = 0.9
    soundfile.write(path, waveform, RATE_HZ, format="OGG", subtype="VORBIS")
    return path


@pytest.fixture(scope="module")
def whole(vorbis):
    return heard(vorbis)[1]


def changed(path, name, change):
    """A copy next to a file, its pages changed."""
    target = path.with_name(name)
    target.write_bytes(ogg.joined(change(ogg.pages(path.read_bytes()))))
    return target


def test_pages_come_back_to_the_byte(vorbis):
    assert changed(vorbis, "same.ogg", lambda pages: pages).read_bytes() == vorbis.read_bytes()


def test_vorbis_decodes_as_libvorbis_does(vorbis):
    info, samples, report = heard(vorbis)
    reference = soundfile.read(vorbis, dtype="float32")[0].T
    assert info.duration_s == pytest.approx(10.0, abs=0.03)
    assert report.events == []
    length = min(samples.shape[1], reference.shape[1])
    assert length >= 9.9 * RATE_HZ
    assert np.abs(samples[:, :length] - np.clip(reference[:, :length], -1, 1)).max() < 1e-3


def test_a_last_page_that_ends_before_its_last_packet_begins(vorbis, whole):
    """The encoder cut the padding off by the position of the page, as Vorbis allows, and more than a packet of it."""
    path = changed(
        vorbis, "ends early.ogg", lambda pages: [*pages[:-1], replace(pages[-1], granule=pages[-1].granule - 2_500)]
    )
    info, samples, report = heard(path)
    assert info.is_timed
    assert info.duration_s == pytest.approx(samples.shape[1] / RATE_HZ, abs=0.05)
    assert report.events == []
    length = min(samples.shape[1], whole.shape[1])
    assert length >= whole.shape[1] - 4_096
    np.testing.assert_array_equal(samples[:, :length], whole[:, :length])


def test_an_empty_packet_at_the_end(vorbis, whole):
    def empty_last(pages):
        last = replace(pages[-1], flags=pages[-1].flags & ~ogg.LAST)
        return [*pages[:-1], last, replace(pages[-1], flags=ogg.LAST, lacing=bytes(1), body=b"")]

    info, samples, report = heard(changed(vorbis, "empty packet.ogg", empty_last))
    assert info.duration_s == pytest.approx(10.0, abs=0.03)
    assert (report.packet_errors, report.events) == (0, [])
    length = min(samples.shape[1], whole.shape[1])
    assert length >= whole.shape[1] - 2_048  # what the last page's position cut off
    np.testing.assert_array_equal(samples[:, :length], whole[:, :length])


@pytest.mark.parametrize(("shift", "jumps"), [(448, False), (-448, False), (RATE_HZ // 2, True)])
def test_stamps_of_a_page_that_are_off(vorbis, whole, shift, jumps):
    """By what FFmpeg mistakes at a change of block size: no jump, and every sample in its place. By half a second: a jump."""

    def shifted(pages):
        middle = len(pages) // 2
        return [
            replace(page, granule=page.granule + shift) if (number >= middle if jumps else number == middle) else page
            for number, page in enumerate(pages)
        ]

    _, samples, report = heard(changed(vorbis, f"shift {shift}.ogg", shifted))
    assert [event[0] for event in report.events] == [TIME_JUMP] * jumps
    if not jumps:
        np.testing.assert_array_equal(samples, whole)


def test_a_lost_block_is_a_jump(vorbis):
    def without_a_long_one(pages):
        middle = len(pages) // 2
        page = pages[middle]
        ends = np.cumsum(np.frombuffer(page.lacing, np.uint8), dtype=int)
        # A packet of 255 bytes and more has two lengths here, and is a block of 2,048 samples.
        first = next(
            n for n in range(2, len(ends) - 4) if page.lacing[n - 1] < 255 == page.lacing[n] > page.lacing[n + 1]
        )
        body = page.body[: ends[first - 1]] + page.body[ends[first + 1] :]
        page = replace(page, lacing=page.lacing[:first] + page.lacing[first + 2 :], body=body)
        return [*pages[:middle], page, *pages[middle + 1 :]]

    _, _, report = heard(changed(vorbis, "lost.ogg", without_a_long_one))
    assert [event[0] for event in report.events] == [TIME_JUMP]
