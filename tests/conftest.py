"""One Spark session and one prepared MLflow store for all tests; small real files in every format."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from signals import music_like

FIGURE = "figure: "  # a test prints lines that begin so; they go into the table


def pytest_addoption(parser):
    parser.addoption("--table", metavar="FILE", help="write what each test showed as a Markdown table")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    said = (item.function.__doc__ or "").strip().split("\n\n")[0]
    case = item.name.removeprefix("test_").replace("_", " ")
    report.case = (item.path.name, case, " ".join(said.split()))


class Table:
    """Collects outcomes and writes them at the end of the run."""

    def __init__(self, path):
        self.path = Path(path)
        self.rows = {}

    def pytest_runtest_logreport(self, report):
        row = self.rows.setdefault(
            report.nodeid, {"case": report.case, "outcome": "interrupted", "s": 0.0, "figures": []}
        )
        if report.when == "call" and row["outcome"] == "interrupted":
            row["outcome"] = "passed"
        row["s"] += report.duration
        if report.outcome != "passed":
            row["outcome"] = report.outcome
        if report.when == "call":
            row["figures"] += [
                line.removeprefix(FIGURE) for line in report.capstdout.splitlines() if line.startswith(FIGURE)
            ]

    def pytest_sessionfinish(self):
        """Write the table; lines of cases that were not run this time stay as an earlier run left them."""
        lines = {}
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                if line.startswith("| test_"):
                    lines[tuple(line.split("**")[:2])] = line
        for row in self.rows.values():
            file, case, said = row["case"]
            text = f"**{case}**" + (f": {said}" if said else "") + "".join(f"<br>{figure}" for figure in row["figures"])
            line = f"| {file} | {text.replace('|', '/')} | {row['outcome']} | {row['s']:.0f} |"
            lines[tuple(line.split("**")[:2])] = line
        cells = [line.rstrip(" |").split(" | ") for line in lines.values()]
        passed = sum(cell[-2] == "passed" for cell in cells)
        minutes = sum(float(cell[-1]) for cell in cells) / 60
        head = [
            "# What a scan survives",
            "",
            "Hostile files, dying machines, shared tables: each case is a test, and `make chaos` writes this table.",
            f"{passed} of {len(cells)} cases passed, in {minutes:.0f} minutes on two cores.",
            "",
            "| tests/ | case | outcome | seconds |",
            "|---|---|---|---|",
        ]
        self.path.write_text("\n".join([*head, *(lines[key] for key in sorted(lines))]) + "\n")


def pytest_configure(config):
    if config.getoption("--table"):
        config.pluginmanager.register(Table(config.getoption("--table")))


@pytest.fixture(autouse=True)
def _one_thread():
    """As a scan's tasks have: with more, sums differ in their last digits, and a training leaves another number behind."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def prepared_store(tmp_path_factory):
    """A migrated MLflow sqlite store: making one takes seconds, copying it none."""
    home = tmp_path_factory.mktemp("store")
    before = os.environ.get("AUSCULT_HOME")
    os.environ["AUSCULT_HOME"] = str(home)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    from jobs import registry

    registry.client().search_registered_models()
    if before is None:
        del os.environ["AUSCULT_HOME"]
    else:
        os.environ["AUSCULT_HOME"] = before
    return home


def make_home(folder, prepared_store, patch):
    """Make a home folder with an empty MLflow store, and let the environment point to it."""
    (folder / "mlflow").mkdir(parents=True)
    shutil.copy(next(prepared_store.rglob("*.db")), folder / "mlflow" / "mlflow.db")
    patch.setenv("AUSCULT_HOME", str(folder))
    patch.delenv("AUSCULT_WAREHOUSE", raising=False)
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


@pytest.fixture
def home(tmp_path, monkeypatch, prepared_store):
    """A home folder of its own for the test, with an empty MLflow store."""
    return make_home(tmp_path / "home", prepared_store, monkeypatch)


@pytest.fixture(scope="module")
def module_folder(tmp_path_factory, prepared_store):
    """A folder for all tests of a module; `home` in it is their home folder, with a MLflow store of their own."""
    folder = tmp_path_factory.mktemp("module")
    with pytest.MonkeyPatch.context() as patch:
        make_home(folder / "home", prepared_store, patch)
        yield folder


@pytest.fixture(scope="session")
def spark():
    # This session lives for minutes of planning, so full compilation pays here (conf/spark-defaults.conf leaves it out).
    java = "--conf spark.driver.extraJavaOptions=-XX:+UseSerialGC"
    os.environ.setdefault(
        "PYSPARK_SUBMIT_ARGS", f"--master local[2] --conf spark.ui.enabled=false {java} pyspark-shell"
    )
    from jobs.launch import session

    found = session("tests")
    yield found
    found.stop()


@pytest.fixture(scope="session")
def music():
    """Float32 (2, time), 25 s at 48 kHz: chords, noise bursts and silence, nothing periodic in time."""
    return music_like(25.0, 48_000, np.random.default_rng(7))
