"""Line-up tones: what stands ahead of a programme to set levels by, and is no part of it.

Masters of broadcasters and studios begin with bars and a tone of 1 kHz (EBU R 68, SMPTE RP 155), interrupted to tell
channels apart (EBU Tech 3304), with other pitches in multichannel tracks (BLITS) and on tape, and with a beep two seconds
ahead of the first picture. By its samples such a tone is a hum, and its edges are clicks; that nothing else is to be
heard tells it from a defect.
"""

import numpy as np

from udfs.runs import runs_of

# Those that a detector of hum takes for one. Tones of tape machines below are left out: a hum of the mains has those pitches.
PITCHES_HZ = (315.0, 400.0, 440.0, 660.0, 880.0, 1000.0)
TOLERANCE = 0.005  # of the pitch: 997 Hz stands for 1 kHz in digital sound, and tape machines are 0.3 % off
LEAST_PEAK = 0.01  # -40 dB of full scale; line-up levels are -9 to -20
LEAST_FILL = 0.35  # least power of a tone's frame by its peak's square: 0.5 of a sine, 0.38 with `PURE` beside it
FRAME_S = 0.01
PURE = 0.05  # what is left beside the tone, as a share of its amplitude: noise of tape, a lossy codec
STEADY = 0.8  # the least power of a frame with tone, as a share of the loudest frame's
SILENT = 1e-4  # the most power of a frame without, likewise
LONGEST_EDGE = 3  # frames between tone and silence that are neither: a lossy codec smears its beginning

_BINS = 2_048  # of a padded transform of one frame; with eight times as many a pitch is the same to 6e-5 of it


def tone_hz(waveform: np.ndarray, rate_hz: int) -> float | None:
    """The pitch of the line-up tone that a stretch of one channel consists of, for all of it or between silences.

    Args:
        waveform: float32 (samples,), full scale +-1.
        rate_hz: samples per second.

    Returns:
        Hz; None where anything else is to be heard, or a tone of a pitch or level that none is lined up with.

    >>> time_s = np.arange(48_000) / 48_000
    >>> tone = 0.1 * np.sin(2 * np.pi * 1000 * time_s)
    >>> round(tone_hz(tone, 48_000)), tone_hz(tone + 0.02 * np.sin(2 * np.pi * 230 * time_s), 48_000)
    (1000, None)
    """
    size = round(FRAME_S * rate_hz)
    if len(waveform) < size:
        return None
    frames = waveform[: len(waveform) // size * size].reshape(-1, size)
    power = (frames[:, None] @ frames[..., None]).reshape(-1).astype(np.float64) / size
    loudest = int(power.argmax())
    if not power[loudest] >= LEAST_PEAK**2 / 2:  # nor where it is NaN
        return None
    if power[loudest] < LEAST_FILL * np.abs(frames[loudest]).max() ** 2:  # before the transform, which takes most time
        return None
    pitch_hz = _pitch_hz(frames[loudest].astype(np.float64), rate_hz)
    if not any(abs(pitch_hz / known_hz - 1) <= TOLERANCE for known_hz in PITCHES_HZ):
        return None
    frames = frames.astype(np.float64)  # not before: nearly all waveforms end above
    turns = 2 * np.pi * pitch_hz / rate_hz * np.arange(size)
    wave = np.stack([np.cos(turns), np.sin(turns)])  # (2, size)
    rest = frames - frames @ np.linalg.pinv(wave) @ wave
    is_tone = (np.square(rest).mean(axis=1) <= PURE**2 * power) & (power >= STEADY * power[loudest])
    is_silent = power <= SILENT * power[loudest]
    return pitch_hz if is_tone.any() and _only_edges(is_tone, is_silent) else None


def _pitch_hz(frame: np.ndarray, rate_hz: int) -> float:
    """Where the spectrum of a frame has its peak, by a parabola through the three largest bins in decibels."""
    spectrum = np.abs(np.fft.rfft(frame * np.hanning(len(frame)), _BINS))
    peak = min(max(int(spectrum.argmax()), 1), len(spectrum) - 2)
    low, top, high = np.log(spectrum[peak - 1 : peak + 2] + 1e-12)
    bend = low - 2 * top + high  # 0 where the spectrum is flat, as that of a single sample
    return float((peak + (0.5 * (low - high) / bend if bend else 0.0)) * rate_hz / _BINS)


def _only_edges(is_tone: np.ndarray, is_silent: np.ndarray) -> bool:
    """Whether frames that are neither tone nor silence are few and lie between the two, or where the stretch ends."""
    for start, stop in runs_of(~(is_tone | is_silent)):
        is_end = start == 0 or stop == len(is_tone)
        if stop - start > LONGEST_EDGE or not (is_end or is_tone[start - 1] != is_tone[stop]):
            return False
    return True
