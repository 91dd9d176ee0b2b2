"""`make bench-tuning`: what tuning is worth, on a simulated catalogue with intended sounds that resemble defects.

150 titles of 100 s from recordings that training never saw: a fifth with a planted defect for 8 to 60 s, a fifth with
sounds that are meant (phone voice, overdriven guitar, vinyl, rain, bass drone), the rest untouched. They are scanned
with the shipped model into var/bench-tuning, and jobs/tune.py seeks points there without writing any. Titles cut from
one recording stay on one side of the cross-validation.
"""

import csv
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from scipy.signal import butter, lfilter, sosfilt

from jobs import scan, tune
from jobs.demo import list_clean
from models.defects import LABEL_OF, OF_TASK
from models.intervals import plant
from udfs.decode_report import DecodeReport
from udfs.decoder import Decoder, encode_path
from udfs.encode import AudioTrack, write_media

HOME = Path(__file__).resolve().parent.parent.parent / "var" / "bench-tuning"
RATE_HZ = 48_000
SECONDS = 100
TITLES = 150
SEED = 20261121


def phone_voice(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A voice on a telephone line: 300 to 3400 Hz, driven a little."""
    band = sosfilt(butter(4, [300, 3400], "bandpass", fs=RATE_HZ, output="sos"), waveform)
    drive = rng.uniform(1.5, 4.0)
    return np.tanh(drive * band / np.abs(band).max()) / np.tanh(drive) * np.abs(waveform).max()


def overdriven_guitar(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Power chords of plucked strings (Karplus and Strong) through a valve-like curve, below the title's own music."""
    out = np.zeros(waveform.shape[1])
    for begin in np.arange(0, waveform.shape[1] - 2 * RATE_HZ, RATE_HZ):
        root = rng.choice([82.41, 98.0, 110.0, 130.81])
        chord = np.zeros(2 * RATE_HZ)
        for ratio in (1.0, 1.5, 2.0):
            period = round(RATE_HZ / (root * ratio))
            pluck = np.zeros(2 * RATE_HZ)
            pluck[:period] = rng.uniform(-1, 1, period)
            chord += lfilter([1.0], [1.0, *np.zeros(period - 1), -0.498, -0.498], pluck)
        out[begin : begin + len(chord)] += chord
    drive = rng.uniform(5, 20)
    heard = np.tanh(drive * out / np.abs(out).max())
    cabinet = sosfilt(butter(2, [80, 5000], "bandpass", fs=RATE_HZ, output="sos"), heard)
    return 0.4 * waveform + 0.25 * cabinet[np.newaxis]


def vinyl(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Surface noise, crackle of decaying ticks, and rumble, from beginning to end."""
    count = waveform.shape[1]
    ticks = (rng.random(count) < rng.uniform(3, 12) / RATE_HZ) * rng.normal(0, 1, count)
    crackle = sosfilt(butter(2, [800, 9000], "bandpass", fs=RATE_HZ, output="sos"), lfilter([1], [1, -0.93], ticks))
    rumble = sosfilt(butter(2, 40, fs=RATE_HZ, output="sos"), rng.normal(0, 1, count))
    surface = rng.normal(0, 1, count)
    level = np.abs(waveform).max()
    noise = 0.15 * crackle / np.abs(crackle).max() + 0.01 * rumble / np.abs(rumble).max() + 0.0005 * surface
    return waveform + level * noise[np.newaxis]


def rain(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A steady shower with single drops that swells and fades, under the title's own sound."""
    count = waveform.shape[1]
    shower = sosfilt(butter(1, [500, 9000], "bandpass", fs=RATE_HZ, output="sos"), rng.normal(0, 1, count))
    drops = (rng.random(count) < 60 / RATE_HZ) * rng.exponential(1.0, count)
    drops = sosfilt(butter(2, [1500, 7000], "bandpass", fs=RATE_HZ, output="sos"), lfilter([1], [1, -0.98], drops))
    swell = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(count) / count)
    heard = swell * (shower / shower.std() + 0.5 * drops / drops.std())
    return 0.6 * waveform + rng.uniform(0.01, 0.04) * heard[np.newaxis]


def bass_drone(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Held low notes with overtones and a slow beat, such as scores for film use."""
    time = np.arange(waveform.shape[1]) / RATE_HZ
    pitch = rng.choice([41.2, 46.25, 55.0, 58.27, 61.74])
    tone = sum(
        np.sin(2 * np.pi * pitch * (1 + detune) * harmonic * time + rng.uniform(0, 6)) / harmonic**1.5
        for harmonic in range(1, 6)
        for detune in (-0.003, 0.0, 0.003)
    )
    swell = np.clip(np.sin(2 * np.pi * time / 40) * 2, 0, 1)
    return 0.7 * waveform + 0.05 * (tone * swell)[np.newaxis]


MEANT = (phone_voice, overdriven_guitar, vinyl, rain, bass_drone)


def make(order: tuple[int, str, str, float, str | None, str | None]) -> None:
    """Write one title."""
    number, target, uri, begin_s, defect, meant = order
    rng = np.random.default_rng([SEED, number])
    waveform = excerpt(uri.split("|"), begin_s)
    if meant is not None:
        waveform = next(sound for sound in MEANT if sound.__name__ == meant)(waveform, rng)
    if defect is not None:
        clean, planted = waveform.astype(np.float32), []
        while not planted:  # silence and the faintest music take no defect
            length_s = rng.uniform(8, 60)
            start_s = rng.uniform(0, SECONDS - length_s)
            waveform, planted = plant(clean, RATE_HZ, defect, [(start_s, start_s + length_s)], rng)
    peak = np.abs(waveform).max()
    samples = (waveform / max(1.0, peak)).astype(np.float32)
    write_media(Path(target), [AudioTrack(samples, RATE_HZ, "mono" if len(samples) == 1 else "stereo")])


def excerpt(uris: list[str], begin_s: float, seconds: float = SECONDS) -> np.ndarray:
    """Recordings one after the other from a time on, again where that is too short: (channels, samples)."""
    decoder = Decoder()
    parts = []
    for uri in uris:
        path = encode_path(uri)
        info = decoder.probe(path)[0]
        blocks = decoder.decode(
            path,
            0,
            begin_s,
            begin_s + seconds,
            [RATE_HZ],
            can_seek=False,
            is_timed=info.is_timed,
            report=DecodeReport(),
        )
        parts += [block.samples for _, block in blocks]
    decoder.close()
    joined = np.concatenate(parts, axis=1)
    count = round(seconds * RATE_HZ)
    return np.tile(joined, -(-count // joined.shape[1]))[:, :count]


def clean_recordings(folder: Path) -> dict[str, list[str]]:
    """Paths of the recordings that training never saw, by kind; their list is written into the folder."""
    list_clean(folder / "clean.csv")
    found: dict[str, list[str]] = {}
    with open(folder / "clean.csv", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["kind"], []).append(row["uri"].removeprefix("file://"))
    return found


def build() -> None:
    """Make the catalogue and its labels, once."""
    if (HOME / "labels.csv").exists():
        return
    paths = clean_recordings(HOME)
    speech = ["|".join(paths["speech"][begin : begin + 16]) for begin in range(0, len(paths["speech"]), 16)]
    rng = np.random.default_rng(SEED)
    (HOME / "titles").mkdir(exist_ok=True)
    defects, orders, labels = list(OF_TASK["artifacts"]), [], []
    for number in range(TITLES):
        is_music = rng.random() < 0.7
        source = str(rng.choice(paths["music"] if is_music else speech))
        begin_s = float(rng.uniform(0, 20)) if is_music else 0.0
        turn = number % 5
        defect = defects[number // 5 % len(defects)] if turn == 0 else None
        meant = MEANT[number // 5 % len(MEANT)].__name__ if turn == 1 else None
        name = f"{number:03d} {defect or meant or 'clean'}.flac"
        orders.append((number, str(HOME / "titles" / name), source, begin_s, defect, meant))
        labels.append((name, LABEL_OF[defect] if defect else "", source.split("|")[0]))
    with ProcessPoolExecutor() as pool:
        list(pool.map(make, orders))
    with open(HOME / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("title_id", "defect", "group"), *labels])


def main() -> int:
    """Build, scan, tune, print."""
    HOME.mkdir(parents=True, exist_ok=True)
    build()
    warehouse = str(HOME / "warehouse")
    status = scan.main(["--catalogue", str(HOME / "titles"), "--warehouse", warehouse])
    if status != 0:
        return status
    return tune.main(["--labels", str(HOME / "labels.csv"), "--warehouse", warehouse, "--dry-run", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
