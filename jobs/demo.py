"""Builds the demo catalogue of real recordings with defects in known places, and compares what a scan found.

Reads: Debian packages (see jobs/recordings.py); where they are not to be had, synthesises a stand-in.
Writes: media files and planted.csv into a folder; prints a table.
One row per: planted.csv has one row a planted interval.
Launch: python jobs/demo.py build FOLDER; spark-submit jobs/demo.py compare FOLDER [--warehouse W];
    python jobs/demo.py clean FILE.csv
Takes: half a minute to build, after a download of 115 MB.
"""

import argparse
import csv
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import signal

from jobs.launch import AuscultError, default_warehouse, home, log, run, session
from jobs.literals import literal_frame
from jobs.recordings import DEMO_PACKAGES, RecordingsUnavailable, audio_files, fetch
from models.intervals import plant
from udfs.blocks import Resampler
from udfs.decode_report import MISSING_AUDIO
from udfs.decoding import decode
from udfs.encode import AudioTrack, write_media
from udfs.media import MediaError, probe

SEED = 20261121
RATE_HZ = 48_000
EFFECT_S = (1.0, 30.0)  # of a sound effect that is listed: a segment at the least, and no piece of music
PROMPTS = 40  # of each language, in the list of clean recordings
PLANTED = "planted.csv"
ABOUT = "README.txt"


@dataclass(frozen=True)
class Part:
    """One audio track of a demo title.

    Args:
        kind: "music", "speech-en", "speech-fr" or "hold".
        number: which recording of that kind to begin with.
        layout: mono, stereo or 5.1.
        defect: key of `models.defects.SIMULATORS` to plant, or None.
        at: (start_s, end_s) intervals to plant it in.
        channels: channels to plant it on; None for all.
        language: language tag.
    """

    kind: str
    number: int
    layout: str = "stereo"
    defect: str | None = None
    at: tuple[tuple[float, float], ...] = ()
    channels: tuple[int, ...] | None = None
    language: str | None = None


@dataclass(frozen=True)
class DemoTitle:
    """One file of the demo catalogue."""

    name: str
    seconds: float
    parts: tuple[Part, ...]
    picture: bool = False
    rate_hz: int = RATE_HZ
    codec: str | None = None
    spoil: str | None = field(default=None)  # how the finished file is broken


TITLES = (
    DemoTitle("album/01 desert.flac", 130, (Part("music", 0),), rate_hz=44_100),
    DemoTitle("album/02 caves.mp3", 130, (Part("music", 1, defect="hum", at=((30, 55), (90, 110))),), rate_hz=44_100),
    DemoTitle("album/03 ocean.m4a", 125, (Part("music", 2),), rate_hz=44_100),
    DemoTitle("album/04 palace.opus", 125, (Part("music", 3, defect="hiss", at=((40, 70),)),)),
    DemoTitle("album/05 hold music.wav", 120, (Part("hold", 0),)),
    DemoTitle("album/06 mirror.mp3", 120, (Part("music", 4, defect="click_reductive", at=((20, 60),)),)),
    DemoTitle("album/07 graveyard.opus", 115, (Part("music", 5),)),
    DemoTitle("album/08 rlyeh.flac", 120, (Part("music", 6, defect="distortion", at=((25, 50), (80, 100))),), rate_hz=44_100),
    DemoTitle("album/09 suite.flac", 960, (Part("music", 7, defect="click_additive", at=((300, 345), (700, 730))),)),
    DemoTitle("radio/prompts in English.wav", 120, (Part("speech-en", 0, "mono"),), rate_hz=8_000),
    DemoTitle("radio/annonces françaises.mp3", 120, (Part("speech-fr", 0, "mono", "hiss", ((50, 80),)),), rate_hz=44_100),
    DemoTitle("radio/studio.opus", 110, (Part("speech-en", 150, "mono"),)),
    DemoTitle(
        "film/two languages.mkv",
        150,
        (
            Part("speech-en", 300, "stereo", language="eng"),
            Part("speech-fr", 300, "stereo", "hum", ((60, 100),), language="fra"),
        ),
        picture=True,
    ),
    DemoTitle(
        "film/surround.mp4", 150, (Part("music", 9, "5.1", "hiss", ((45, 75),), channels=(4, 5), language="eng"),), picture=True
    ),
    DemoTitle("broken/cut off.mp3", 90, (Part("music", 11),), rate_hz=44_100, spoil="half"),
    DemoTitle("broken/no index.m4a", 60, (Part("music", 12),), rate_hz=44_100, spoil="no_moov"),
    DemoTitle("broken/not audio.flac", 10, (Part("music", 13),), spoil="text"),
)  # fmt: skip


