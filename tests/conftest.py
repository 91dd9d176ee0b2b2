"""One Spark session and one prepared MLflow store for all tests; small real files in every format."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from signals import music_like


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


@pytest.fixture
def home(tmp_path, monkeypatch, prepared_store):
    """A home folder of its own for the test, with an empty MLflow store."""
    folder = tmp_path / "home"
    (folder / "mlflow").mkdir(parents=True)
    stores = list(prepared_store.rglob("*.db"))
    if stores:
        shutil.copy(stores[0], folder / "mlflow" / "mlflow.db")
    monkeypatch.setenv("AUSCULT_HOME", str(folder))
    monkeypatch.delenv("AUSCULT_WAREHOUSE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


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
