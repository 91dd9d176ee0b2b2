"""`make bench-serving`: ways to run the shipped networks on a CPU, by speed and by what they decide.

As they are served (models/serving.py, with PyTorch and with OpenVINO, the latter also in int8 where the weights have ranges)
beside plain PyTorch, torch.compile, ONNX Runtime and int8 of all layers calibrated on real audio, where these are installed
(the extra `bench`); float32, and bfloat16 where the processor has it. The front end is PyTorch's in all of them (FFTs, which
neither runtime does faster) and is in every figure.

Segments are taken from the labelled test catalogue of `make evaluate`, BENCH_SEGMENTS of each class; int8 is calibrated on
those of other recordings. One thread each, every way BENCH_REPEATS times in turn; the least CPU time counts. The allocator
has the settings of the scan's workers: with glibc's own PyTorch takes up to 1.6 times as long, which is no merit of the others.
"""

import importlib.metadata
import importlib.util
import json
import logging
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import torch
from deltalake import DeltaTable
from torch import nn

from models import checkpoint
from models.runtimes import is_installed, openvino_model
from models.serving import Classifier, fold_batch_norm, has_bf16
from tests.bench.bare_loop import BATCH, RATE_HZ, segments_of
from tests.bench.throughput import allocator, machine

PROJECT = Path(__file__).resolve().parent.parent.parent
MODELS = {"audio-artifacts": checkpoint.SHIPPED, "audio-artifacts-cnn6": checkpoint.SHIPPED_CNN6}
SEGMENTS = int(os.environ.get("BENCH_SEGMENTS", "200"))
REPEATS = int(os.environ.get("BENCH_REPEATS", "3"))
CALIBRATION = 0.2  # of the segments, from recordings of their own
MOST_PER_FILE = 3  # of a class: variety before quantity

Score = Callable[[torch.Tensor], np.ndarray]


class Decisions(nn.Module):
    """What follows the front end, as probabilities."""

    def __init__(self, network: checkpoint.Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, *heard: torch.Tensor) -> torch.Tensor:
        """Probabilities (b, k) of what `hear` gave."""
        return torch.exp(self.network.classify(*heard))


