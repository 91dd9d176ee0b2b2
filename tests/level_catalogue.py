"""A small catalogue, one title of it loud, and scans of it with a model that measures level."""

import os

import numpy as np
import toy_models
from signals import music_like, write

from jobs import scan
from udfs.encode import AudioTrack, write_media

SETTINGS = """
operating_points:
  loud: {threshold: 0.3, min_detected_s: 3.0, window_s: 5.0}
"""
FILES = {
    "music/a b.flac": 44_100,
    "music/x=1/b.mp3": 44_100,
    "_odd/.hidden.opus": 48_000,
    "été/c.m4a": 48_000,
}


def prepare(folder):
    """Register two foreign models, and write a catalogue of good and broken files."""
    toy_models.register_level(folder / "code")
    toy_models.register_frames(folder / "code")
    music = music_like(12.5, 48_000, np.random.default_rng(1)) * 0.5
    loud = music.copy()
    loud[:, 3 * 48_000 : 9 * 48_000] = np.sign(loud[:, 3 * 48_000 : 9 * 48_000]) * 0.9
    catalogue = folder / "catalogue"
    for number, (name, rate) in enumerate(FILES.items()):
        write(catalogue / name, loud if number == 0 else music, rate)
    write_media(
        catalogue / "film.mkv",
        [
            AudioTrack(music, 48_000, "stereo", "eng"),
            AudioTrack(np.repeat(music[:1], 6, axis=0), 48_000, "5.1", "fra"),
        ],
        picture=True,
    )
    write(catalogue / "half.wav", music)
    os.truncate(catalogue / "half.wav", (catalogue / "half.wav").stat().st_size // 2)
    (catalogue / "noise.mp3").write_bytes(np.random.default_rng(0).bytes(5000))
    (catalogue / "empty.flac").touch()
    (catalogue / "cover.jpg").write_bytes(b"x")
    (folder / "settings.yaml").write_text(SETTINGS)
    return folder


def run(place, *more, catalogue="catalogue", warehouse="warehouse"):
    return scan.main(
        [
            "--catalogue", str(place / catalogue), "--warehouse", str(place / warehouse),
            "--settings", str(place / "settings.yaml"), "--model", "models:/level@champion", *more,
        ]
    )  # fmt: skip


def table(spark, place, name, warehouse="warehouse"):
    return spark.read.format("delta").load(str(place / warehouse / name))


def segment_rows(spark, place, warehouse="warehouse"):
    """All of the table segments but the scan's id, comparable and sorted."""
    rows = table(spark, place, "segments", warehouse).drop("scan_id").collect()
    return sorted(
        tuple(tuple(sorted(value.items())) if isinstance(value, dict) else value for value in row) for row in rows
    )
