"""`make bench-gpu`: the shipped networks on a GPU, and how many workers it takes to feed one.

First each network as it is served (models/serving.py), by the size of the batch, from memory that the GPU can read by itself
(pinned) and that it cannot, with what its scores differ from those of a CPU in float32. Then the workers of a scan without
Spark: each decodes its titles in a process of its own and scores them on the same GPU, started together, from the
decoder's start to the last row. Titles are BENCH_HOURS of one channel in Opus, joined from the recordings in a folder (the
first argument) or made up here. Without a GPU it runs on the CPU, slowly, which only shows that it runs.
"""

import math
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from jobs.register import contract_of
from models import checkpoint
from models.serving import Classifier
from tests.signals import music_like, spans_of
from udfs.contract import ShippedModel
from udfs.encode import AudioTrack, write_media

NETWORKS = ("audio-artifacts", "audio-artifacts-cnn6", "clicks", "mp3-glitches")
BATCHES = tuple(map(int, os.environ.get("BENCH_BATCHES", "16,64,256,1024").split(",")))
WORKERS = tuple(map(int, os.environ.get("BENCH_WORKERS", f"1,4,{os.cpu_count()}").split(",")))
MODELS = os.environ.get("BENCH_MODELS", "audio-artifacts;audio-artifacts-cnn6").split(
    ";"
)  # commas between those of a scan
HOURS = float(os.environ.get("BENCH_HOURS", "1"))  # of audio for each worker
RATE_HZ = 48_000
BATCH = 64  # as in conf/scan.yaml
SECONDS = 0.4  # of a measurement


def main() -> None:
    """Print two tables."""
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "no GPU"
    print(f"{name}, {os.cpu_count()} cores, torch {torch.__version__}\n")
    print(
        "| network | batch | segments/s, pinned | pageable | largest difference to float32 on the CPU | same decisions |"
    )
    print("|---|---|---|---|---|---|")
    for network in NETWORKS:
        _serve(network, device)
    with tempfile.TemporaryDirectory() as folder:
        titles = _titles(Path(folder), Path(sys.argv[1]) if len(sys.argv) > 1 else None, max(WORKERS))
        print(
            "\n| models | workers | audio hours an hour | GPU busy | memory on it | seconds of all workers in decode | model |"
        )
        print("|---|---|---|---|---|---|---|")
        for models in MODELS:
            for count in WORKERS:
                _feed(models.split(","), titles[:count], str(device))


def _serve(name: str, device: torch.device) -> None:
    """Rows of the first table."""
    weights = checkpoint.WEIGHTS / f"{name}.safetensors"
    network, length = checkpoint.load(weights), contract_of(weights).segment_samples
    music = music_like(20.0, RATE_HZ, np.random.default_rng(1))[0]
    starts = np.random.default_rng(2).integers(0, len(music) - length, 128)
    waveforms = torch.from_numpy(np.stack([music[start : start + length] for start in starts]).astype(np.float32))
    waveforms[1::2] += 0.01 * torch.randn(64, length)  # every other one with hiss
    expected = Classifier(network, torch.device("cpu"), bf16=False)(waveforms)
    served = Classifier(network, device)
    found = served(waveforms)
    apart = (found - expected).abs().max().item()
    decides = (lambda scores: scores.argmax(-1)) if found.shape[-1] > 1 else (lambda scores: scores > 0.5)
    same = (decides(found) == decides(expected)).float().mean().item()
    for batch in BATCHES:
        given = waveforms.repeat(math.ceil(batch / len(waveforms)), 1)[:batch].contiguous()
        pinned = given.pin_memory() if device.type == "cuda" else given
        speeds = [_per_second(served, kind) for kind in (pinned, given)]
        print(f"| {name} | {batch} | {speeds[0]:,.0f} | {speeds[1]:,.0f} | {apart:.1e} | {same:.2%} |", flush=True)


def _per_second(served: Classifier, waveforms: torch.Tensor) -> float:
    for _ in range(3):
        served(waveforms)
    started, count = time.monotonic(), 0
    while (spent := time.monotonic() - started) < SECONDS or count == 0:
        served(waveforms)  # gives its answer on the CPU, so it has waited for the GPU
        count += 1
    return count * len(waveforms) / spent


