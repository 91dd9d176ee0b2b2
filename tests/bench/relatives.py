"""`make bench-relatives`: does a detector hear what is broken in another way than the paper breaks it?

Hum of the mains with overtones, noise that is not white, clipping that was coded since: twenty seconds each of recordings
that training never heard, at the level of a programme, all of it broken, by recipes that training does not share. Printed is the
share of seconds that are given the name, and the share of excerpts that the shipped operating point detects. Two rows should
have nothing: the recordings as they are, and with a floor of noise that nobody hears.

BENCH_EXCERPTS (12) of music and as many of speech; BENCH_WEIGHTS: files beside the shipped ones, comma-separated.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from jobs.settings import DEFAULT_POINTS
from models import checkpoint
from models.cnn6 import LABELS
from models.codecs import recode
from models.serving import Classifier
from tests.bench.meant import level
from tests.bench.tuning import clean_recordings, excerpt

HOME = Path(__file__).resolve().parent.parent.parent / "var" / "bench-relatives"
RATE_HZ = 48_000
SECONDS = 20  # the shipped points' window
EXCERPTS = int(os.environ.get("BENCH_EXCERPTS", "12"))
RMS_DB = -23.0
SEED = 20261128
Breaks = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # both (samples,)


def hum(pitch_hz: float, decibels: float, *overtones: float) -> Breaks:
    """A tone with overtones of strengths relative to it, each of a phase of its own, at an RMS."""

    def broken(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        turns = 2 * np.pi * pitch_hz * np.arange(len(waveform)) / RATE_HZ
        parts = (size * np.sin(order * turns + rng.uniform(0, 6)) for order, size in enumerate((1.0, *overtones), 1))
        return waveform + level(sum(parts), decibels)

    return broken


def hiss(slope_db: float, decibels: float, low_hz: float = 20.0) -> Breaks:
    """Noise that rises by so many decibels an octave, from a frequency on, at an RMS."""

    def broken(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        frequency_hz = np.maximum(np.fft.rfftfreq(len(waveform), 1 / RATE_HZ), 1.0)
        gain = np.where(frequency_hz > low_hz, frequency_hz ** (slope_db / 6.02), 0.0)
        noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(len(waveform))) * gain, len(waveform))
        return waveform + level(noise, decibels)

    return broken


def clipped(share: float, codec: str | None = None, bit_rate: int = 96_000) -> Breaks:
    """Clipped at a share of the peak, made as loud as before, then coded where wanted."""

    def broken(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        top = share * float(np.abs(waveform).max())
        out = np.clip(waveform, -top, top)
        out *= min(10 ** (RMS_DB / 20) / float(np.sqrt(np.mean(np.square(out)))), 0.9 / top)
        return out if codec is None else recode(out.astype(np.float32), RATE_HZ, codec, bit_rate)

    return broken


def saturated(drive: float) -> Breaks:
    """Through a soft limit, as of tape and valves, driven by so much."""

    def broken(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return level(np.tanh(drive * waveform / float(np.abs(waveform).max())), RMS_DB)

    return broken


BUZZ = tuple(1.0 / order for order in range(2, 41))
CASES: list[tuple[str, str, Breaks]] = [  # what it is, the label that it should have
    ("as it is", "no_defect", lambda waveform, rng: waveform),
    ("white floor, -75 dB", "no_defect", hiss(0.0, -75.0)),
    ("50.02 Hz, -35 dB", "hum", hum(50.02, -35.0)),
    ("50.02 Hz and a tenth of the second, -35 dB", "hum", hum(50.02, -35.0, 0.1)),
    ("50.02 Hz with two overtones, -35 dB", "hum", hum(50.02, -35.0, 1.0, 0.5)),
    ("59.97 Hz with two overtones, -35 dB", "hum", hum(59.97, -35.0, 1.0, 0.5)),
    ("100.04 Hz with one, -35 dB", "hum", hum(100.04, -35.0, 0.4)),
    ("buzz of 50.02 Hz, -30 dB", "hum", hum(50.02, -30.0, *BUZZ)),
    ("white, -45 dB", "hiss", hiss(0.0, -45.0)),
    ("pink, -40 dB", "hiss", hiss(-3.01, -40.0)),
    ("tape: rising by 3 dB an octave from 500 Hz on, -45 dB", "hiss", hiss(3.01, -45.0, 500.0)),
    ("clipped at 0.1 of the peak", "distortion", clipped(0.1)),
    ("... then MP3", "distortion", clipped(0.1, "mp3")),
    ("... then AAC", "distortion", clipped(0.1, "aac")),
    ("... then Opus", "distortion", clipped(0.1, "opus")),
    ("clipped at 0.4, then AAC", "distortion", clipped(0.4, "aac")),
    ("soft limit, driven by 12 dB", "distortion", saturated(4.0)),
]


def excerpts() -> list[np.ndarray]:
    """Excerpts of the test's recordings, float32 (samples,): music, then speech."""
    recordings = clean_recordings(HOME)
    rng, found = np.random.default_rng(SEED), []
    for kind in ("music", "speech"):
        for _ in range(EXCERPTS):
            count = 1 if kind == "music" else 12  # prompts are short
            paths = [recordings[kind][int(place)] for place in rng.integers(len(recordings[kind]), size=count)]
            waveform = excerpt(paths, 0.0, float(SECONDS))[0]
            gain = 10 ** (RMS_DB / 20) / float(np.sqrt(np.mean(np.square(waveform))))
            found.append(waveform * np.float32(min(gain, 0.7 / float(np.abs(waveform).max()))))
    return found


def main() -> int:
    """Break, score, print."""
    sounds = excerpts()
    others = [Path(name) for name in os.environ.get("BENCH_WEIGHTS", "").split(",") if name]
    print(
        "| weights | | label | seconds given it | excerpts detected as it | as anything else |\n|---|---|---|---|---|---|"
    )
    for weights in (checkpoint.SHIPPED, *others):
        served = Classifier(checkpoint.load(weights), torch.device("cpu"))
        for what, label, breaks in CASES:
            seconds, detected, wrong = [], [], []
            for number, sound in enumerate(sounds):
                made = breaks(sound.astype(np.float64), np.random.default_rng([SEED, number]))
                stored = (np.round(np.clip(made, -1.0, 1.0) * 32767.0) / 32768.0).astype(np.float32)
                scores = served(torch.from_numpy(stored[: SECONDS * RATE_HZ].reshape(SECONDS, RATE_HZ))).numpy()
                seconds.append((scores.argmax(axis=1) == LABELS.index(label)).mean())
                said = {
                    name
                    for column, name in enumerate(LABELS)
                    if name in DEFAULT_POINTS
                    and (scores[:, column] >= DEFAULT_POINTS[name].threshold).sum()
                    >= DEFAULT_POINTS[name].min_detected_s
                }
                detected.append(label in said)
                wrong.append(bool(said - {label}))
            own = "" if label == LABELS[0] else f"{sum(detected)} of {len(sounds)}"
            print(f"| {weights.stem} | {what} | {label} | {np.mean(seconds):.2f} | {own} | {sum(wrong)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
