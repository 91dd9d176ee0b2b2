"""Draws spectrograms for people to judge detections by."""

import io
import math

import numpy as np

from udfs.stretches import RATE_HZ

PICTURE_WIDTH_PX, PICTURE_HEIGHT_PX = 960, 240
AXIS_LEFT, AXIS_RIGHT = 0.06, 0.995  # where the time axis begins and ends, share of the picture's width
LOWEST_HZ = 20.0
QUIETEST_DB, LOUDEST_DB = -105.0, -10.0  # range of the colours; 0 dB is a sine at full scale
_FFT = 4096
_FFT_HOP = 1024
_FRAMES_AT_ONCE = 512  # ten seconds: the transform of a whole stretch would take hundreds of MB
_PICTURE_QUALITY = 70


def spectrogram(
    samples: np.ndarray, start_s: float, shown: tuple[float, float], marked: tuple[float, float], highest_hz: float
) -> bytes:
    """Draw a spectrogram as WebP of `PICTURE_WIDTH_PX` x `PICTURE_HEIGHT_PX`.

    Time runs from `AXIS_LEFT` to `AXIS_RIGHT` of the width without labels, so that a page can set other curves below
    it; frequency is logarithmic. Each pixel shows the loudest of what falls into it, so that a click is seen in a
    minute of film. The margins are transparent.

    Args:
        samples: float32 (channels, time) at `udfs.stretches.RATE_HZ`; the loudest channel is shown.
        start_s: time of the first sample.
        shown: begin and end of the time axis, seconds.
        marked: begin and end of the stretch to mark, seconds.
        highest_hz: upper end of the frequency axis: half the title's sample rate.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    highest_hz = min(max(highest_hz, 20 * LOWEST_HZ), RATE_HZ / 2)
    columns = round(PICTURE_WIDTH_PX * (AXIS_RIGHT - AXIS_LEFT))
    pixels = _levels_db(samples, start_s, shown, highest_hz, PICTURE_HEIGHT_PX - 16, columns)
    figure = Figure(figsize=(PICTURE_WIDTH_PX / 100, PICTURE_HEIGHT_PX / 100), dpi=100)
    FigureCanvasAgg(figure)
    figure.patch.set_alpha(0.0)
    axes = figure.add_axes((AXIS_LEFT, 8 / PICTURE_HEIGHT_PX, AXIS_RIGHT - AXIS_LEFT, 1 - 16 / PICTURE_HEIGHT_PX))
    axes.imshow(
        pixels, aspect="auto", origin="lower", extent=(*shown, 0.0, 1.0), cmap="magma", vmin=QUIETEST_DB, vmax=LOUDEST_DB,
        interpolation="nearest",
    )  # fmt: skip
    octaves = math.log2(highest_hz / LOWEST_HZ)
    ticks_hz = [hz for hz in (50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000) if hz < 0.97 * highest_hz]
    axes.set_yticks(
        [math.log2(hz / LOWEST_HZ) / octaves for hz in ticks_hz],
        [f"{hz} Hz" if hz < 1000 else f"{hz // 1000} kHz" for hz in ticks_hz],
        color="#808080",  # read on white and on black
        fontsize=7,
    )
    axes.tick_params(axis="y", color="#808080", length=3)
    axes.set_xticks([])
    for edge_s in marked:
        if shown[0] < edge_s < shown[1]:
            axes.axvline(edge_s, color="white", linestyle=(0, (4, 3)), linewidth=1.2)
    axes.axvspan(max(marked[0], shown[0]), min(marked[1], shown[1]), ymin=0.975, facecolor="#4fc3f7", edgecolor="none")
    axes.set_xlim(shown)
    axes.set_ylim(0.0, 1.0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    out = io.BytesIO()
    figure.savefig(out, format="webp", pil_kwargs={"quality": _PICTURE_QUALITY, "method": 4})
    return out.getvalue()


def _levels_db(
    samples: np.ndarray, start_s: float, shown: tuple[float, float], highest_hz: float, rows: int, columns: int
) -> np.ndarray:
    """Pixels of a spectrogram, dB below a full-scale sine: (rows, columns), the lowest frequency first."""
    import librosa

    # Edges of the rows in bins of the transform. The row of a bass octave lies between two bins: interpolated.
    bins = LOWEST_HZ * (highest_hz / LOWEST_HZ) ** (np.arange(rows + 1) / rows) * _FFT / RATE_HZ
    begins, ends = np.ceil(bins[:-1]).astype(int), np.ceil(bins[1:]).astype(int)
    is_wide = ends > begins
    middles = (bins[:-1] + bins[1:]) / 2
    below = np.floor(middles).astype(int)
    share = (middles - below)[:, None]

    pixels = np.full((rows, columns), QUIETEST_DB, dtype=np.float32)
    padded = np.pad(samples, ((0, 0), (_FFT // 2, _FFT // 2)))
    frames = 1 + samples.shape[1] // _FFT_HOP
    for first in range(0, frames, _FRAMES_AT_ONCE):
        count = min(_FRAMES_AT_ONCE, frames - first)
        piece = padded[:, first * _FFT_HOP : (first + count - 1) * _FFT_HOP + _FFT]
        spectra = np.abs(librosa.stft(piece, n_fft=_FFT, hop_length=_FFT_HOP, center=False)).max(axis=0)
        levels = 20 * np.log10(np.maximum(spectra * (4 / _FFT), 1e-9))  # (bins, frames); Hann's window sums to half
        by_row = levels[below] * (1 - share) + levels[np.minimum(below + 1, _FFT // 2)] * share
        by_row[is_wide] = np.maximum.reduceat(levels[: ends[is_wide][-1]], begins[is_wide], axis=0)
        place = _columns_of(start_s + (first + np.arange(count)) * (_FFT_HOP / RATE_HZ), shown, columns)
        places, begin_of = np.unique(place, return_index=True)
        by_column = np.maximum.reduceat(by_row, begin_of, axis=1)
        pixels[:, places] = np.maximum(pixels[:, places], by_column)
    return _without_holes(pixels, frames, start_s, shown)


def _columns_of(at_s: np.ndarray, shown: tuple[float, float], columns: int) -> np.ndarray:
    found = np.floor((at_s - shown[0]) / (shown[1] - shown[0]) * columns + 1e-6).astype(int)
    return np.clip(found, 0, columns - 1)


def _without_holes(pixels: np.ndarray, frames: int, start_s: float, shown: tuple[float, float]) -> np.ndarray:
    """Repeat columns where there are more pixels than frames (stretches below twenty seconds)."""
    columns = pixels.shape[1]
    step_s, frame_s = (shown[1] - shown[0]) / columns, _FFT_HOP / RATE_HZ
    if step_s >= frame_s:
        return pixels
    at_s = shown[0] + (np.arange(columns) + 0.5) * step_s - start_s
    frame = np.clip(np.floor(at_s / frame_s), 0, frames - 1)
    filled = pixels[:, _columns_of(start_s + frame * frame_s, shown, columns)]
    filled[:, (at_s < 0) | (at_s > frames * frame_s)] = QUIETEST_DB
    return filled
