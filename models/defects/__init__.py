"""Simulators of the defects that the shipped detectors are trained on (one module a defect).

Each module has the same two functions:

    draw(waveform, sample_rate, rng) -> parameters or None
    apply(waveform, sample_rate, rng, **parameters) -> (waveform, mask)

``draw`` picks the paper's random parameters for this waveform (None where the waveform leaves no
room for the defect); ``apply`` is deterministic given its arguments. Waveforms are float32
``(channels, time)`` at full scale +-1; ``mask`` is bool ``(channels, time)`` and marks the samples
that changed. Source: Higham et al., "A No-Reference model for Detecting Audio Artifacts using
Pretrained Audio Neural Networks", section 4; the paper gives amplitudes in int16 units.
"""

from models.defects import click_additive, click_reductive, distortion, hiss, hum

INT16_FULL_SCALE = 32768

# Order matters: it is the order in which `models.intervals` draws versions of a title.
SIMULATORS = {
    "hum": hum,
    "hiss": hiss,
    "distortion": distortion,
    "click_additive": click_additive,
    "click_reductive": click_reductive,
}

# The label under which a detector reports each simulated defect.
LABEL_OF = {
    "hum": "hum",
    "hiss": "hiss",
    "distortion": "distortion",
    "click_additive": "click",
    "click_reductive": "click",
}

__all__ = ["INT16_FULL_SCALE", "LABEL_OF", "SIMULATORS"]
