"""Simulators of the defects that detectors are trained on (one module a defect).

Each module has the same two functions:

    draw(waveform, sample_rate, rng) -> parameters or None
    apply(waveform, sample_rate, rng, **parameters) -> (waveform, mask)

``draw`` picks the paper's random parameters for this waveform (None where the waveform leaves no
room for the defect); ``apply`` is deterministic given its arguments. Waveforms are float32
``(channels, time)`` at full scale +-1; ``mask`` is bool ``(channels, time)`` and marks the samples
that changed. Sources: of the artifacts Higham et al., "A No-Reference model for Detecting Audio Artifacts using
Pretrained Audio Neural Networks", section 4, which gives amplitudes in int16 units; of clicks and MP3 glitches
Hook-Net's paper.
"""

from typing import Any

import numpy as np

from models.defects import click_additive, click_offset, click_reductive, distortion, hiss, hum, mp3_glitch, underrun

INT16_FULL_SCALE = 32768

# Order matters: it is the order in which `models.intervals` draws versions of a title.
SIMULATORS = {
    "hum": hum,
    "hiss": hiss,
    "distortion": distortion,
    "click_additive": click_additive,
    "click_reductive": click_reductive,
    "click_offset": click_offset,
    "underrun": underrun,
    "mp3_glitch": mp3_glitch,
}

# What the detectors of each task (`models.tasks.TASKS`) learn to hear. One more line is one more task.
OF_TASK = {
    "artifacts": ("hum", "hiss", "distortion", "click_additive", "click_reductive"),
    "clicks": ("click_offset", "underrun"),
    "mp3_glitches": ("mp3_glitch",),
}

# The label under which a detector reports each simulated defect.
LABEL_OF = {
    "hum": "hum",
    "hiss": "hiss",
    "distortion": "distortion",
    "click_additive": "click",
    "click_reductive": "click",
    "click_offset": "click",
    "underrun": "click",
    "mp3_glitch": "mp3_glitch",
}

# Over within a part of a segment: planted in each defective one, where others are planted around it.
BRIEF = frozenset({"click_additive", "click_reductive"})

# Take samples away, and so act on all channels of a title or on none.
SHORTENING = frozenset({"click_reductive"})

# What `severity_of` measures.
SEVERITY = {
    "hum": "signal to defect, dB",
    "hiss": "signal to defect, dB",
    "distortion": "clip level, share of the peak",
    "click_additive": "largest added sample, share of full scale",
    "click_reductive": "largest jump, share of full scale",
    "click_offset": "largest added sample, share of full scale",
    "underrun": "largest jump, share of full scale",
    "mp3_glitch": "change to signal where it is changed, dB",
}


def labels_of(task: str) -> tuple[str, ...]:
    """Classes of a detector that tells a task's defects apart, that of clean sound first.

    >>> labels_of("artifacts")
    ('no_defect', 'hum', 'hiss', 'distortion', 'click')
    """
    return ("no_defect", *dict.fromkeys(LABEL_OF[defect] for defect in OF_TASK[task]))


def severity_of(
    defect: str, clean: np.ndarray, defective: np.ndarray, mask: np.ndarray, parameters: dict[str, Any]
) -> float:
    """How bad a planted defect is, in the unit of `SEVERITY`.

    Args:
        defect: key of `SIMULATORS`.
        clean: the section before, float32 (channels, time).
        defective: the section after (channels, time').
        mask: bool (channels, time'), what changed.
        parameters: what the simulator was given.
    """
    if defect in ("hum", "hiss"):
        signal_power = float(np.mean(np.square(clean, dtype=np.float64)))
        defect_power = float(np.mean(np.square(defective - clean, dtype=np.float64)))
        return float(10.0 * np.log10(max(signal_power, 1e-12) / max(defect_power, 1e-12)))
    if defect == "distortion":
        return float(parameters.get("ratio", 1.0))
    if defect in ("click_additive", "click_offset"):
        return float(np.abs(defective - clean).max(initial=0.0))
    if defect == "mp3_glitch":
        powers = [float(np.square(x[mask], dtype=np.float64).sum()) for x in (defective - clean, clean)]
        return float(10.0 * np.log10(max(powers[0], 1e-12) / max(powers[1], 1e-12)))
    jumps = np.abs(np.diff(defective, axis=1)) * (mask[:, 1:] | mask[:, :-1])
    return float(jumps.max(initial=0.0))


__all__ = [
    "BRIEF",
    "INT16_FULL_SCALE",
    "LABEL_OF",
    "OF_TASK",
    "SEVERITY",
    "SHORTENING",
    "SIMULATORS",
    "labels_of",
    "severity_of",
]
