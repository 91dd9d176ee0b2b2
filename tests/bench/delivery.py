"""`make bench-delivery`: does a detector hear defects of titles at other sample rates, and of titles turned down since?

Defects arise at the rate of the title and are heard at the model's, after resampling: clipped tops are not flat then, and a
click of a telephone's rate has no highs. A master is turned down for delivery with what is wrong with it. Segments of
recordings that training never heard, the same with every condition; hum and hiss between -40 and -14 dB of full scale.

BENCH_SEGMENTS (120) of each; BENCH_WEIGHTS: files beside the shipped ones, comma-separated.
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch

from models import checkpoint
from models.cnn6 import LABELS
from models.defects import LABEL_OF, OF_TASK, SIMULATORS
from models.resampling import resampled
from models.serving import Classifier
from tests.bench.tuning import clean_recordings, excerpt

HOME = Path(__file__).resolve().parent.parent.parent / "var" / "bench-delivery"
RATE_HZ = 48_000
SEGMENTS = int(os.environ.get("BENCH_SEGMENTS", "120"))
MARGIN_S = 0.25
RMS_DB = -23.0
SEED = 20261127
CONDITIONS = [
    *((rate_hz, 0) for rate_hz in (8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000)),
    *((44_100, down_db) for down_db in (6, 12, 20)),
]


def sections() -> list[np.ndarray]:
    """A second and a half each of the test's recordings, float32 (samples,), as loud as programmes are."""
    paths = [path for of_kind in clean_recordings(HOME).values() for path in of_kind]
    rng, found = np.random.default_rng(SEED), []
    length = round((1.0 + 2 * MARGIN_S) * RATE_HZ)
    while len(found) < SEGMENTS:
        waveform = excerpt([paths[int(rng.integers(len(paths)))]], 0.0, 30.0)[0]
        start = int(rng.integers(0, len(waveform) - length + 1))
        section = waveform[start : start + length]
        rms, peak = np.sqrt(np.mean(np.square(section))), np.abs(section).max()
        if peak > 0.01:
            found.append(section * np.float32(min(10.0 ** (RMS_DB / 20.0) / rms, 0.8 / peak)))
    return found


def planted(
    section: np.ndarray, defect: str | None, rate_hz: int, down_db: int, rng: np.random.Generator
) -> np.ndarray | None:
    """The second in the midst of a section whose title has a rate and was turned down, with a defect; None without room."""
    title = resampled(section, RATE_HZ, rate_hz)
    own = slice(round(MARGIN_S * rate_hz), round((1.0 + MARGIN_S) * rate_hz))
    if defect is not None:
        simulator = SIMULATORS[defect]
        drawn = simulator.draw(title[None, own], rate_hz, rng)
        if drawn is None:
            return None
        if "amplitude" in drawn:
            drawn["amplitude"] = float(10.0 ** (rng.uniform(-40.0, -14.0) / 20.0))
        made, _ = simulator.apply(title[None, own], rate_hz, rng, **drawn)
        title = np.concatenate([title[: own.start], made[0], title[own.stop :]])
    stored = np.round(np.clip(title, -1.0, 1.0) * 10.0 ** (-down_db / 20.0) * 32767.0) / 32768.0
    begin = round(MARGIN_S * RATE_HZ)
    return resampled(stored.astype(np.float32), rate_hz, RATE_HZ)[begin : begin + RATE_HZ]


def recalls(served: Classifier, sounds: list[np.ndarray], rate_hz: int, down_db: int) -> list[float]:
    """Of each label, the share of its segments that are given it."""
    found: dict[str, list[bool]] = {label: [] for label in LABELS}
    for defect in (None, *OF_TASK["artifacts"]):
        label = LABELS[0] if defect is None else LABEL_OF[defect]
        made = [
            segment
            for number, section in enumerate(sounds)
            if (segment := planted(section, defect, rate_hz, down_db, np.random.default_rng([SEED, number])))
            is not None
        ]
        said = served(torch.from_numpy(np.stack(made))).argmax(dim=1)
        found[label] += (said == LABELS.index(label)).tolist()
    return [float(np.mean(hits)) for hits in found.values()]


def main() -> int:
    """Plant, score, print."""
    sounds = sections()
    others = [Path(name) for name in os.environ.get("BENCH_WEIGHTS", "").split(",") if name]
    print("| weights | rate of the title, Hz | turned down by, dB | mean |" + " | ".join(LABELS) + " |")
    print("|---" * (4 + len(LABELS)) + "|")
    for weights in (checkpoint.SHIPPED, *others):
        served = Classifier(checkpoint.load(weights), torch.device("cpu"))
        for rate_hz, down_db in CONDITIONS:
            found = recalls(served, sounds, rate_hz, down_db)
            cells = [
                weights.stem,
                rate_hz,
                down_db,
                *(f"{recall:.2f}" for recall in (np.mean(found), *found)),
            ]
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
