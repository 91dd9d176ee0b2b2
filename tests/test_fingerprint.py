"""Fingerprints: the same sound is known again through a codec and a cut, other sound is not."""

import numpy as np
import pyarrow as pa
import pytest
from signals import music_like, write

from models.codecs import recode
from udfs import fingerprint as prints
from udfs.decoder import Decoder, encode_path

pytestmark = pytest.mark.skipif(not prints.is_available(), reason="Chromaprint is not installed")


def bit_error(a, b, shift):
    """Share of bits that differ where item i of `a` lies at item i + shift of `b`."""
    begin, end = max(0, -shift), min(len(a), len(b) - shift)
    return np.unpackbits((a[begin:end] ^ b[begin + shift : end + shift]).view(np.uint8)).mean()


def test_a_codec_and_a_cut_change_few_bits_and_other_music_many():
    waveform = music_like(30.0, 48_000, np.random.default_rng(0))[:1]
    whole = prints.fingerprint(waveform)
    assert whole.dtype == np.int32
    assert len(whole) == pytest.approx(30 / prints.ITEM_S, abs=25)
    cut = round(40 * prints.ITEM_S * 48_000)
    coded = prints.fingerprint(recode(waveform[0], 48_000, "mp3", 64_000)[None, cut:])
    assert bit_error(coded, whole, 40) < 0.1
    other = prints.fingerprint(music_like(30.0, 48_000, np.random.default_rng(1))[:1])
    assert min(bit_error(other, whole, shift) for shift in range(-150, 150)) > 0.2


def test_the_udf_takes_stretches_and_tells_what_it_cannot_take(tmp_path):
    waveform = music_like(30.0, 48_000, np.random.default_rng(0)) * 0.5
    path = write(tmp_path / "a b.flac", waveform)
    decoder = Decoder()
    encoded = encode_path(str(path))
    content = decoder.probe(encoded)[0].content_hash
    decoder.close()
    orders = [
        {"content_hash": content, "track": 0, "path": encoded, "start_s": 12.0, "end_s": 20.0},
        {"content_hash": content, "track": 0, "path": encoded, "start_s": 2.0, "end_s": 4.0},
        {"content_hash": "other", "track": 0, "path": encode_path(str(tmp_path / "gone.flac")), "start_s": 0.0, "end_s": 9.0},
    ]  # fmt: skip
    rows = [
        row
        for batch in prints.fingerprints_udf(60.0)(iter([pa.RecordBatch.from_pylist(orders)]))
        for row in batch.to_pylist()
    ]
    by_start = {row["start_s"]: row for row in rows}
    assert len(rows) == 3
    assert by_start[12.0]["from_s"] == 7.0
    assert by_start[2.0]["from_s"] == 0.0
    whole = prints.fingerprint(waveform[:, 7 * 48_000 : 25 * 48_000])
    assert bit_error(np.array(by_start[12.0]["items"], np.int32), whole, 0) < 0.03
    assert not by_start[0.0]["items"]
    assert by_start[0.0]["error"].startswith("not_found")
