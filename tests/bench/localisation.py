"""`make bench-localisation`: the detectors of clicks and damaged MP3 frames by their 128 outputs a segment, as in the paper.

On the recordings behind `make evaluate-clicks`, which no training heard: segments of 16,384 samples that do not overlap, one
in ten with a click (Hook-Net, section 3.1), and MP3 streams with one frame in twenty damaged (section 3.2). Every detector
hears the same segments: the shipped networks, FFmpeg's adeclick, and Essentia's ClickDetector where it is installed (extra
`bench`). Each has the threshold that gives its largest F1 on the paper's clicks; intervals are from a bootstrap over
recordings. BENCH_SEGMENTS segments with a click for each kind of click, nine times as many without.
"""

import csv
import importlib.util
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import torch

from models import checkpoint, metrics
from models.clicks import post_processed
from models.codecs import recode
from models.defects import click_offset, underrun
from models.defects.mp3_glitch import AUDIBLE_DB, FRAME, ROUNDING, damaged, distance_db
from models.defects.underrun import stands_out
from models.draws import log_uniform
from models.resampling import resampled
from models.segments import stretch
from models.serving import Classifier
from models.tasks import THRESHOLDS, best_f1
from tests.bench.baselines import CODE
from tests.bench.throughput import machine
from udfs.decoder import Decoder, encode_path
from udfs.recordings import write_recording

PROJECT = Path(__file__).resolve().parent.parent.parent
RATE_HZ, SAMPLES = 44_100, 16_384
CLEAN_PER_CLICK = 9
SEGMENTS = int(os.environ.get("BENCH_SEGMENTS", "400"))
SECONDS = 60.0  # of each recording
STREAM_SEGMENTS = 20  # of each recording's MP3 stream
# Rates of titles, from which a scan resamples; the paper's are of 44.1 kHz.
OTHER_RATES_HZ = {f"title of {hz / 1000:g} kHz": hz for hz in (8_000, 16_000, 22_050, 48_000, 96_000)}
STREAM_RATES_HZ = (48_000, 32_000)  # beside 44.1 kHz
EDGE = 8  # outputs at either end of a segment
HITS, FALSE, MISSED = range(3)

Score = Callable[[np.ndarray], np.ndarray]


@dataclass
class Trial:
    """Segments of one kind, what is in them, and what detectors said.

    Args:
        waveforms: float32 (segments, samples).
        targets: bool (segments, frames).
        recording: int (segments,): number of the recording.
        kinds: content of each segment.
        facts: of segments with a click: facet to value.
        changes_db: of MP3 streams, by how much each frame's power spectrum is changed, (segments, frames).
        scores: by detector, (segments, frames).
    """

    waveforms: list[np.ndarray] = field(default_factory=list)
    targets: list[np.ndarray] = field(default_factory=list)
    recording: list[int] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    facts: list[dict[str, str]] = field(default_factory=list)
    changes_db: list[np.ndarray] = field(default_factory=list)
    scores: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, waveform: np.ndarray, target: np.ndarray, recording: int, kind: str, facts: dict[str, str]) -> None:
        """Take a segment in."""
        self.waveforms.append(np.ascontiguousarray(waveform, dtype=np.float32))
        self.targets.append(target)
        self.recording.append(recording)
        self.kinds.append(kind)
        self.facts.append(facts)

    def counts(self, detector: str, threshold: float, rows: np.ndarray) -> np.ndarray:
        """Right, false and missed frames (recordings, 3) of the segments `rows`."""
        targets, said = np.stack(self.targets)[rows], self.scores[detector][rows] >= threshold
        found = np.zeros((max(self.recording) + 1, 3))
        for what, frames in ((HITS, said & targets), (FALSE, said & ~targets), (MISSED, ~said & targets)):
            np.add.at(found[:, what], np.array(self.recording)[rows], frames.sum(axis=1))
        return found


