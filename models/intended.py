"""Sounds that are meant and resemble defects, made up: training hears them as part of clean sound.

Rain, wind, cymbals and the air of a room resemble hiss, surface noise of a record its clicks, held notes, bells and a
telephone's tones hum, a driven amplifier clipping, the edges of a synthesiser's waves and a drum's attack clicks. Each
function draws one such sound: `(samples, sample_rate, rng) -> float32 (samples,)` with an RMS of 1, none as steady, or none
as flat, as the defect is. Recordings of the real thing are better where there are any.
"""

from collections.abc import Callable

import numpy as np
from scipy import fft, signal

from models.draws import log_uniform


def shaped_noise(
    samples: int, sample_rate: int, rng: np.random.Generator, levels: list[tuple[float, float]]
) -> np.ndarray:
    """Gaussian noise (samples,) whose spectrum passes through (Hz, dB) points, linear over the logarithm of frequency."""
    length = fft.next_fast_len(samples, real=True)
    frequency_hz = np.maximum(fft.rfftfreq(length, 1 / sample_rate), 1.0)
    points_hz, decibels = zip(*levels, strict=True)
    gain = 10.0 ** (np.interp(np.log(frequency_hz), np.log(points_hz), decibels) / 20.0)
    bins = rng.standard_normal((2, len(gain)), dtype=np.float32)
    return _at_rms_1(fft.irfft((bins[0] + 1j * bins[1]) * gain.astype(np.float32), length)[:samples])


