"""`make bench-meant`: what the default detector says of sounds that are meant, a minute of each.

Tones to line up by, telephones, machines, weather, instruments and voices, each by a recipe of its own and none as
training makes its sounds that are meant (models/intended.py). Nothing should be detected; what is, is printed by sound.
With BENCH_MODELS (names of registered models, comma-separated) other detectors.
"""

import os
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch
from deltalake import DeltaTable
from scipy import ndimage, signal
from torchaudio.functional import mu_law_decoding, mu_law_encoding

from jobs import scan
from models.draws import log_uniform
from tests.bench.tuning import clean_recordings, excerpt

HOME = Path(__file__).resolve().parent.parent.parent / "var" / "bench-meant"
RATE_HZ = 48_000
SECONDS = 60
COUNT = SECONDS * RATE_HZ
TIME_S = np.arange(COUNT) / RATE_HZ
SEED = 20261127
Sound = Callable[[np.random.Generator, np.ndarray], np.ndarray]  # dice, a voice of a minute; both results (samples,)


def level(waveform: np.ndarray, decibels: float) -> np.ndarray:
    """A waveform brought to an RMS, decibels of full scale."""
    return waveform * 10 ** (decibels / 20) / np.sqrt(np.mean(np.square(waveform)))


def filtered(waveform: np.ndarray, edges_hz: float | tuple[float, float], order: int = 2) -> np.ndarray:
    """A Butterworth low-pass, or band-pass where there are two edges."""
    kind = "low" if np.isscalar(edges_hz) else "band"
    return signal.sosfilt(signal.butter(order, edges_hz, kind, fs=RATE_HZ, output="sos"), waveform)


def noise(rng: np.random.Generator, slope: float, low_hz: float = 20.0, high_hz: float = 20_000.0) -> np.ndarray:
    """Noise whose amplitude goes with frequency to the power `slope`: -0.5 is pink, -1 red."""
    frequency_hz = np.fft.rfftfreq(COUNT, 1 / RATE_HZ)
    inside = (frequency_hz > low_hz) & (frequency_hz < high_hz)
    gain = np.where(inside, np.maximum(frequency_hz, 1.0) ** slope, 0.0)
    return level(np.fft.irfft(np.fft.rfft(rng.standard_normal(COUNT)) * gain, COUNT), -20)


def sine(frequency_hz: np.ndarray | float, decibels: float = -18.0) -> np.ndarray:
    """A sine of a pitch, or of one that changes from sample to sample."""
    turns = np.cumsum(np.broadcast_to(frequency_hz, COUNT)) / RATE_HZ
    return 10 ** (decibels / 20) * np.sin(2 * np.pi * turns)


def struck(rng: np.random.Generator, a_second: float, one: Callable[[], np.ndarray], spread: float) -> np.ndarray:
    """Short sounds at random moments, their sizes spread log-normally."""
    out = np.zeros(COUNT + RATE_HZ)
    for at in rng.integers(0, COUNT, int(SECONDS * a_second)):
        waveform = one()
        out[at : at + len(waveform)] += rng.lognormal(0.0, spread) * waveform
    return out[:COUNT]


def ring(rng: np.random.Generator, low_hz: float, high_hz: float, decay_s: float) -> np.ndarray:
    """A sine that dies away, of a pitch between two."""
    time_s = np.arange(round(8 * decay_s * RATE_HZ)) / RATE_HZ
    pitch_hz = log_uniform(rng, low_hz, high_hz)
    return np.sin(2 * np.pi * pitch_hz * time_s + rng.uniform(0, 6)) * np.exp(-time_s / decay_s)


def notes(seconds: float, one: Callable[[np.ndarray], np.ndarray], fade_s: float = 0.02) -> np.ndarray:
    """Notes one after the other, faded in and out; `one` takes the time since the note began."""
    length = round(seconds * RATE_HZ)
    time_s = TIME_S[:length]
    fade = np.minimum(1.0, np.minimum(time_s / fade_s, (seconds - time_s) / fade_s))
    return np.resize(np.concatenate([one(time_s) * fade for _ in range(round(SECONDS / seconds))]), COUNT)


def tones(time_s: np.ndarray, frequency_hz: float, sizes: tuple[float, ...]) -> np.ndarray:
    """A note with its overtones."""
    return sum(size * np.sin(2 * np.pi * order * frequency_hz * time_s + order) for order, size in enumerate(sizes, 1))


def pitch_hz(rng: np.random.Generator, low: int, high: int) -> float:
    """Of equal temperament, by semitones from A4."""
    return float(440 * 2 ** (rng.integers(low, high) / 12))


def chord(rng: np.random.Generator, time_s: np.ndarray, sizes: tuple[float, ...]) -> np.ndarray:
    """A major chord of four notes."""
    root_hz = pitch_hz(rng, -24, -5)
    return sum(tones(time_s, root_hz * 2 ** (step / 12), sizes) for step in (0, 4, 7, 12))


