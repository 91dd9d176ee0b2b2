"""`make accuracy`: balanced accuracy of the shipped weights on recordings that training never saw.

Draws segments with the paper's simulators from the packages kept for the demo (music, English and French prompts,
hold music), half of them band-limited as codecs do.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from jobs.launch import home
from jobs.recordings import DEMO_PACKAGES, audio_files, fetch
from models import checkpoint
from models.cnn6 import LABELS
from models.training import SegmentSource, draw_batch, evaluate
from udfs.decoder import Decoder, encode_path
from udfs.recordings import write_recording

SEGMENTS = 3000
SEED = 5


def main() -> None:
    """Print balanced accuracy and the confusion matrix."""
    decoder = Decoder()
    with tempfile.TemporaryDirectory() as folder:
        recordings = []
        for name, package in fetch(DEMO_PACKAGES, home() / "recordings").items():
            for number, path in enumerate(audio_files(package)):
                target = Path(folder) / f"{name}-{number:04d}.npy"
                if write_recording(decoder, encode_path(path), target, 48_000, 150.0) is None:
                    recordings.append(target)
        decoder.close()
        source = SegmentSource(recordings, 48_000, 0.36)
        segments, labels = draw_batch(source, SEGMENTS, 1.0, np.random.default_rng(SEED))
        result = evaluate(checkpoint.load(checkpoint.SHIPPED), segments, labels, torch.device("cpu"))
    print(f"balanced accuracy {result['balanced_accuracy']:.3f} on {SEGMENTS} segments of {len(recordings)} recordings")
    print("| true \\ said | " + " | ".join(LABELS) + " | recall |")
    print("|---" * (len(LABELS) + 2) + "|")
    for label, row in zip(LABELS, result["confusion"], strict=True):
        recall = row[LABELS.index(label)] / row.sum()
        print(f"| {label} | " + " | ".join(map(str, row)) + f" | {recall:.3f} |")


if __name__ == "__main__":
    sys.exit(main())
