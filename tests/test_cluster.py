"""A real standalone cluster on the loopback, whose processes are killed while it scans."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import toy_models
from mlflow_server import free_port, mlflow_server
from signals import music_like, write
from test_cli import BIN, PROJECT, environment, rows_of

from jobs import scan

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(900)]

TITLES, SECONDS = 8, 12
SETTINGS = """
chunk_channel_h_per_core: 0.003
span_s: 4
tasks_per_core: 2
operating_points: {loud: {threshold: 0.05, min_detected_s: 2, window_s: 4}}
"""


class Cluster:
    """One master, two workers with two executors each, and the processes of all."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.environment = {
            **environment(home),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_WORKER_DIR": str(folder / "work"),
        }
        self.port, self.page = free_port(), free_port()
        self.master = self._start(
            "Master", "--host", "127.0.0.1", "--port", str(self.port), "--webui-port", str(self.page)
        )
        self._wait_for_workers(0)
        self.workers = [self.start_worker(number) for number in (1, 2)]

    def start_worker(self, alive=2):
        """Start one and wait until so many are alive."""
        worker = self._start(
            "Worker", "--host", "127.0.0.1", "--webui-port", str(free_port()), "--cores", "2", "--memory", "2g",
            f"spark://127.0.0.1:{self.port}",
        )  # fmt: skip
        self._wait_for_workers(alive)
        return worker

    def _start(self, kind, *arguments):
        log = self.folder / f"{kind}-{time.monotonic_ns()}.log"
        command = [BIN / "spark-class", f"org.apache.spark.deploy.{kind.lower()}.{kind}", *arguments]
        with log.open("wb") as file:
            return subprocess.Popen(
                list(map(str, command)), stdout=file, stderr=file, env=self.environment, start_new_session=True
            )

    def _wait_for_workers(self, count):
        until = time.monotonic() + 120
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                state = json.load(urllib.request.urlopen(f"http://127.0.0.1:{self.page}/json/", timeout=5))
                if sum(worker["state"] == "ALIVE" for worker in state["workers"]) >= count:
                    return
            time.sleep(0.2)
        raise AssertionError(f"the master has not {count} workers after two minutes; see {self.folder}")

    def submit(self, *arguments, **options):
        return subprocess.Popen(
            [
                BIN / "spark-submit", "--master", f"spark://127.0.0.1:{self.port}",
                "--conf", "spark.executor.cores=1", "--conf", "spark.executor.memory=512m",
                "--conf", "spark.cores.max=4", "--conf", "spark.ui.enabled=false",
                *options.get("conf", ()), PROJECT / "jobs" / "scan.py", *map(str, arguments),
            ],
            env={**self.environment, **options.get("env", {})}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True,
        )  # fmt: skip

    def processes(self, pattern):
        """Numbers of the executors' processes and their children's, where the command line matches."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):
                    line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    # Executors run below the workers' folder; another program's processes are none of ours.
                    if re.search(pattern, line) and (folder / "cwd").resolve().is_relative_to(self.folder / "work"):
                        found.append(int(folder.name))
        return found

    def executors(self):
        return self.processes(r"CoarseGrainedExecutorBackend.*127\.0\.0\.1.*--app-id")

    def stop(self):
        for process in [*self.workers, self.master]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for pid in self.executors():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def place(module_folder):
    folder = module_folder
    toy_models.register(
        folder / "code", "audio-artifacts", toy_models.LEVEL_CODE, toy_models.LEVEL.to_metadata(), 48_000
    )
    for number in range(TITLES):
        audio = music_like(SECONDS, 48_000, np.random.default_rng(number), channels=1) * 0.6
        write(folder / "catalogue" / f"{number:02d}.flac", audio)
    (folder / "settings.yaml").write_text(SETTINGS)
    return folder


@pytest.fixture(scope="module")
def cluster(place):
    found = Cluster(place, place / "home")
    yield found
    found.stop()


def of_place(place, warehouse):
    """A scan's arguments."""
    options = {"catalogue": place / "catalogue", "settings": place / "settings.yaml", "warehouse": warehouse}
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