def build(folder: Path) -> bool:
    """Build the catalogue once; returns whether it is made of real recordings."""
    if (folder / PLANTED).exists():  # written last
        return (folder / ABOUT).read_text() == _Recordings.about
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        packages = fetch(DEMO_PACKAGES, home() / "recordings")
        sources: _Sources = _Recordings(packages)
    except RecordingsUnavailable as error:
        log.warning("%s", error)
        log.warning(
            "the recordings are not to be had: the demo catalogue is SYNTHESISED, and detections on it mean little"
        )
        sources = _Synthesiser()
    rows = []
    for title in TITLES:
        path = folder / title.name
        tracks = []
        for number, part in enumerate(title.parts):
            waveform, planted = _render(title, number, part, sources)
            rows += [{"title_id": title.name, "track": number, **row} for row in planted]
            tracks.append(AudioTrack(_resample(waveform, title.rate_hz), title.rate_hz, part.layout, part.language))
        write_media(path, tracks, codec=title.codec, picture=title.picture)
        _spoil(path, title.spoil)
        if title.spoil == "half":  # the decoder's own detector is to say so
            lost = {"defect": MISSING_AUDIO, "start_s": title.seconds / 2, "end_s": title.seconds}
            rows.append({"title_id": title.name, "track": 0, "channels": "", "parameters": "{}", **lost})
    (folder / ABOUT).write_text(sources.about)
    with open(folder / f"{PLANTED}.part", "w", newline="") as file:
        writer = csv.DictWriter(file, ["title_id", "track", "channels", "defect", "start_s", "end_s", "parameters"])
        writer.writeheader()
        writer.writerows(rows)
    (folder / f"{PLANTED}.part").rename(folder / PLANTED)
    return sources.about == _Recordings.about


class _Sources:
    """Where the demo's audio comes from."""

    about = ""

    def audio(self, kind: str, number: int, seconds: float) -> np.ndarray:
        """Float32 (2, time) at 48 kHz of at least `seconds`."""
        raise NotImplementedError


class _Recordings(_Sources):
    about = "Demo catalogue of real recordings from Debian packages; planted.csv lists the defects planted in it.\n"

    def __init__(self, packages: dict[str, Path]) -> None:
        music, english, french, hold = (audio_files(packages[name]) for name in DEMO_PACKAGES)
        # The music package also holds a hundred sound effects; the prompts hold beeps and single words.
        self.files = {
            "music": [path for path in music if path.stat().st_size > 1_000_000 and _opens(path)],
            "effects": [path for path in music if path.stat().st_size <= 1_000_000 and _lasts(path, EFFECT_S)],
            "speech-en": [path for path in english if path.stat().st_size > 24_000],
            "speech-fr": [path for path in french if path.stat().st_size > 24_000],
            "hold": hold,
        }

    def audio(self, kind: str, number: int, seconds: float) -> np.ndarray:
        files = self.files[kind]
        parts, length = [], 0
        while length < seconds * RATE_HZ:
            part = _decoded(files[number % len(files)], seconds)
            parts.append(part)
            length += part.shape[1]
            number += 1
        return np.concatenate(parts, axis=1)[:, : round(seconds * RATE_HZ)]


class _Synthesiser(_Sources):
    """Chords with an envelope for music, syllables of filtered pulses for speech: equal in shape, not in sound."""

    about = "Demo catalogue of SYNTHESISED audio; planted.csv lists the defects planted in it.\n"

    def audio(self, kind: str, number: int, seconds: float) -> np.ndarray:
        rng = np.random.default_rng([SEED, number, len(kind)])
        time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
        if kind.startswith("speech"):
            pitch_hz = 110 + 30 * np.sin(2 * np.pi * 0.3 * time_s)
            voiced = signal.lfilter([1.0], [1.0, -0.97], signal.square(2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ, 0.1))
            syllables = np.clip(np.sin(2 * np.pi * 3.1 * time_s + rng.uniform(0, 6)), 0, 1) ** 0.5
            mono = voiced / np.abs(voiced).max() * syllables * 0.5
        else:
            mono = np.zeros(len(time_s))
            for start in np.arange(0, seconds, 0.5):
                begin = round(start * RATE_HZ)
                note_s = time_s[begin : begin + RATE_HZ] - start
                for step in rng.choice([0, 3, 5, 7, 10, 12, 15], 3):
                    for harmonic in range(1, 7):
                        tone = np.sin(2 * np.pi * 220 * 2 ** (step / 12) * harmonic * note_s)
                        mono[begin : begin + RATE_HZ] += tone / harmonic**2 * np.exp(-4 * note_s)
            mono *= 0.6 / np.abs(mono).max()
        return np.stack([mono, np.roll(mono, 300) * 0.9]).astype(np.float32)