def guitar(rng: np.random.Generator) -> np.ndarray:
    """Power chords, before the amplifier; full scale 1."""
    played = notes(0.5, lambda t: chord(rng, t, (1.0, 0.5, 0.3, 0.2, 0.2)) * np.exp(-t), 0.003)
    return played / np.abs(played).max()


def telephone(voice: np.ndarray) -> np.ndarray:
    """300 to 3400 Hz in eight bits of the mu law."""
    band = filtered(voice, (300.0, 3400.0), 4)
    coded = mu_law_encoding(torch.from_numpy(band / np.abs(band).max()), 256)
    return filtered(mu_law_decoding(coded, 256).numpy(), 3800.0, 4)


def gated(voice: np.ndarray) -> np.ndarray:
    """Digital silence wherever it is soft, faded to in 4 ms."""
    loud = filtered(np.abs(voice), 20.0) > 0.3 * np.sqrt(np.mean(np.square(voice)))
    gain = ndimage.uniform_filter1d(loud.astype(float), round(0.004 * RATE_HZ))
    return np.where(gain > 1e-6, gain * voice, 0.0)


def time_code(rng: np.random.Generator, frames_per_s: float = 25.0) -> np.ndarray:
    """Linear time code (SMPTE ST 12-1): 80 bits a frame as biphase marks, a change at each bit and in the midst of ones."""
    bits_per_s = 80 * frames_per_s
    ones = rng.integers(0, 2, round(SECONDS * bits_per_s)) == 1
    begins_s = np.arange(len(ones)) / bits_per_s
    changes_s = np.sort(np.concatenate([begins_s, begins_s[ones] + 0.5 / bits_per_s]))
    return filtered(1.0 - 2.0 * (np.searchsorted(changes_s, TIME_S) % 2), 6000.0)


BREAKS = (TIME_S % 4 >= 0.25).astype(float)  # EBU Tech 3304, left
SOUNDS: dict[str, Sound] = {
    "1 kHz": lambda rng, voice: sine(1000.0),
    "1 kHz, then a voice": lambda rng, voice: np.where(TIME_S < 30, sine(1000.0), voice),
    "1 kHz with breaks": lambda rng, voice: sine(1000.0) * BREAKS,
    "400 Hz": lambda rng, voice: sine(400.0, -12),
    "100 Hz": lambda rng, voice: sine(100.0),
    "sweep": lambda rng, voice: sine(20 * 1000 ** (TIME_S / SECONDS)),
    "pink noise": lambda rng, voice: noise(rng, -0.5),
    "white noise": lambda rng, voice: noise(rng, 0.0),
    "beep ahead of the picture": lambda rng, voice: np.where(
        TIME_S < 12, sine(1000.0) * ((TIME_S >= 10) & (TIME_S < 10 + 1 / 24)), voice
    ),
    "dialling tone": lambda rng, voice: sine(350.0, -20) + sine(440.0, -20),
    "ringing tone": lambda rng, voice: (sine(440.0, -20) + sine(480.0, -20)) * (TIME_S % 6 < 2),
    "dialling": lambda rng, voice: notes(
        0.2, lambda t: (tones(t, rng.choice([697, 770, 852, 941]), (0.1,)) + tones(t, 1336.0, (0.1,))) * (t < 0.1)
    ),
    "telephone": lambda rng, voice: level(telephone(voice), -24),
    "radio": lambda rng, voice: level(
        filtered(np.tanh(6 * telephone(voice)) + noise(rng, 0.0) / 2, (400.0, 2800.0)) * (TIME_S % 7 < 5), -24
    ),
    "megaphone": lambda rng, voice: level(filtered(np.clip(8 * telephone(voice), -1, 1), (500.0, 4000.0)), -22),
    "room": lambda rng, voice: level(noise(rng, -0.6), -52) + voice,
    "loud room": lambda rng, voice: level(noise(rng, -0.6), -42) + voice,
    "ventilation": lambda rng, voice: level(noise(rng, -1.0), -40) + voice,
    "fan": lambda rng, voice: level(noise(rng, -0.5, 30, 6000), -40) * (1 + 0.3 * np.sin(69 * TIME_S)) + voice,
    "cabin of an aeroplane": lambda rng, voice: (
        noise(rng, -0.6, 30, 8000) + sum(sine(order * (180 + 30 * np.sin(0.16 * TIME_S)), -34) for order in (1, 2, 3))
    ),
    "car": lambda rng, voice: (
        voice
        + level(noise(rng, -1.0, 20, 3000), -30)
        + sum(sine(order * (38 + 4 * np.sin(0.5 * TIME_S)), -38 - 3 * order) for order in range(1, 7))
    ),
    "sea": lambda rng, voice: noise(rng, -0.4, 50, 12_000) * (np.exp(-((TIME_S % 8 - 3) ** 2) / 3) + 0.1),
    "waterfall": lambda rng, voice: level(noise(rng, -0.35, 100, 10_000), -26),
    "applause": lambda rng, voice: level(
        filtered(struck(rng, 400, lambda: ring(rng, 500, 9000, 0.002), 0.7), (500.0, 9000.0), 1), -20
    ),
    "fire": lambda rng, voice: (
        level(struck(rng, 25, lambda: ring(rng, 800, 6000, 0.0008), 1.0), -34) + level(noise(rng, -0.8, 30, 4000), -34)
    ),
    "gravel": lambda rng, voice: level(
        struck(rng, 300, lambda: ring(rng, 1000, 9000, 0.001), 0.6) * (TIME_S % 0.6 < 0.15), -30
    ),
    "typewriter": lambda rng, voice: level(struck(rng, 6, lambda: ring(rng, 1500, 5000, 0.004), 0.3), -30),
    "castanets": lambda rng, voice: level(struck(rng, 5, lambda: ring(rng, 1500, 3500, 0.006), 0.2), -24),
    "heartbeat": lambda rng, voice: level(struck(rng, 1.2, lambda: ring(rng, 44, 46, 0.06), 0.1), -22),
    "bass guitar": lambda rng, voice: level(
        notes(0.5, lambda t: tones(t, pitch_hz(rng, -41, -28), (1.0, 0.4, 0.2)) * np.exp(-2 * t)), -18
    ),
    "bass of held sines": lambda rng, voice: level(
        notes(2.0, lambda t: tones(t, pitch_hz(rng, -45, -30), (1.0,))), -18
    ),
    "organ": lambda rng, voice: level(notes(3.0, lambda t: chord(rng, t, (1.0, 0.6, 0.3, 0.3)), 0.1), -20),
    "pad of sines": lambda rng, voice: level(notes(2.0, lambda t: chord(rng, t, (1.0,)), 0.05), -20),
    "theremin": lambda rng, voice: sine(300 * 2 ** (np.sin(0.9 * TIME_S) + 0.02 * np.sin(34 * TIME_S))),
    "chip music": lambda rng, voice: notes(
        0.125, lambda t: 0.25 * signal.square(2 * np.pi * pitch_hz(rng, -12, 12) * t, 0.25), 0.001
    ),
    "overdriven guitar": lambda rng, voice: level(filtered(np.tanh(12 * guitar(rng)), 5000.0), -18),
    "fuzz through a loudspeaker": lambda rng, voice: level(filtered(np.clip(20 * guitar(rng), -1, 1), 4500.0, 3), -18),
    "fuzz without": lambda rng, voice: level(np.clip(20 * guitar(rng), -1, 1), -14),
    "voice": lambda rng, voice: voice,
    "voice from 8 kHz": lambda rng, voice: signal.resample_poly(signal.resample_poly(voice, 1, 6), 6, 1),
    "voice through a gate": lambda rng, voice: gated(voice),
    "voice off centre": lambda rng, voice: voice + 0.03,
    "voice and line frequency": lambda rng, voice: voice + sine(15_625.0, -55),
    "voice beside time code": lambda rng, voice: voice + level(time_code(rng), -60),
    "time code": lambda rng, voice: level(time_code(rng), -15),
    "voice, limited": lambda rng, voice: 0.9 * np.tanh(5 * voice),
}


