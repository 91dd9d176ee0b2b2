"""Models that people log with MLflow's own flavours: a PyTorch module as a program of torch.export, named outputs."""

import pickle
import re
import zipfile

import numpy as np
import pytest
import torch
import toy_models

from jobs import register, registry
from jobs.launch import PROJECT, AuscultError
from udfs.contract import ContractError, ModelContract, predict
from udfs.model_files import load_predictor, refuse_pickles

BUZZ = ModelContract(sample_rate_hz=16_000, segment_s=0.5, hop_s=0.5, labels=("fine", "buzz"), clean_labels=("fine",))


class Buzz(torch.nn.Module):
    """A network as anybody's: weights, a layer that depends on the length, probabilities."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.filters = torch.nn.Conv1d(1, 4, 400, stride=160)
        self.classes = torch.nn.Linear(4, 2)

    def forward(self, waveforms):
        return self.classes(torch.relu(self.filters(waveforms[:, None])).amax(-1)).softmax(-1)


@pytest.fixture
def exported(home):
    """A module that the README's example has logged and registered as `buzz`."""
    [example] = re.findall(r"```python\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)
    module = Buzz()
    exec(compile(example, "README.md", "exec"), {"module": module})
    return module


def test_a_module_logged_by_mlflow_is_scanned_with(exported):
    """Exported from a batch of two, it takes any number, and answers as the module does."""
    [model] = registry.resolve(["models:/buzz/1"])
    assert model.shipped.contract == BUZZ
    registry.check([model])
    noise = np.random.default_rng(0).uniform(-1, 1, (7, BUZZ.segment_samples)).astype(np.float32)
    with torch.no_grad():
        expected = exported(torch.from_numpy(noise)).numpy()
    scores = predict(load_predictor(model.folder, "cpu"), noise, model.shipped.contract, "buzz/1")
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert np.ptp(expected[:, 1]) > 1e-3
    assert register.main(["--model", "models:/buzz/1"]) == 0
    assert registry.resolve(["models:/buzz@champion"])[0].shipped == model.shipped


def test_a_module_exported_on_a_cpu_runs_there_where_a_gpu_is_asked_for(exported, caplog):
    [model] = registry.resolve(["models:/buzz/1"])
    predictor = load_predictor(model.folder, "cuda:0")
    assert "exported for a CPU and so runs there, not on cuda:0" in caplog.text
    silence = np.zeros((1, BUZZ.segment_samples), dtype=np.float32)
    predict(predictor, silence, model.shipped.contract, "buzz/1")


@pytest.mark.chaos
def test_an_exported_module_in_which_something_runs_is_refused(exported, monkeypatch):
    """Whatever MLflow's own switch says, by which it would be read."""
    [model] = registry.resolve(["models:/buzz/1"])
    [path] = model.folder.rglob("*.pt2")
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    for allowed in ("false", "true"):
        monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", allowed)
        refuse_pickles(_rewritten(model.folder, path, records), "buzz/1")
        for record in ("sample_inputs/model.pt", "weights/weight_0.pt", "weights/weight_9", "aotinductor/m.so"):
            changed = {**records, f"model/data/{record}": pickle.dumps(print)}
            with pytest.raises(ContractError, match=r"holds a pickle \(data/model.pt2\).*serialization_format=\"pt2\""):
                refuse_pickles(_rewritten(model.folder, path, changed), "buzz/1")
        path.write_bytes(pickle.dumps(print))
        with pytest.raises(ContractError, match="holds a pickle"):
            refuse_pickles(model.folder, "buzz/1")


def _rewritten(folder, path, records):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return folder


NAMED = "return np.stack([1 - loud, loud], axis=1).astype(np.float32)"


@pytest.mark.parametrize(("more", "fits"), [("", True), (", 'logits': loud", False)])
def test_one_named_output_is_the_output(home, tmp_path, more, fits):
    """As models in ONNX and TensorFlow answer; of several nobody can tell which is meant."""
    answer = f"return {{'scores': np.stack([1 - loud, loud], axis=1).astype(np.float32){more}}}"
    assert NAMED in toy_models.LEVEL_CODE
    code = toy_models.LEVEL_CODE.replace("-> np.ndarray:", "-> dict:").replace(NAMED, answer)
    toy_models.register(tmp_path, "named", code, toy_models.LEVEL.to_metadata(), 48_000)
    [model] = registry.resolve(["models:/named@champion"])
    if not fits:
        with pytest.raises(AuscultError, match="named/1: expected one output, found 2: 'scores', 'logits'"):
            register.main(["--model", "models:/named/1"])
        return
    registry.check([model])
    scores = predict(load_predictor(model.folder, "cpu"), np.ones((3, 48_000), np.float32), toy_models.LEVEL, "named/1")
    np.testing.assert_allclose(scores, [[0, 1]] * 3)
