"""The notebooks run from top to bottom and draw what they say."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def run(name, folder):
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.mark.parametrize("is_recording", [False, True])
def test_defects(tmp_path, monkeypatch, is_recording, music):
    if is_recording:
        from signals import write

        monkeypatch.setenv("RECORDING", str(write(tmp_path / "a b.flac", music)))
    outputs = run("defects.ipynb", tmp_path)
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    players = [output for output in outputs if "<audio" in output.get("data", {}).get("text/html", "")]
    assert len(pictures) == 5
    assert len(players) == 6