def labelled_segments(catalogue: Path, labels: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Waveforms (n, samples), classes (n,) and whether each is for calibration (n,), from a labelled catalogue."""
    titles = DeltaTable(str(catalogue / "titles")).to_pandas().sort_values("title_id")
    planted = dict(list(DeltaTable(str(catalogue / "labels")).to_pandas().groupby("title_id")))
    recordings = {name: number for number, name in enumerate(sorted(titles["clean_title_id"].unique()))}
    wanted = {True: round(SEGMENTS * CALIBRATION), False: SEGMENTS}
    had: Counter[tuple[bool, int]] = Counter()
    waveforms, classes, for_calibration = [], [], []
    for title in titles[titles["error"].isna()].sample(frac=1.0, random_state=0).itertuples():
        is_calibration = recordings[title.clean_title_id] % 5 == 0
        in_file: Counter[int] = Counter()
        events = planted.get(title.title_id)
        for name, waveform in segments_of(unquote(urlsplit(title.uri).path)):
            channel, position = (int(part) for part in name.rsplit("/", 2)[1:])
            label = labels.index(_truth(events, channel, position / RATE_HZ))
            key = (is_calibration, label)
            if had[key] < wanted[is_calibration] and in_file[label] < MOST_PER_FILE:
                had[key] += 1
                in_file[label] += 1
                waveforms.append(waveform.copy())
                classes.append(label)
                for_calibration.append(is_calibration)
        if all(
            had[is_calibration, label] == wanted[is_calibration]
            for is_calibration in wanted
            for label in range(len(labels))
        ):
            break
    return np.stack(waveforms), np.array(classes), np.array(for_calibration)


def _truth(planted: Any, channel: int, start_s: float) -> str:
    """A segment is defective where a sample changed in it (jobs/sql/judged.sql)."""
    for row in planted.itertuples() if planted is not None else ():
        is_in = any(event["start_s"] < start_s + 1 and event["end_s"] > start_s for event in row.events)
        if is_in and channel in row.channels:
            return str(row.defect)
    return "no_defect"


def ways(network: checkpoint.Network, calibration: torch.Tensor, folder: Path) -> dict[str, Callable[[], Score]]:
    """Every way that can be had here: its name, and what makes it ready."""
    cpu = torch.device("cpu")

    def plain() -> Score:
        return lambda x: torch.exp(network(x)).numpy()

    def served(bf16: bool, runtime: str = "torch") -> Callable[[], Score]:
        def make() -> Score:
            classifier = Classifier(network, cpu, bf16=bf16, runtime=runtime)
            return lambda x: classifier(x).numpy()

        return make

    def after(decide: Callable[..., np.ndarray]) -> Score:
        return lambda x: np.concatenate([decide(*network.hear(part)) for part in x.split(network.few)])

    def compiled() -> Score:
        decisions = torch.compile(Decisions(fold_batch_norm(network)))
        return after(lambda *heard: decisions(*heard).numpy())

    found: dict[str, Callable[[], Score]] = {"PyTorch, as trained": plain, "served, float32": served(False)}
    if has_bf16(cpu):
        found["served, bfloat16"] = served(True)
    if shutil.which("g++"):
        found["torch.compile, float32"] = compiled
    heard = [network.hear(part) for part in calibration.split(8)]
    if _there("onnxruntime", "onnx", "onnxscript"):
        found["ONNX Runtime, float32"] = lambda: after(_onnx(network, heard, folder, is_int8=False))
        found["ONNX Runtime, int8"] = lambda: after(_onnx(network, heard, folder, is_int8=True))
    if is_installed("openvino"):
        found["served, OpenVINO, float32"] = served(False, "openvino")
        if has_bf16(cpu):
            found["served, OpenVINO, bfloat16"] = served(True, "openvino")
        if network.ranges:
            found["served, OpenVINO, int8"] = served(False, "openvino-int8")
        if _there("nncf"):
            found["OpenVINO, int8 of all layers by NNCF"] = lambda: after(_openvino_int8(network, heard))
    return found


def _there(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) is not None for package in packages)


def _onnx(
    network: checkpoint.Network, heard: list[tuple[torch.Tensor, ...]], folder: Path, *, is_int8: bool
) -> Callable[..., np.ndarray]:
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    names = [f"heard{number}" for number in range(len(heard[0]))]
    path = folder / "model.onnx"
    batch = torch.export.Dim("batch", min=2, max=1024)
    torch.onnx.export(
        Decisions(fold_batch_norm(network)).eval(), heard[0], path, input_names=names, output_names=["scores"],
        dynamic_shapes=(tuple({0: batch} for _ in names),), dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip
    if is_int8:

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                self.batches = iter(heard)

            def get_next(self) -> dict[str, np.ndarray] | None:
                batch = next(self.batches, None)
                return None if batch is None else dict(zip(names, (part.numpy() for part in batch), strict=True))

        quant_pre_process(path, folder / "shaped.onnx", skip_symbolic_shape=True)
        path = folder / "int8.onnx"
        quantize_static(
            folder / "shaped.onnx", path, Reader(), per_channel=True, weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"], reduce_range=True,  # 8-bit sums overflow without VNNI
        )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda *parts: session.run(None, {n: part.numpy() for n, part in zip(names, parts, strict=True)})[0]


def _openvino_int8(network: checkpoint.Network, heard: list[tuple[torch.Tensor, ...]]) -> Callable[..., np.ndarray]:
    import nncf
    import openvino

    data = nncf.Dataset(heard, lambda parts: [part.numpy() for part in parts])
    model = openvino_model(fold_batch_norm(network))
    model = nncf.quantize(model, data, subset_size=len(heard), preset=nncf.QuantizationPreset.MIXED)
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    return lambda *parts: np.exp(compiled([part.numpy() for part in parts])[0])


def _scores(score: Score, waveforms: torch.Tensor) -> tuple[np.ndarray, float]:
    started = time.process_time()
    with torch.inference_mode():
        scores = np.concatenate([score(part) for part in waveforms.split(BATCH)])
    return scores, time.process_time() - started


def main() -> None:
    """Print a table for each model; write var/bench-serving.json."""
    if missing := {name: value for name, value in allocator().items() if name not in os.environ}:
        # The allocator reads its settings when a process starts.
        os.execve(sys.executable, [sys.executable, "-m", "tests.bench.serving"], {**os.environ, **missing})
    warnings.filterwarnings("ignore")
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    catalogue = PROJECT / "var" / "evaluation"
    if not (catalogue / "titles").is_dir():
        raise SystemExit("make the labelled test catalogue first: make evaluate")
    packages = [name for name in ("torch", "onnxruntime", "openvino", "nncf") if _there(name)]
    versions = {name: importlib.metadata.version(name) for name in packages}
    print(f"machine: {machine()}; {', '.join(f'{name} {version}' for name, version in versions.items())}")
    results: dict[str, Any] = {"machine": machine(), "versions": versions, "models": {}}
    for name, weights in MODELS.items():
        network = checkpoint.load(weights)
        waveforms, truth, for_calibration = labelled_segments(catalogue, network.config.labels)
        results["models"][name] = _beside(
            name, network, torch.from_numpy(waveforms), truth, torch.from_numpy(for_calibration)
        )
    (PROJECT / "var" / "bench-serving.json").write_text(json.dumps(results, indent=2))


def _beside(
    name: str, network: checkpoint.Network, waveforms: torch.Tensor, truth: np.ndarray, for_calibration: torch.Tensor
) -> dict[str, Any]:
    judged, truth = waveforms[~for_calibration], truth[~for_calibration.numpy()]
    ready: dict[str, Score] = {}
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr), torch.no_grad():
        for way, make in ways(network, waveforms[for_calibration], Path(folder)).items():
            try:
                ready[way] = make()
                _scores(ready[way], judged[:BATCH])
            except Exception as error:  # a runtime that cannot run this network is a finding
                ready.pop(way, None)
                print(f"{name}, {way}: {' '.join(f'{type(error).__name__}: {error}'.split())[:300]}", file=sys.stderr)
    scores: dict[str, np.ndarray] = {}
    cpu_s = dict.fromkeys(ready, float("inf"))
    for _ in range(REPEATS):
        for way, score in ready.items():
            scores[way], took_s = _scores(score, judged)
            cpu_s[way] = min(cpu_s[way], took_s)
    reference, served_s = scores["PyTorch, as trained"], cpu_s["served, float32"]
    print(f"\n{name}, {len(judged)} segments, {int(for_calibration.sum())} others to calibrate int8:\n")
    print(
        "| | segments per CPU second | to served float32 | balanced accuracy | decisions as PyTorch's | scores within |\n"
        "|---|---|---|---|---|---|"
    )
    figures = {}
    for way in ready:
        said = scores[way].argmax(axis=1)
        recalls = [float((said[truth == label] == label).mean()) for label in np.unique(truth)]
        figures[way] = {
            "segments_per_cpu_s": len(judged) / cpu_s[way],
            "to_served": served_s / cpu_s[way],
            "balanced_accuracy": float(np.mean(recalls)),
            "same_decisions": float((said == reference.argmax(axis=1)).mean()),
            "largest_score_difference": float(np.abs(scores[way] - reference).max()),
        }
        speed, ratio, accuracy, same, within = figures[way].values()
        print(f"| {way} | {speed:.0f} | {ratio:.2f} | {accuracy:.3f} | {same:.2%} | {within:.0e} |")
    return figures


if __name__ == "__main__":
    main()