def build() -> None:
    """Make the titles, once."""
    titles = HOME / "titles"
    if titles.exists():
        return
    voice = level(excerpt(clean_recordings(HOME)["speech"][:24], 0.0, SECONDS)[0].astype(float), -24)
    making = HOME / "making"
    making.mkdir(parents=True, exist_ok=True)
    for number, (name, sound) in enumerate(SOUNDS.items()):
        rng = np.random.default_rng([SEED, number])
        waveform = sound(rng, voice)
        dither = (rng.random(COUNT) - rng.random(COUNT)) / 32768 * (waveform != 0.0)
        soundfile.write(making / f"{name}.flac", np.clip(waveform + dither, -1, 1), RATE_HZ, "PCM_16")
    making.rename(titles)


def main() -> int:
    """Build, scan, print."""
    build()
    models = os.environ.get("BENCH_MODELS", "audio-artifacts").split(",")
    warehouse = HOME / "warehouse"
    chosen = [part for name in models for part in ("--model", f"models:/{name}@champion")]
    status = scan.main(["--catalogue", str(HOME / "titles"), "--warehouse", str(warehouse), *chosen])
    if status != 0:
        return status
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for row in DeltaTable(str(warehouse / "detections")).to_pyarrow_table().to_pylist():
        said = found[row["title_id"].removesuffix(".flac")]
        what = f"{row['defect']} ({row['model']}/{row['model_version']})"
        said[what] = said.get(what, 0.0) + row["detected_s"]
    print(f"\n| of {len(SOUNDS)} sounds that are meant | detected, seconds |\n|---|---|")
    for name in SOUNDS:
        if name in found:
            print(f"| {name} | {', '.join(f'{what}: {seconds:.1f}' for what, seconds in found[name].items())} |")
    print(f"\n{len(SOUNDS) - len(found)} without a detection")
    return 0


if __name__ == "__main__":
    sys.exit(main())
