"""Files that end too early are told from files that are whole, and from what is no media."""

import os

import numpy as np
import pytest
from ogg import pages
from signals import music_like, write_as

from udfs.cut_off import ends_within_page, lacks_index
from udfs.media import MediaError, probe

RATE_HZ = 48_000


@pytest.fixture(scope="module")
def music():
    return 0.3 * music_like(8.0, RATE_HZ, np.random.default_rng(2))[0]


def test_an_ogg_file_that_ends_within_a_page(tmp_path, music):
    path = write_as(tmp_path / "a.opus", "ogg", "libopus", RATE_HZ, "stereo", {}, music)
    data = path.read_bytes()
    assert not probe(str(path))[0].ends_midway
    cut = tmp_path / "cut.ogg"
    *_, last = pages(data)
    for kept in (len(data) - 1, len(data) * 6 // 10, len(data) - len(last.body) - 10):
        cut.write_bytes(data[:kept])
        assert ends_within_page(str(cut)), kept
        [track] = probe(str(cut))
        assert track.ends_midway
    cut.write_bytes(data[: len(data) - len(last.packed())])  # between two pages
    assert not ends_within_page(str(cut))
    cut.write_bytes(data + b"TAG" + bytes(125))  # something appended
    assert not ends_within_page(str(cut))


@pytest.mark.parametrize(("name", "container"), [("a.m4a", "mp4"), ("a.mov", "mov")])
def test_an_mp4_file_without_its_index(tmp_path, music, name, container):
    path = write_as(tmp_path / name, container, "aac", RATE_HZ, "stereo", {}, music)
    assert len(probe(str(path))) == 1
    data = path.read_bytes()
    assert data.rindex(b"moov") > len(data) // 2  # behind the samples, as most writers have it
    for kept in (data.rindex(b"moov") - 4, len(data) // 2):
        path.write_bytes(data[:kept])
        with pytest.raises(MediaError) as caught:
            probe(str(path))
        assert caught.value.code == "no_index", kept
        assert "broke off" in caught.value.message


@pytest.mark.parametrize(
    "data", [b"", b"ftyp", b"this is no audio" * 9, bytes(100), b"\0\0\0\x08moov", b"RIFF\0\0\0\0WAVE"]
)
def test_what_is_no_mp4_lacks_no_index(tmp_path, data):
    (tmp_path / "a").write_bytes(data)
    descriptor = os.open(tmp_path / "a", os.O_RDONLY)
    try:
        assert not lacks_index(descriptor)
    finally:
        os.close(descriptor)
    assert not ends_within_page(str(tmp_path / "a"))