def _opens(path: Path) -> bool:
    """Whether FFmpeg opens the file (three of the package's Ogg files it does not)."""
    try:
        return bool(probe(str(path)))
    except MediaError:
        return False


def _lasts(path: Path, seconds: tuple[float, float]) -> bool:
    """Whether FFmpeg opens the file and it is as long as that."""
    try:
        return seconds[0] <= (probe(str(path))[0].duration_s or 0.0) <= seconds[1]
    except MediaError:
        return False


def _decoded(path: Path, seconds: float) -> np.ndarray:
    resampler = Resampler(RATE_HZ)
    blocks = [out for block in decode(str(path), 0, 0.0, seconds) for out in resampler.push(block)]
    blocks += list(resampler.flush())
    waveform = np.concatenate([block.samples[:2] for block in blocks], axis=1)
    return waveform if waveform.shape[0] == 2 else np.repeat(waveform, 2, axis=0)


def _render(title: DemoTitle, number: int, part: Part, sources: _Sources) -> tuple[np.ndarray, list[dict[str, object]]]:
    """One track's waveform at 48 kHz, and a row per planted interval."""
    stereo = 0.8 * sources.audio(part.kind, part.number, title.seconds + 1)[:, : round(title.seconds * RATE_HZ)]
    waveform = {
        "mono": lambda: stereo.mean(axis=0, keepdims=True),
        "stereo": lambda: stereo,
        "5.1": lambda: _surround(stereo, 0.8 * sources.audio("speech-en", 400, title.seconds)),
    }[part.layout]().astype(np.float32)
    if part.defect is None:
        return waveform, []
    rng = np.random.default_rng([SEED, *title.name.encode(), number])
    channels = list(part.channels) if part.channels is not None else list(range(waveform.shape[0]))
    defective, planted = plant(waveform[channels], RATE_HZ, part.defect, list(part.at), rng)
    if len(channels) < waveform.shape[0]:
        waveform = waveform.copy()
        waveform[channels] = defective[:, : waveform.shape[1]]
    else:
        waveform = defective
    return waveform, [
        {
            "channels": " ".join(map(str, channels)),
            "defect": interval.label,
            "start_s": round(interval.start_s, 3),
            "end_s": round(interval.end_s, 3),
            "parameters": json.dumps({"simulator": interval.defect, **interval.parameters}),
        }
        for interval in planted
    ]


