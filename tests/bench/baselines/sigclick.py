"""Essentia's ClickDetector ("SigClick" in Hook-Net's paper) as a detector; AGPL, for benchmarks only."""

import mlflow
import numpy as np
from mlflow.pyfunc import PythonModel

RATE_HZ, FRAMES, FRAME = 44_100, 128, 128
# A frame's score is the largest of these thresholds that still finds it, over the largest of all.
THRESHOLDS = (20, 25, 30, 33, 35, 40, 50)


class SigClick(PythonModel):
    """Waveforms float32 (batch, samples) in, scores float32 (batch, frames, 1) out."""

    def predict(self, context, model_input: np.ndarray, params=None) -> np.ndarray:
        """Score a batch."""
        import essentia

        essentia.log.infoActive = essentia.log.warningActive = False
        from essentia import standard

        scores = np.zeros((len(model_input), FRAMES, 1), dtype=np.float32)
        for number, waveform in enumerate(model_input):
            for threshold in THRESHOLDS:
                # Sizes as in the paper: sub-segments of 4096 samples, 2048 apart.
                detector = standard.ClickDetector(
                    frameSize=4096, hopSize=2048, sampleRate=RATE_HZ, detectionThreshold=threshold
                )
                for frame in standard.FrameGenerator(
                    np.ascontiguousarray(waveform, dtype=np.float32), 4096, 2048, startFromZero=True
                ):
                    starts_s, _ = detector(frame)
                    places = (np.asarray(starts_s) * RATE_HZ).astype(int) // FRAME
                    places = places[(places >= 0) & (places < FRAMES)]
                    scores[number, places, 0] = threshold / THRESHOLDS[-1]
        return scores


MODEL = SigClick()
mlflow.models.set_model(MODEL)