@pytest.fixture
def arguments(place, tmp_path):
    return of_place(place, tmp_path / "warehouse")


@pytest.fixture(scope="module")
def undisturbed(place, spark):
    """What one process makes of the catalogue, without a cluster."""
    assert scan.main(of_place(place, place / "plain")) == 0
    expected = rows_of(place / "plain")
    assert len(expected["segments"]) == TITLES * SECONDS
    assert expected["detections"]
    return expected


def wait_until_scoring(process, warehouse, chunk):
    """Until the scan has begun to stage the given chunk."""
    until = time.monotonic() + 300
    while time.monotonic() < until and process.poll() is None:
        if list(warehouse.glob(f"_staging/*/{chunk:06d}/manifest.json")):
            return
        time.sleep(0.05)
    raise AssertionError(process.communicate()[0] if process.poll() is not None else "no chunk was staged")


LONG = pytest.mark.long


@pytest.mark.parametrize(
    "victim",
    [
        "worker",
        pytest.param("executor", marks=LONG),
        pytest.param("python worker", marks=LONG),
        pytest.param("decoder", marks=LONG),
        pytest.param("driver", marks=LONG),
    ],
)
def test_a_killed(victim, cluster, arguments, undisturbed, tmp_path):
    """kill -9 in mid-scan; the scan, or for the driver its rerun, leaves the rows of an undisturbed one."""
    process = cluster.submit(*arguments)
    wait_until_scoring(process, tmp_path / "warehouse", 2)
    time.sleep(random.uniform(0.0, 2.0))
    if victim == "worker":
        os.killpg(cluster.workers[0].pid, signal.SIGKILL)
        cluster.workers[0].wait()
        cluster.workers[0] = cluster.start_worker()
    elif victim == "driver":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        pattern = {"python worker": r"pyspark\.daemon", "decoder": r"udfs\.decoder"}.get(victim)
        pids = cluster.executors() if pattern is None else cluster.processes(pattern)
        assert pids, f"no {victim} is running"
        for pid in random.sample(pids, min(2, len(pids))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    output = process.communicate(timeout=600)[0]
    if victim == "driver":
        process = cluster.submit(*arguments)
        output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    assert rows_of(tmp_path / "warehouse") == undisturbed


@LONG
def test_speculative_tasks_score_nothing_twice(cluster, arguments, undisturbed, tmp_path):
    eager = ["quantile=0.1", "multiplier=1.0", "interval=50ms", "minTaskRuntime=1ms"]
    conf = ["--conf", "spark.speculation=true", *(w for e in eager for w in ("--conf", f"spark.speculation.{e}"))]
    process = cluster.submit(*arguments, conf=conf)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    assert rows_of(tmp_path / "warehouse") == undisturbed


@LONG
def test_two_scans_at_once_one_is_refused(cluster, arguments, undisturbed, tmp_path):
    first = cluster.submit(*arguments, conf=["--conf", "spark.cores.max=2"])
    wait_until_scoring(first, tmp_path / "warehouse", 1)
    second = cluster.submit(*arguments, conf=["--conf", "spark.cores.max=2"])
    refusal = second.communicate(timeout=600)[0]
    assert second.returncode == 2, refusal
    assert "is writing to it" in refusal
    output = first.communicate(timeout=600)[0]
    assert first.returncode == 0, output
    assert rows_of(tmp_path / "warehouse") == undisturbed


@LONG
def test_the_registry_may_go_once_the_model_was_resolved(place, cluster, arguments, undisturbed, tmp_path):
    with mlflow_server(place / "home", place / "home" / "mlflow" / "artifacts") as address:
        process = cluster.submit(*arguments, env={"MLFLOW_TRACKING_URI": address})
        wait_until_scoring(process, tmp_path / "warehouse", 1)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    assert rows_of(tmp_path / "warehouse") == undisturbed
