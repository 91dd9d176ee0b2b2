"""The notebooks run from top to bottom and draw what they say."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest
from deltalake import DeltaTable
from nbclient import NotebookClient
from test_demo import shortened

from jobs import demo, register, review, scan, tune
from jobs.recordings import RecordingsUnavailable

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def run(name, folder):
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.mark.parametrize("is_recording", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_defects(tmp_path, monkeypatch, is_recording, music):
    if is_recording:
        from signals import write

        monkeypatch.setenv("RECORDING", str(write(tmp_path / "a b.flac", music)))
    outputs = run("defects.ipynb", tmp_path)
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    players = [output for output in outputs if "<audio" in output.get("data", {}).get("text/html", "")]
    assert len(pictures) == 9
    assert len(players) == 19


def test_the_threshold_that_is_drawn_is_the_detections_own():
    """Two versions found the same stretch, each by its own operating point."""
    common = {"title_id": "a", "track": 0, "content_hash": "h", "defect": "hum", "start_s": 1.0, "end_s": 9.0, "peak_score": 0.9, "model": "m"}  # fmt: skip
    verdicts = pd.DataFrame(
        [
            {**common, "model_version": version, "threshold": threshold}
            for version, threshold in (("1", 0.9), ("2", 0.5))
        ]
    )
    queue = verdicts.drop(columns="threshold")[::-1]
    source = next(
        cell.source
        for cell in nbformat.read(NOTEBOOKS / "findings.ipynb", as_version=4).cells
        if "chosen = " in cell.source
    )
    for asked, threshold in ((queue, 0.5), (queue[:0], 0.9)):
        frames = {"verdicts": verdicts, "review_queue": asked}
        names = {
            "analysis": lambda spark, sources, name, frames=frames: SimpleNamespace(toPandas=lambda: frames[name]),
            "spark": None,
            "sources": None,
        }
        exec(source, names)
        assert names["chosen"].threshold == threshold


@pytest.fixture(scope="module")
def demo_warehouse(tmp_path_factory, prepared_store, spark):
    """Tables of the demo's own titles, shortened, scanned with the shipped model, reviewed in part, and tuned."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "mlflow").mkdir()
    shutil.copy(next(prepared_store.rglob("*.db")), folder / "mlflow" / "mlflow.db")
    patch = pytest.MonkeyPatch()
    patch.setenv("AUSCULT_HOME", str(folder))
    patch.setenv("AUSCULT_WAREHOUSE", str(folder / "warehouse"))
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def fetch(packages, into):
        raise RecordingsUnavailable("the stand-in will do")

    patch.setattr(demo, "fetch", fetch)
    patch.setattr(demo, "TITLES", tuple(shortened(title) for title in demo.TITLES if "suite" not in title.name))
    assert demo.main(["build", str(folder / "demo")]) == 0
    assert register.main([]) == 0
    (folder / "settings.yaml").write_text(
        "operating_points:\n  default: {threshold: 0.5, min_detected_s: 2.0, window_s: 20.0}\n"
        "  hum: {threshold: 0.5, min_detected_s: 2.0, window_s: 20.0}\n  click: {threshold: 0.5, min_detected_s: 1.0, window_s: 20.0}\n"
    )
    assert scan.main(["--catalogue", str(folder / "demo"), "--settings", str(folder / "settings.yaml")]) == 0
    detections = DeltaTable(str(folder / "warehouse" / "detections")).to_pandas()
    assert len(detections) >= 3
    detections["verdict"] = "genuine"
    detections.iloc[1:][["title_id", "track", "defect", "start_s", "end_s", "verdict"]].to_csv(
        folder / "verdicts.csv", index=False
    )
    assert review.main(["import", str(folder / "verdicts.csv"), "--reviewer", "a"]) == 0
    planted = pd.read_csv(folder / "demo" / "planted.csv")
    planted["defect"] = planted["defect"].str.removesuffix("_additive").str.removesuffix("_reductive")
    tracks = DeltaTable(str(folder / "warehouse" / "tracks")).to_pandas()
    clean = set(tracks["title_id"]) - set(planted["title_id"])
    labels = pd.concat([planted[["title_id", "defect"]], pd.DataFrame({"title_id": sorted(clean), "defect": None})])
    labels.to_csv(folder / "labels.csv", index=False)
    assert tune.main(["--labels", str(folder / "labels.csv")]) == 0
    yield folder
    patch.undo()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(("name", "pictures", "players"), [("findings.ipynb", 2, 1), ("operating_point.ipynb", 2, 0)])
def test_tables_of_the_demo(demo_warehouse, tmp_path, name, pictures, players):
    outputs = run(name, tmp_path)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == pictures
    assert sum("<audio" in output.get("data", {}).get("text/html", "") for output in outputs) == players
    assert sum("<table" in output.get("data", {}).get("text/html", "") for output in outputs) >= 3