def rain(samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """A shower: noise without lows and with uneven highs, and drops, each a short ring of its own pitch."""
    top = min(20_000.0, 0.45 * sample_rate)
    bend_hz = log_uniform(rng, 800, 5_000)
    shower = shaped_noise(
        samples, sample_rate, rng,
        [(50, -50), (bend_hz / 4, -18), (bend_hz, 0), (0.5 * top, rng.uniform(-14, -3)), (top, rng.uniform(-40, -12))],
    )  # fmt: skip
    drops = np.zeros(samples + 512)
    for at in rng.integers(0, samples, rng.poisson(rng.uniform(5, 150) * samples / sample_rate)):
        time = np.arange(rng.integers(60, 500))
        ring = np.sin(2 * np.pi * rng.uniform(600, 9_000) / sample_rate * time + rng.uniform(0, 6.3))
        drops[at : at + len(time)] += (
            rng.exponential() * ring * np.exp(-5.0 * time / len(time)) * np.minimum(time / 8, 1)
        )
    return _at_rms_1(_swell(samples, sample_rate, rng, 0.3) * shower + rng.uniform(0.3, 3.0) * drops[:samples])


def wind(samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Gusts: noise that falls with frequency, with a whistle that comes and goes."""
    slope = rng.uniform(3, 9)  # dB an octave
    noise = shaped_noise(samples, sample_rate, rng, [(30, 0), (30 * 2.0**9, -9 * slope)])
    pitch_hz = rng.uniform(250, 2_500)
    whistle = shaped_noise(
        samples, sample_rate, rng,
        [(20, -90), (0.8 * pitch_hz, -40), (pitch_hz, 0), (1.2 * pitch_hz, -40), (0.49 * sample_rate, -90)],
    )  # fmt: skip
    return _at_rms_1(
        _swell(samples, sample_rate, rng, 1.0) * noise
        + rng.uniform(0.0, 0.6) * _swell(samples, sample_rate, rng, 1.0) * whistle
    )


def ambience(samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Air of a room, ventilation, a cabin, far traffic: noise as steady as hiss, which falls with frequency throughout."""
    slope = rng.uniform(4, 9)  # dB an octave
    bend_hz = rng.uniform(40, 400)  # from where it falls
    octaves = np.log2(0.49 * sample_rate / bend_hz)
    return shaped_noise(
        samples, sample_rate, rng, [(20, rng.uniform(-12, 0)), (bend_hz, 0), (0.49 * sample_rate, -slope * octaves)]
    )


def record_surface(samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Crackle of a record: many small ticks of all sizes, each ringing through the pick-up, over rumble and soft noise."""
    crackle = np.zeros(samples + 256)
    for at in rng.integers(0, samples, rng.poisson(rng.uniform(8, 80) * samples / sample_rate)):
        time = np.arange(rng.integers(12, 200))
        ring = np.cos(2 * np.pi * rng.uniform(1_000, 12_000) / sample_rate * time)
        crackle[at : at + len(time)] += (
            rng.choice([-1, 1]) * rng.lognormal(0, 0.8) * ring * np.exp(-5 * time / len(time))
        )
    soft = shaped_noise(samples, sample_rate, rng, [(20, 20), (100, 0), (1_000, -6), (0.49 * sample_rate, -25)])
    loudest = float(np.abs(crackle).max()) or 1.0  # a moment without a tick has the noise all the same
    return _at_rms_1(crackle[:samples] + rng.uniform(0.01, 0.1) * loudest * soft)


def held_notes(samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """One to three held notes with overtones, as strings and synthesisers play them, or a chord of an organ.

    Each wavers in pitch, beats with a second voice, swells or dies away: a note that does none of it is a hum. Of a chord,
    notes may: a hum is one tone, or overtones of one.
    """
    time_s = np.arange(samples) / sample_rate
    out = np.zeros(samples)
    is_chord = rng.random() < 0.25
    root, steps = rng.integers(-36, 3), rng.choice([3, 4, 5, 7, 8, 9, 12, 15, 16], 3, replace=False)
    semitones = [root, *(root + steps)] if is_chord else rng.integers(-48, 8, rng.integers(1, 4))
    for semitone in semitones:
        pitch_hz = 440.0 * 2.0 ** ((semitone + rng.normal(0, 0.1)) / 12)
        manner = 4 if is_chord else rng.integers(4)
        is_pure = manner == 3 and rng.random() < 0.4  # bells, marimbas, electric pianos
        partials = np.arange(1, 2 if is_pure else rng.integers(2, 13))
        partials = partials[partials * pitch_hz < 0.45 * sample_rate]
        sizes = rng.lognormal(0, 0.6, len(partials)) / partials ** rng.uniform(0.3, 2.0)
        phase, size = 2 * np.pi * pitch_hz * time_s, np.ones(samples)
        if manner == 0:  # vibrato
            rate_hz, cents = rng.uniform(3, 7), rng.uniform(4, 40)
            depth = pitch_hz * (2 ** (cents / 1200) - 1) / rate_hz
            phase = phase + depth * np.sin(2 * np.pi * rate_hz * time_s + rng.uniform(0, 6.3))
        elif manner == 1:  # two voices, not quite in tune
            beat = np.exp(2j * np.pi * rng.uniform(0.4, 6) * time_s + 1j * rng.uniform(0, 6.3))
            voices = 1 + rng.uniform(0.3, 1.0) * beat
            phase, size = phase + np.angle(voices), np.abs(voices)
        elif manner == 2:  # tremolo or swell
            size = _swell(samples, sample_rate, rng, 1.0)
        elif manner == 3:  # struck, then dying away; struck again
            period_s = rng.uniform(0.2, 2.0)
            size = np.exp(-((time_s + rng.uniform(0, period_s)) % period_s) * rng.uniform(1.0, 9.0))
        for partial, partial_size in zip(partials, sizes, strict=True):
            out += partial_size * size * np.sin(partial * phase + rng.uniform(0, 6.3))
    return _at_rms_1(out)


def synthesiser(samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Notes of a sound chip or an analogue synthesiser, as games and dance music have them: waves made of edges.

    Pulse, saw, triangle, sine and held noise, their pitch still, sliding or stepping, from 20 Hz; half begin at full level.
    """
    out = np.zeros(samples)
    at, is_first = 0, True
    while at < samples:
        length = round(log_uniform(rng, 0.04, 1.0) * sample_rate)
        if is_first:
            at, is_first = -int(rng.uniform(0.0, 0.5) * length), False
        begin, stop = max(at, 0), min(at + length, samples)
        out[begin:stop] += rng.lognormal(0, 0.4) * _note(length, sample_rate, rng)[begin - at : stop - at]
        at += round(length * rng.uniform(0.6, 1.5))
    if rng.random() < 0.5:
        cutoff_hz = log_uniform(rng, 800, 0.4 * sample_rate)
        out = signal.sosfilt(signal.butter(int(rng.integers(1, 4)), cutoff_hz, fs=sample_rate, output="sos"), out)
    return _at_rms_1(out)


def _note(length: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    time_s = np.arange(length) / sample_rate
    pitch_hz = np.full(length, log_uniform(rng, 20, 2_000))
    manner = rng.integers(4)
    if manner == 1:  # a slide
        pitch_hz *= 2.0 ** (rng.uniform(-8, 8) * time_s)
    elif manner == 2:  # an arpeggio
        pitch_hz *= rng.choice([1.0, 1.25, 1.5, 2.0], 16)[(time_s * rng.uniform(8, 50)).astype(int) % 16]
    elif manner == 3:  # vibrato
        pitch_hz *= 2.0 ** (rng.uniform(0.01, 0.2) * np.sin(2 * np.pi * rng.uniform(3, 12) * time_s))
    turns = np.cumsum(pitch_hz.clip(10.0, 0.3 * sample_rate)) / sample_rate
    place = turns % 1.0
    shape = rng.integers(5 if length < 0.6 * sample_rate else 4)  # a sine of a whole second is a hum
    if shape == 0:
        wave = np.where(place < rng.choice([0.125, 0.25, 0.5]), 1.0, -1.0)
    elif shape == 1:
        wave = 2.0 * place - 1.0
    elif shape == 2:
        wave = 4.0 * np.abs(place - 0.5) - 1.0
    elif shape == 3:
        wave = rng.uniform(-1, 1, 4096)[(8.0 * turns).astype(int) % 4096]
    else:
        wave = np.sin(2 * np.pi * turns)
    attack = 1.0 if rng.random() < 0.5 else rng.uniform(0.001, 0.03) * sample_rate
    release = rng.uniform(0.003, 0.03) * sample_rate  # cut off at full level would be a defect
    fade = np.minimum(1.0, np.arange(1, length + 1) / attack) * np.minimum(1.0, np.arange(length, 0, -1) / release)
    return wave * fade * np.exp(-time_s * rng.choice([0.0, rng.uniform(1, 20)]))


def drums(samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Hits of drums and drum machines: attacks as short as a click's, which ring for milliseconds where a click is over."""
    out = np.zeros(samples)
    at = int(rng.uniform(0.0, 0.2) * samples)
    while at < samples:
        hit = rng.lognormal(0, 0.5) * _hit(sample_rate, rng)[: samples - at]
        out[at : at + len(hit)] += hit
        at += round(rng.uniform(0.06, 0.5) * sample_rate)
    return _at_rms_1(out)


def _hit(sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    kind = rng.integers(4)
    decay_s = rng.uniform(*((0.05, 0.3), (0.03, 0.15), (0.005, 0.06), (0.002, 0.02))[kind])
    time_s = np.arange(round(6.0 * decay_s * sample_rate)) / sample_rate
    noise = rng.standard_normal(len(time_s))
    if kind == 0:  # a bass drum falls in pitch from its beater's knock
        fall_s = rng.uniform(0.001, 0.01)
        knock_hz, pitch_hz = rng.uniform(300, 8_000), rng.uniform(40, 90)
        wave = np.sin(2 * np.pi * (pitch_hz * time_s + (knock_hz - pitch_hz) * fall_s * (1 - np.exp(-time_s / fall_s))))
    elif kind == 1:  # a snare
        wave = noise + rng.uniform(0.5, 3.0) * np.sin(2 * np.pi * rng.uniform(150, 300) * time_s)
    elif kind == 2:  # a hi-hat
        wave = np.diff(noise, n=int(rng.integers(1, 4)), prepend=np.zeros(3))[: len(time_s)]
    else:  # wood, rim shots, tongues
        pitches_hz = log_uniform(rng, 300, 6_000, (int(rng.integers(1, 4)), 1))
        wave = np.sin(2 * np.pi * pitches_hz * time_s + rng.uniform(0, 6.3, pitches_hz.shape)).sum(axis=0)
    attack = rng.uniform(1.0, 0.001 * sample_rate)
    return wave * np.exp(-time_s / decay_s) * np.minimum(1.0, np.arange(1, len(time_s) + 1) / attack)


def cymbals(samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Crash and ride cymbals, gongs: as dense as noise, but each hit dies away, highs first, and has a pitch here and there."""
    top_hz = 0.48 * sample_rate
    low_hz, bright_hz = log_uniform(rng, 200, 3_000), min(log_uniform(rng, 3_000, 12_000), 0.9 * top_hz)
    decay_s = log_uniform(rng, 0.3, 4.0)
    bands: list[tuple[list[tuple[float, float]], float]] = [  # (noise, how long it rings against the others)
        ([(20, -90), (low_hz, -12), (low_hz * 2, 0), (low_hz * 4, -25), (top_hz, -70)], 1.0),
        ([(20, -90), (bright_hz / 4, -25), (bright_hz, 0), (top_hz, rng.uniform(-40, -10))], rng.uniform(0.2, 1.0)),
    ]
    period = round(log_uniform(rng, 0.15, 6.0) * sample_rate)
    age_s = ((np.arange(samples) + rng.integers(period)) % period) / sample_rate  # since the last hit
    attack = np.minimum(1.0, age_s / rng.uniform(0.0005, 0.01))
    out = np.zeros(samples)
    for levels, share in bands:
        size = rng.lognormal(0, 0.5) * np.exp(-age_s / (share * decay_s))
        out += size * shaped_noise(samples, sample_rate, rng, levels)
    pitches_hz = log_uniform(rng, low_hz, min(8_000, top_hz), int(rng.integers(0, 40)))
    for pitch_hz in pitches_hz:
        ring = np.sin(2 * np.pi * pitch_hz / sample_rate * np.arange(samples) + rng.uniform(0, 6.3))
        out += rng.exponential(0.1) * ring * np.exp(-age_s / (decay_s * rng.uniform(0.3, 1.5)))
    return _at_rms_1(attack * out)


def bells(samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Bells, chimes, glasses, vibraphones: struck, with partials that are no overtones, and ringing long."""
    time_s = np.arange(samples) / sample_rate
    out = np.zeros(samples)
    for _ in range(int(rng.integers(1, 4))):
        pitch_hz = log_uniform(rng, 80, 2_500)
        ratios = np.array([1.0, *rng.uniform(0.45, 6.5, rng.integers(1, 8))])
        ratios = ratios[ratios * pitch_hz < 0.45 * sample_rate]
        struck_s = rng.uniform(-2.0, 0.7) * samples / sample_rate
        age_s = np.maximum(time_s - struck_s, 0.0)
        attack = np.minimum(1.0, age_s / log_uniform(rng, 0.0003, 0.01))
        for ratio in ratios:
            beats = 2 * np.pi * rng.uniform(0.3, 8.0) * time_s + rng.uniform(0, 6.3)
            beat = 1.0 + rng.uniform(0.0, 0.5) * np.sin(beats)
            decay_s = log_uniform(rng, 0.2, 3.0) / ratio**0.5
            ring = np.sin(2 * np.pi * ratio * pitch_hz * time_s + rng.uniform(0, 6.3))
            out += rng.lognormal(-0.7 * (ratio > 1.0), 0.5) * attack * beat * np.exp(-age_s / decay_s) * ring
    # With a little noise: in a short excerpt none may have been struck yet.
    return _at_rms_1(out + 1e-6 * rng.standard_normal(samples))


def signalling(samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Tones of telephones, alarms and machines: two at a time that are no overtones of each other, or pulses of one.

    A single one that goes on would be a hum.
    """
    is_pulsed = rng.random() < 0.6
    tones = int(rng.integers(1, 3)) if is_pulsed else 2
    period = round(log_uniform(rng, 0.06, 0.4) * sample_rate) if is_pulsed else samples
    length = round(rng.uniform(0.3, 0.7) * period) if is_pulsed else samples
    ramp = round(log_uniform(rng, 0.001, 0.02) * sample_rate)
    fade = np.minimum(1.0, np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1)) / ramp) if is_pulsed else 1.0
    changes = rng.random() < 0.5  # from pulse to pulse, as when a number is dialled
    sizes = 10.0 ** (rng.uniform(-6.0, 0.0, (tones, 1)) / 20.0)
    pitches_hz = _unrelated(sample_rate, rng)[:tones, None]
    out = np.zeros(samples + period)
    for at in range(-int(rng.uniform(0.0, 1.0) * length) if is_pulsed else 0, samples, period):
        turns = pitches_hz / sample_rate * np.arange(length) + rng.random((tones, 1))
        pulse = fade * (sizes * np.sin(2 * np.pi * turns)).sum(axis=0)
        out[max(at, 0) : at + length] += pulse[max(-at, 0) :]
        if changes:
            pitches_hz = _unrelated(sample_rate, rng)[:tones, None]
    return _at_rms_1(out[:samples])


def _unrelated(sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Two frequencies (Hz), neither an overtone of the other."""
    while True:
        pair_hz = log_uniform(rng, 150.0, min(2_500.0, 0.4 * sample_rate), 2)
        ratio = pair_hz.max() / pair_hz.min()
        if abs(ratio - round(ratio)) > 0.06:
            return pair_hz


def driven(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A waveform (samples,) through an amplifier with a soft knee, as guitars are played, and a loudspeaker's band."""
    peak = max(float(np.abs(waveform).max(initial=0.0)), 1e-6)
    drive = log_uniform(rng, 1.5, 20.0)
    bias = rng.uniform(0.0, 0.3)  # valves bend one side more
    heard = np.tanh(drive * waveform / peak + bias) - np.tanh(bias)
    heard = signal.sosfilt(signal.butter(int(rng.integers(1, 3)), rng.uniform(0.1, 0.35), output="sos"), heard)
    return (heard * (peak / max(float(np.abs(heard).max()), 1e-6))).astype(np.float32)


SOUNDS: dict[str, Callable[[int, int, np.random.Generator], np.ndarray]] = {
    "rain": rain,
    "wind": wind,
    "ambience": ambience,
    "record_surface": record_surface,
    "held_notes": held_notes,
    "synthesiser": synthesiser,
    "drums": drums,
    "cymbals": cymbals,
    "bells": bells,
    "signalling": signalling,
}


def _swell(samples: int, sample_rate: int, rng: np.random.Generator, depth: float) -> np.ndarray:
    """A smooth gain (samples,) that changes over some tenths of a second, by up to `depth` x 12 dB both ways."""
    count = max(4, round(samples / sample_rate * rng.uniform(1.0, 6.0)) + 1)
    decibels = rng.uniform(-12, 12, count) * depth
    fine = np.interp(np.linspace(0, count - 1, 200), np.arange(count), decibels)
    fine = np.convolve(np.pad(fine, 8, mode="edge"), np.hanning(17) / np.hanning(17).sum(), mode="valid")
    return 10.0 ** (np.interp(np.linspace(0, 199, samples), np.arange(200), fine) / 20.0)


def _at_rms_1(waveform: np.ndarray) -> np.ndarray:
    return (waveform / max(float(np.sqrt(np.mean(np.square(waveform)))), 1e-9)).astype(np.float32)