def _titles(folder: Path, recordings: Path | None, count: int) -> list[str]:
    """Files of HOURS of one channel in Opus: one with the recordings in a row, and copies of it."""
    sources = sorted(path for path in recordings.rglob("*") if path.is_file()) if recordings else []
    pieces: list[np.ndarray] = [_sound(source) for source in sources] or [_sound(None)]
    sound = np.concatenate(pieces)
    if not len(sound):
        raise SystemExit(f"{recordings}: expected recordings that can be decoded, found none")
    first = folder / "0.opus"
    sound = np.resize(sound, (1, round(HOURS * 3600 * RATE_HZ)))  # again from the start where it is too short
    write_media(first, [AudioTrack(sound, RATE_HZ, "mono", bit_rate=96_000)])
    for number in range(1, count):
        (folder / f"{number}.opus").write_bytes(first.read_bytes())
    return [str(folder / f"{number}.opus") for number in range(count)]


def _sound(source: Path | None) -> np.ndarray:
    """One channel, float32 (samples,), of a recording or made up; nothing where it cannot be decoded."""
    if source is None:
        return music_like(60.0, RATE_HZ, np.random.default_rng(3))[0].astype(np.float32)
    resampler = av.AudioResampler("fltp", "mono", RATE_HZ)
    try:
        with av.open(str(source)) as container:
            pieces = [part.to_ndarray()[0] for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    except (av.FFmpegError, IndexError):
        return np.zeros(0, dtype=np.float32)
    return np.concatenate(pieces or [np.zeros(0, dtype=np.float32)])


def _feed(models: list[str], titles: list[str], device: str) -> None:
    """A row of the second table."""
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(len(titles) + 1), context.Queue()
    workers = [context.Process(target=_work, args=(models, title, device, barrier, answers)) for title in titles]
    for worker in workers:
        worker.start()
    barrier.wait()
    busy: list[tuple[float, float]] = []
    is_over = threading.Event()
    watch = threading.Thread(target=_watch, args=(busy, is_over))
    watch.start()
    started = time.monotonic()
    reports = [answers.get() for _ in workers]
    wall_s = time.monotonic() - started
    is_over.set()
    watch.join()
    for worker in workers:
        worker.join()
    stages = {stage: sum(report["stages_s"].get(stage, 0.0) for report in reports) for stage in ("decode", "model")}
    hours = sum(report["decoded_s"] for report in reports) / 3600
    load = f"{np.mean([one for one, _ in busy]):.0f} % | {max(mb for _, mb in busy) / 1024:.1f} GB" if busy else "- | -"
    print(
        f"| {', '.join(models)} | {len(titles)} | {hours / wall_s * 3600:,.0f} | {load} | {stages['decode']:.1f} "
        f"| {stages['model']:.1f} |",
        flush=True,
    )


def _work(names: list[str], title: str, device: str, barrier: Any, answers: Any) -> None:
    """One worker: what a Python worker of Spark's does with its share."""
    torch.set_num_threads(1)
    from udfs import predict
    from udfs.batches import ScanOptions

    models = []
    for name in names:
        weights = checkpoint.WEIGHTS / f"{name}.safetensors"
        model = ShippedModel(name, "1", name, name, contract_of(weights))
        predictor = _Served(Classifier(checkpoint.load(weights), torch.device(device)))
        predictor.predict(np.zeros((BATCH, model.contract.segment_samples), dtype=np.float32))
        predict._predictors[(model.digest, device, "torch")] = predictor
        models.append(model)
    spans = spans_of(title, 0.0, math.inf, models=[model.key for model in models], title_id=title)
    barrier.wait()
    last: dict[str, Any] = {}
    for batch in predict.score_spans(spans, models, ScanOptions(batch_segments=BATCH), device, Path):
        last = batch.slice(batch.num_rows - 1).to_pylist()[0]
    answers.put({"decoded_s": last["decoded_s"], "stages_s": dict(last["stages_s"])})


class _Served:
    """A predictor without MLflow's wrapping."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    def predict(self, waveforms: np.ndarray) -> np.ndarray:
        """Scores of waveforms (batch, samples)."""
        return self.classifier(torch.from_numpy(waveforms)).numpy()


def _watch(busy: list[tuple[float, float]], is_over: threading.Event) -> None:
    """Note how busy the GPU is, in percent, and how much of its memory is taken, in MiB, until it is over."""
    query = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
    while not is_over.wait(0.4):
        try:
            line = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
        except (OSError, subprocess.CalledProcessError):
            return
        share, used = map(float, line.split(","))
        busy.append((share, used))


if __name__ == "__main__":
    main()