def recordings() -> tuple[list[np.ndarray], list[str]]:
    """The clean test recordings, int16 (channels, time), and their kinds; decoded once."""
    folder = PROJECT / "var" / "bench-localisation"
    folder.mkdir(parents=True, exist_ok=True)
    decoder, found, kinds = Decoder(), [], []
    with open(PROJECT / "var" / "evaluation-clicks" / "clean.csv", newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            target = folder / f"{number:03d}.npy"
            path = unquote(urlsplit(row["uri"]).path)
            if not target.exists() and write_recording(decoder, encode_path(path), target, RATE_HZ, SECONDS):
                continue
            found.append(np.load(target, mmap_mode="r"))
            kinds.append(row["kind"])
    decoder.close()
    return found, kinds


def click_trial(sounds: list[np.ndarray], kinds: list[str], what: str, seed: int) -> Trial:
    """Segments of which one in ten has a click of one kind; see `main`."""
    trial, rng, margin = Trial(), np.random.default_rng(seed), 4_608
    rate_hz = OTHER_RATES_HZ.get(what, RATE_HZ)
    clicks = 0
    while clicks < SEGMENTS:
        for place in range(1 + CLEAN_PER_CLICK):
            while True:
                number = int(rng.integers(len(sounds)))
                channel = np.asarray(sounds[number][int(rng.integers(sounds[number].shape[0]))])
                start = int(rng.integers(0, max(len(channel) - SAMPLES, 0) + 1))
                section = resampled(stretch(channel, start - margin, start + SAMPLES + margin), RATE_HZ, rate_hz)
                target, facts = np.zeros(SAMPLES // FRAME, dtype=bool), {}
                if place == 0:
                    section, target, facts = planted(section, rate_hz, what, margin, rng)
                    if not target.any():
                        continue  # an under-run that cannot be heard, in silence for one
                break
            section = resampled(section, rate_hz, RATE_HZ)
            if what == "after effects":
                section = post_processed(section, RATE_HZ, np.random.default_rng(int(rng.integers(1 << 40))))
            elif what == "after coding":
                codec = str(rng.choice(["mp3", "aac"]))
                section = np.clip(recode(section, RATE_HZ, codec, 64_000), -1.0, 1.0)
            trial.add(section[margin : margin + SAMPLES], target, number, kinds[number], facts)
        clicks += 1
    return trial


def planted(
    section: np.ndarray, rate_hz: int, what: str, margin: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """A click somewhere in a section's middle, the frames (128,) in which it is heard, and what it is.

    The section has the title's rate, `margin` and the frames count samples of `RATE_HZ`.
    """
    target = np.zeros(SAMPLES // FRAME, dtype=bool)
    scale = rate_hz / RATE_HZ
    start, stop = round(margin * scale), round((margin + SAMPLES) * scale)

    def frame_of(at: int) -> int:
        return min(int(at / scale - margin) // FRAME, len(target) - 1)

    if what == "under-runs":
        length = int(log_uniform(rng, *underrun.LENGTHS))
        at = int(rng.integers(start, stop - length))
        manner = str(rng.choice(underrun.MANNERS))
        made, mask = underrun.apply(section[None], rate_hz, rng, positions=[at], lengths=[length], manners=[manner])
        changed = np.flatnonzero(mask[0])
        ends = (int(changed[0]), int(changed[-1]) + 1) if len(changed) else ()
        for end in ends:
            if stands_out(section, made[0], end):  # what bends the waveform less than it is bent nearby, nobody hears
                target[frame_of(end)] = True
        return made[0], target, {"under-run": manner}
    length = int(rng.choice(click_offset.LENGTHS))
    low, high = (0.03, 0.3) if what == "quiet" else click_offset.OFFSETS
    sizes = log_uniform(rng, low, high, length) if what == "quiet" else rng.uniform(low, high, length)
    at = int(rng.integers(start, stop - length))
    made, _ = click_offset.apply(
        section[None], rate_hz, rng, positions=[at], offsets=[(sizes * rng.choice([-1, 1], length)).tolist()]
    )
    frame = frame_of(at)
    target[frame] = True
    size = float(sizes.max())
    step = next(edge for edge in (0.1, 0.3, 0.5, 0.75, 1.0) if size <= edge)
    position = "first or last 23 ms" if min(frame, len(target) - 1 - frame) < EDGE else "middle"
    return made[0], target, {"size up to": f"{step:g}", "samples": str(length), "place": position}


def glitch_trial(sounds: list[np.ndarray], kinds: list[str], least: float = ROUNDING, rate_hz: int = RATE_HZ) -> Trial:
    """Consecutive segments of damaged MP3 streams, one stream of that rate a recording; `least`: see `distance_db`."""
    trial = Trial()
    for number, (sound, kind) in enumerate(zip(sounds, kinds, strict=True)):
        count = min(STREAM_SEGMENTS, sound.shape[1] // SAMPLES)
        waveform = stretch(np.asarray(sound[0]), 0, count * SAMPLES)
        if not waveform.any():
            continue
        pair = damaged(resampled(waveform, RATE_HZ, rate_hz), rate_hz, np.random.default_rng(number))
        clean, broken = (resampled(decoded, rate_hz, RATE_HZ)[: count * SAMPLES] for decoded in pair)
        change_db = distance_db(clean, broken, least).reshape(count, -1)
        for place in range(count):
            part = slice(place * SAMPLES, (place + 1) * SAMPLES)
            trial.add(broken[part], change_db[place] > AUDIBLE_DB, number, kind, {})
            trial.changes_db.append(change_db[place])
    return trial


def detectors(names: list[str]) -> dict[str, Score]:
    """Waveforms (b, samples) to scores (b, frames): of these, what is shipped (networks) or installed (others)."""
    found: dict[str, Score] = {}
    for name in names:
        weights = checkpoint.WEIGHTS / f"{name}.safetensors"
        if name in CODE and (name != "sigclick" or importlib.util.find_spec("essentia") is not None):
            found[name] = baseline(CODE[name])
        elif weights.exists():
            found[name] = network(weights)
    return found


def baseline(code: Path) -> Score:
    """A model from code."""
    specification = importlib.util.spec_from_file_location(code.stem, code)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return lambda waveforms: module.MODEL.predict(None, waveforms)[..., 0]


def network(weights: Path) -> Score:
    """A shipped network, as the scan serves it."""
    served = Classifier(checkpoint.load(weights), torch.device("cpu"))
    return lambda waveforms: np.concatenate(
        [served(batch)[..., 0].numpy() for batch in torch.from_numpy(waveforms).split(64)]
    )


def figures(counts: np.ndarray) -> dict[str, metrics.Estimate]:
    """F1, precision and recall of counts (recordings, 3), with intervals."""
    drawn = metrics.bootstrap(counts, np.random.default_rng(0))
    whole = counts.sum(axis=0)

    def estimate(of: Callable[[np.ndarray], np.ndarray]) -> metrics.Estimate:
        return metrics.estimate(float(of(whole)), of(drawn))

    return {
        "F1": estimate(lambda c: metrics.ratio(2 * c[..., HITS], 2 * c[..., HITS] + c[..., FALSE] + c[..., MISSED])),
        "precision": estimate(lambda c: metrics.ratio(c[..., HITS], c[..., HITS] + c[..., FALSE])),
        "recall": estimate(lambda c: metrics.ratio(c[..., HITS], c[..., HITS] + c[..., MISSED])),
    }


def best_threshold(trial: Trial, detector: str) -> float:
    """The threshold with the largest F1 over frames."""
    bins = (trial.scores[detector] * THRESHOLDS).astype(int).clip(0, THRESHOLDS)
    truth = np.stack(trial.targets)
    right, wrong = (np.bincount(bins[truth == value], minlength=THRESHOLDS + 1) for value in (True, False))
    return float(best_f1(right, wrong)["threshold"])


def line(cells: list[object]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def shown(estimate: metrics.Estimate) -> str:
    """A figure with its interval, per cent."""
    if np.isnan(estimate.value):
        return ""
    return f"{100 * estimate.value:.2f} ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"


def main() -> None:
    """Draw, score, print, keep."""
    sounds, kinds = recordings()
    rows = ("as in the paper", "after effects", "after coding", "quiet", "under-runs", *OTHER_RATES_HZ)
    trials = {row: click_trial(sounds, kinds, row, seed) for seed, row in enumerate(rows)}
    glitches = glitch_trial(sounds, kinds)
    found = detectors(["clicks", "sigclick", "adeclick"])
    result: dict[str, object] = {"machine": machine(), "segments_per_cpu_s": {}}
    lines = [
        line(["detector", "segments", "content", "F1, %", "precision, %", "recall, %", "frames with a click"]),
        "|---" * 7 + "|",
    ]
    speed: dict[str, float] = {}
    thresholds: dict[str, float] = {}

    def report(detector: str, row: str, trial: Trial) -> None:
        for kind in ("all", *sorted(set(trial.kinds))) if row in (rows[0], "MP3 streams") else ("all",):
            chosen = np.array([kind in ("all", own) for own in trial.kinds])
            said = figures(trial.counts(detector, thresholds[detector], chosen))
            count = int(np.stack(trial.targets)[chosen].sum())
            lines.append(line([detector, row, kind, *map(shown, said.values()), count]))
            result[f"{detector}, {row}, {kind}"] = {name: [e.value, e.low, e.high] for name, e in said.items()}
            print(lines[-1], file=sys.stderr, flush=True)

    for detector, score in found.items():
        for row, trial in trials.items():
            started = time.process_time()
            trial.scores[detector] = score(np.stack(trial.waveforms))
            speed[detector] = len(trial.waveforms) / (time.process_time() - started)
            if row == rows[0]:
                thresholds[detector] = best_threshold(trial, detector)
            report(detector, row, trial)
    for detector, score in detectors(["mp3-glitches"]).items():
        glitches.scores[detector] = score(np.stack(glitches.waveforms))
        thresholds[detector] = best_threshold(glitches, detector)
        report(detector, "MP3 streams", glitches)
        said, changes_db = glitches.scores[detector] >= thresholds[detector], np.stack(glitches.changes_db)
        every = glitch_trial(sounds, kinds, 0.0)  # the same streams
        every.scores[detector] = glitches.scores[detector]
        report(detector, "MP3 streams, with changes under 16 bits", every)
        for rate_hz in STREAM_RATES_HZ:
            other = glitch_trial(sounds, kinds, rate_hz=rate_hz)
            other.scores[detector] = score(np.stack(other.waveforms))
            report(detector, f"MP3 streams of {rate_hz / 1000:g} kHz", other)
        lines += ["", line(["change of the power spectrum, dB", "recall, %", "frames"]), "|---" * 3 + "|"]
        for low, high in itertools.pairwise((AUDIBLE_DB, -40.0, -30.0, -20.0, -10.0, np.inf)):
            of_it = (changes_db > low) & (changes_db <= high)
            lines.append(line([f"{low:.0f} to {high:.0f}", f"{100 * said[of_it].mean():.1f}", int(of_it.sum())]))
    lines += ["", line(["recall, %", *found]), "|---" * (1 + len(found)) + "|"]
    for row, trial in trials.items():
        for facet in sorted({name for facts in trial.facts for name in facts}):
            for value in sorted({facts[facet] for facts in trial.facts if facet in facts}):
                rows_of = np.array([facts.get(facet) == value for facts in trial.facts])
                cells = [
                    shown(figures(trial.counts(detector, thresholds[detector], rows_of))["recall"])
                    for detector in found
                ]
                lines.append(line([f"{row}: {facet} {value}", *cells]))
    result |= {"segments_per_cpu_s": speed, "thresholds": thresholds}
    print("\n".join(lines))
    print("segments per CPU second: " + ", ".join(f"{name} {value:.0f}" for name, value in speed.items()))
    (PROJECT / "var" / "bench-localisation.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