def _surround(music: np.ndarray, speech: np.ndarray) -> np.ndarray:
    """FL FR FC LFE BL BR: music around, speech in the centre, lows below."""
    low = signal.sosfilt(signal.butter(4, 120, fs=RATE_HZ, output="sos"), music.mean(axis=0))
    rear = 0.5 * np.roll(music, RATE_HZ // 50, axis=1)
    return np.stack([music[0], music[1], speech[0, : music.shape[1]], low, rear[0], rear[1]])


def _resample(waveform: np.ndarray, rate_hz: int) -> np.ndarray:
    if rate_hz == RATE_HZ:
        return waveform
    factor = np.gcd(rate_hz, RATE_HZ)
    resampled = signal.resample_poly(waveform, rate_hz // factor, RATE_HZ // factor, axis=1)
    return np.clip(resampled, -1.0, 1.0).astype(np.float32)


def _spoil(path: Path, how: str | None) -> None:
    if how == "half":
        os.truncate(path, path.stat().st_size // 2)
    elif how == "no_moov":
        data = path.read_bytes()
        path.write_bytes(data[: data.rindex(b"moov") - 4])
    elif how == "text":
        path.write_text("This was meant to be audio.\n" * 40)


def compare(folder: Path, warehouse: str) -> Iterator[str]:
    """Lines of a Markdown table: planted intervals found and missed, detections where nothing was planted.

    Of a model that was scanned with in several versions, the newest that says anything counts.
    """
    from jobs import tables
    from jobs.storage import Storage

    with open(folder / PLANTED, newline="") as file:
        planted = list(csv.DictReader(file))
    spark = session("auscult demo")
    storage = Storage(spark, warehouse)
    tables.require(storage, "detections")
    names = literal_frame(spark, [(title.name,) for title in TITLES], "title_id string")
    detections = tables.read(spark, storage, "detections").join(names, "title_id", "left_semi")
    found = detections.orderBy("title_id", "track", "start_s").collect()
    newest: dict[str, int] = {}
    for hit in found:
        newest[hit.model] = max(newest.get(hit.model, 0), int(hit.model_version))
    found = [hit for hit in found if int(hit.model_version) == newest[hit.model]]
    used = set()
    yield "| title | track | defect | planted at | result | detected at | peak score |"
    yield "|---|---|---|---|---|---|---|"
    results = {"found": 0, "missed": 0}
    for row in planted:
        start_s, end_s = float(row["start_s"]), float(row["end_s"])
        hits = [
            (number, hit)
            for number, hit in enumerate(found)
            if (hit.title_id, hit.track, hit.defect) == (row["title_id"], int(row["track"]), row["defect"])
            and hit.start_s < end_s
            and hit.end_s > start_s
        ]
        used |= {number for number, _ in hits}
        result = "found" if hits else "missed"
        results[result] += 1
        where = ", ".join(f"{hit.start_s:.0f}-{hit.end_s:.0f} s" for _, hit in hits)
        peak = f"{max(hit.peak_score for _, hit in hits):.2f}" if hits else ""
        yield (
            f"| {row['title_id']} | {row['track']} | {row['defect']} | {start_s:.0f}-{end_s:.0f} s "
            f"| {result} | {where} | {peak} |"
        )
    for number, hit in enumerate(found):
        if number not in used:
            yield (
                f"| {hit.title_id} | {hit.track} | {hit.defect} | nothing | false | {hit.start_s:.0f}-{hit.end_s:.0f} s "
                f"| {hit.peak_score:.2f} |"
            )
    yield ""
    yield f"{results['found']} found, {results['missed']} missed, {len(found) - len(used)} false"


def list_clean(path: Path) -> int:
    """Write a catalogue (CSV) of the recordings that training never sees, with their kind; returns their number.

    Raises:
        AuscultError: the recordings are not to be had here.
    """
    try:
        files = _Recordings(fetch(DEMO_PACKAGES, home() / "recordings")).files
    except RecordingsUnavailable as error:
        raise AuscultError(f"the recordings are not to be had: {error}") from error
    chosen = [("music", file) for kind in ("music", "hold") for file in files[kind]]
    chosen += [("effects", file) for file in files["effects"]]
    for kind in ("speech-en", "speech-fr"):
        # The longest prompts, which hold sentences; the rest are single words.
        longest = sorted(files[kind], key=lambda file: (-file.stat().st_size, file.name))[:PROMPTS]
        chosen += [("speech", file) for file in longest]
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["title_id", "uri", "kind"])
        for number, (kind, file) in enumerate(chosen):
            writer.writerow([f"{kind}/{number:03d} {file.name}", file.as_uri(), kind])
    return len(chosen)


def main(argv: list[str]) -> int:
    """Build the catalogue, compare a scan of it with what was planted, or list the clean recordings behind it."""
    parser = argparse.ArgumentParser(prog="demo.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("do", choices=["build", "compare", "clean"])
    parser.add_argument("folder", type=Path, help="folder of the demo catalogue; for clean, the CSV file to write")
    parser.add_argument("--warehouse", default=default_warehouse())
    options = parser.parse_args(argv)
    if options.do == "build":
        kind = "real recordings" if build(options.folder) else "SYNTHESISED audio (no recordings to be had here)"
        print(f"demo catalogue of {kind}: {len(TITLES)} titles in {options.folder}")
        return 0
    if options.do == "clean":
        print(f"{list_clean(options.folder)} clean recordings in {options.folder}")
        return 0
    if not (options.folder / PLANTED).exists():
        raise AuscultError(f"{options.folder}: no {PLANTED} there; build the demo catalogue first")
    for line in compare(options.folder, options.warehouse):
        print(line)
    return 0


if __name__ == "__main__":
    run(main)
