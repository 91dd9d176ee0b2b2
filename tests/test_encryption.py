"""Encrypted titles: what FFmpeg would make noise of is not scored, and what it passes over is told."""

import encrypted_files
import numpy as np
import pytest
from signals import heard, music_like, write_as

from jobs.track_rows import outcome
from udfs.encryption import scrambled_shares
from udfs.media import probe

RATE_HZ = 48_000
SECONDS = 6.0


@pytest.fixture(scope="module")
def music():
    return music_like(SECONDS, RATE_HZ, np.random.default_rng(5), channels=1)[0]


@pytest.fixture
def plain(tmp_path, music):
    """Writes the music to a file of its container and returns its bytes."""

    def write(container, codec, options=None, title=None):
        path = write_as(tmp_path / "plain", container, codec, RATE_HZ, "stereo", options or {}, music, title=title)
        return path.read_bytes()

    return write


def probed(tmp_path, content):
    path = tmp_path / "encrypted"
    path.write_bytes(content)
    [info] = probe(str(path))
    return path, info


@pytest.mark.parametrize(
    ("container", "codec", "scheme"),
    [("mp4", "aac", "cenc"), ("mp4", "libopus", "cenc"), ("mp4", "alac", "cenc"), ("mp4", "aac", "drms"),
     ("mp4", "aac", "aavd"), ("mxf", "pcm_s24le", "mxf"), ("webm", "libopus", "matroska"),
     ("matroska", "aac", "matroska"), ("asf", "wmav2", "asf"), ("mpegts", "ac3", "transport stream")],
)  # fmt: skip
def test_an_encrypted_track_is_rejected(plain, tmp_path, container, codec, scheme):
    content = plain(container, codec, title=encrypted_files.TITLE)
    _path, info = probed(tmp_path, content)
    assert (info.error_code, info.encrypted_share) == (None, 0.0)
    encrypted = {
        "cenc": lambda: plain(container, codec, encrypted_files.CENC),
        "drms": lambda: encrypted_files.mp4(content, b"drms"),
        "aavd": lambda: encrypted_files.mp4(content, b"aavd"),
        "mxf": lambda: encrypted_files.mxf(content),
        "matroska": lambda: encrypted_files.matroska(content),
        "asf": lambda: encrypted_files.asf(content),
        "transport stream": lambda: encrypted_files.transport_stream(content, 0.0, 1.0),
    }[scheme]()
    _path, info = probed(tmp_path, encrypted)
    assert (info.error_code, info.encrypted_share) == ("encrypted", 1.0)
    assert info.error.startswith("the track is encrypted (")


def test_what_is_scrambled_for_a_while_leaves_a_partial_track(plain, tmp_path):
    content = plain("mpegts", "ac3")
    _info, whole, _report = heard(tmp_path / "plain")
    path, info = probed(tmp_path, encrypted_files.transport_stream(content, 0.8, 1.0))
    assert info.error_code is None
    assert info.encrypted_share == pytest.approx(0.2, abs=0.02)
    _info, samples, _report = heard(path)
    assert samples.shape[1] / RATE_HZ == pytest.approx(0.8 * SECONDS, abs=0.2)
    length = round(0.75 * SECONDS * RATE_HZ)
    assert np.corrcoef(samples[0, :length], whole[0, :length])[0, 1] > 0.99
    planned = {
        "status": "ok",
        "error_code": None,
        "duration_s": info.duration_s,
        "encrypted_share": info.encrypted_share,
    }
    row = outcome(planned, [{"decoded_s": info.duration_s, "error_code": None}], "s")
    assert (row["status"], row["error_code"]) == ("partial", "encrypted")
    assert row["error"].startswith(("19%", "20%", "21%"))
    assert "encrypted_share" not in row


def test_a_few_damaged_packets_are_no_encryption(plain, tmp_path):
    _path, info = probed(tmp_path, encrypted_files.transport_stream(plain("mpegts", "ac3"), 0.5, 0.505))
    assert (info.error_code, info.encrypted_share) == (None, 0.0)


@pytest.mark.parametrize("step", [188, 192, 204])
def test_shares_of_packets_of_any_size_and_begin(plain, tmp_path, step):
    content = encrypted_files.transport_stream(plain("mpegts", "ac3") * 80, 0.25, 0.5, step)
    path = tmp_path / "cut.ts"
    path.write_bytes(content[77:])
    assert path.stat().st_size > 64 * 1001 * step  # more than is looked at
    assert scrambled_shares(str(path), [0x100, 0x1234]) == {0x100: pytest.approx(0.25, abs=0.02)}


def test_noise_and_scraps_have_no_scrambled_packets(tmp_path):
    path = tmp_path / "noise.ts"
    for content in (b"", b"G", np.random.default_rng(1).bytes(100_000)):
        path.write_bytes(content)
        assert scrambled_shares(str(path), [0x1234]) == {}
