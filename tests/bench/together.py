"""`make bench-together`: one scan with three models beside three scans with one each, and what each model costs.

The good titles of the demo catalogue, BENCH_COPIES times; CPU seconds of every process, start-up (measured on a second of
audio a core) taken off; with PyTorch, and with OpenVINO and int8. Each way is measured BENCH_REPEATS times, in turn, and the
least counts. Segments of the models differ in length; "audio hours per CPU hour" is what compares them: hours of one channel
through the model alone.
"""

import json
import os
import shutil
import sys
from pathlib import Path

from deltalake import DeltaTable

from models import checkpoint
from models.runtimes import is_installed
from tests.bench.process_tree import Measured, measure
from tests.bench.throughput import BIN, PROJECT, good_titles, machine, write_start_up

COPIES = int(os.environ.get("BENCH_COPIES", "1"))
REPEATS = int(os.environ.get("BENCH_REPEATS", "2"))
THREE = ("audio-artifacts", "clicks", "mp3-glitches")
ALONE = (*THREE, "audio-artifacts-cnn6")
RUNTIMES = ("torch", "openvino-int8")  # of the setting cpu_runtime, as far as they are installed
Way = tuple[str, tuple[str, ...]]  # runtime, models


def main() -> None:
    """Print the tables; write var/bench-together/result.json."""
    home = PROJECT / "var" / "bench-together"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    environment = {**os.environ, "AUSCULT_HOME": str(home)}
    subject, tiny = home / "catalogue", home / "tiny"
    subject.mkdir()
    write_start_up(tiny)
    for copy in range(COPIES):
        for path in good_titles():
            shutil.copy(path, subject / f"{copy} {path.name}")
    for name in ALONE:
        weights = checkpoint.WEIGHTS / f"{name}.safetensors"
        measure([BIN / "python", PROJECT / "jobs" / "register.py", "--name", name, "--weights", weights], environment)
    runtimes = [runtime for runtime in RUNTIMES if is_installed(runtime)]
    for runtime in runtimes:
        (home / f"{runtime}.yaml").write_text(f"equal_titles_once: false\ncpu_runtime: {runtime}\n")

    def scan(folder: Path, way: Way, number: int) -> tuple[Measured, Path]:
        runtime, models = way
        warehouse = home / f"{runtime} {'+'.join(models)} {folder.name} {number}"
        chosen = [argument for name in models for argument in ("--model", f"models:/{name}@champion")]
        command = [
            BIN / "spark-submit", PROJECT / "jobs" / "scan.py", "--catalogue", folder, "--warehouse", warehouse,
            "--settings", home / f"{runtime}.yaml", *chosen,
        ]  # fmt: skip
        return measure(command, environment), warehouse

    ways: list[Way] = [(runtime, models) for runtime in runtimes for models in (*((name,) for name in ALONE), THREE)]
    cpu_s: dict[Way, list[float]] = {way: [] for way in ways}
    start_up_s: dict[Way, list[float]] = {way: [] for way in ways}
    model_s: dict[Way, list[float]] = {way: [] for way in ways}
    channel_s: dict[str, float] = {}
    segments: dict[str, int] = {}
    for number in range(REPEATS):
        for way in ways:
            start_up_s[way].append(scan(tiny, way, number)[0].total_cpu_s)
            run, warehouse = scan(subject, way, number)
            cpu_s[way].append(run.total_cpu_s)
            [stages] = [
                dict(row) for row in DeltaTable(str(warehouse / "scans")).to_pyarrow_table()["stages_s"].to_pylist()
            ]
            model_s[way].append(stages["model"] + stages.get("front_end", 0.0))
            runtime, models = way
            if len(models) == 1:
                table = DeltaTable(str(warehouse / "segments")).to_pandas(columns=["model", "start_s", "end_s"])
                mine = table[table["model"] == models[0]]
                segments[models[0]], channel_s[models[0]] = len(mine), float((mine["end_s"] - mine["start_s"]).sum())
            print(f"  {runtime} {', '.join(models)}: {run.total_cpu_s:.0f} CPU s, {run.wall_s:.0f} s", file=sys.stderr)
    net = {way: min(cpu_s[way]) - min(start_up_s[way]) for way in ways}
    print(f"machine: {machine()}\n")
    print(
        "| cpu_runtime | model | audio hours (one channel) per CPU hour, model alone | segments per CPU second | scan, CPU seconds |"
    )
    print("|---|---|---|---|---|")
    for runtime in runtimes:
        for name in ALONE:
            way = (runtime, (name,))
            busy_s = min(model_s[way])
            print(
                f"| {runtime} | {name} | {channel_s[name] / busy_s:.0f} | {segments[name] / busy_s:.0f} | {net[way]:.0f} |"
            )
    for runtime in runtimes:
        together, apart = (runtime, THREE), [(runtime, (name,)) for name in THREE]
        net_apart, all_apart = sum(net[way] for way in apart), sum(min(cpu_s[way]) for way in apart)
        print(
            f"\n{runtime}: one scan with {', '.join(THREE)}: {net[together]:.0f} CPU s; three scans: {net_apart:.0f}; "
            f"ratio {net[together] / net_apart:.2f}; with start-up {min(cpu_s[together]):.0f} and {all_apart:.0f}; "
            f"ratio {min(cpu_s[together]) / all_apart:.2f}"
        )
    result = {
        "machine": machine(),
        "cpu_s": _by_name(cpu_s),
        "start_up_cpu_s": _by_name(start_up_s),
        "model_s": _by_name(model_s),
        "segments": segments,
        "channel_s": channel_s,
    }
    (home / "result.json").write_text(json.dumps(result, indent=2))


def _by_name(values: dict[Way, list[float]]) -> dict[str, list[float]]:
    return {" ".join((runtime, *models)): seconds for (runtime, models), seconds in values.items()}


if __name__ == "__main__":
    main()
