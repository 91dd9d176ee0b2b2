from types import FunctionType

import numpy as np
import pytest
import toy_models
from mlflow_server import mlflow_server

from jobs import launch, register, registry, scan
from jobs.launch import AuscultError
from udfs import contract
from udfs.contract import ContractError, ModelContract, front_end_s, predict
from udfs.model_files import digest_of, load_predictor, refuse_pickles


def refused(uri):
    with pytest.raises(AuscultError) as caught:
        registry.check(registry.resolve([uri]))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_resolved_is_told_in_one_line(home, tmp_path, monkeypatch):
    toy_models.register_level(tmp_path)
    assert "expected models:/NAME@ALIAS" in refused("level")
    assert "expected models:/NAME@ALIAS" in refused("models:/level")
    assert "has no model 'nobody'; it has level" in refused("models:/nobody@champion")
    assert "level has versions 1, aliases @champion -> 1" in refused("models:/level@best")
    assert "level has versions 1, aliases @champion -> 1" in refused("models:/level/7")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert "cannot be reached" in refused("models:/level@champion")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setenv("AUSCULT_HOME", str(tmp_path / "empty"))
    assert "run `make register`" in refused("models:/level@champion")


def test_an_alias_and_its_version_are_one_model(home, tmp_path):
    toy_models.register_level(tmp_path)
    [model] = registry.resolve(["models:/level@champion", "models:/level/1"])
    assert model.shipped.key == "level/1"
    assert model.shipped.contract == toy_models.LEVEL
    assert digest_of(model.folder) == model.shipped.digest
    [again] = registry.resolve(["models:/level/1"])
    assert again.shipped == model.shipped
    scores = predict(load_predictor(model.folder, "cpu"), np.ones((3, 48_000), np.float32), toy_models.LEVEL, "level/1")
    np.testing.assert_allclose(scores, [[0, 1]] * 3)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "carries no contract"),
        ({"auscult": {"labels": ["a"]}}, "cannot be read"),
        (ModelContract(0, 1, 1, ("a",)).to_metadata(), "sample_rate_hz must be a positive number"),
        (ModelContract(100, 1, 1, ("a", "a")).to_metadata(), "labels must be named and different"),
        (ModelContract(100, 1, 1, ("a",), ("b",)).to_metadata(), "are not among its labels"),
        (ModelContract(100, 1, 1, ("a",), (), "left").to_metadata(), "channels must be one of"),
    ],
)
def test_contracts_that_make_no_sense(metadata, message):
    with pytest.raises(ContractError, match=message):
        ModelContract.from_metadata(metadata, "m/1")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("model_input[:, :3]", "for its labels"),
        ("np.full((len(model_input), 2), 7.0)", "expected probabilities between 0 and 1"),
        ("np.full((len(model_input), 2), np.nan)", "and NaN"),
        ("model_input[:1, :2] * 0", "for its labels"),
        ("1 / 0", "fails on a batch of 1"),
    ],
)
def test_models_that_break_their_contract_are_refused_before_the_scan(home, tmp_path, answer, message):
    code = toy_models.LEVEL_CODE.replace(
        "return np.stack([1 - loud, loud], axis=1).astype(np.float32)", f"return {answer}"
    )
    toy_models.register(tmp_path, "bad", code, toy_models.LEVEL.to_metadata(), 48_000)
    assert message in refused("models:/bad@champion")


def test_a_model_without_contract_is_refused_by_the_command(home, tmp_path):
    toy_models.register(tmp_path, "plain", toy_models.LEVEL_CODE, None, 48_000)
    with pytest.raises(AuscultError, match="plain/1 carries no contract"):
        scan.main(["--catalogue", str(tmp_path), "--model", "models:/plain@champion"])


@pytest.mark.chaos
@pytest.mark.parametrize("hidden", ["python_model.pkl", "weights.bin", "archive.npz", "deep/er/model.PT"])
def test_a_pickle_in_a_model_is_refused_whatever_its_name(home, tmp_path, hidden):
    import pickle
    import zipfile

    toy_models.register_level(tmp_path)
    [model] = registry.resolve(["models:/level@champion"])
    path = model.folder / hidden
    path.parent.mkdir(parents=True, exist_ok=True)
    if hidden.endswith(".npz"):  # as torch.save and joblib pack theirs
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(print))
    else:
        path.write_bytes(pickle.dumps(print))
    with pytest.raises(ContractError, match=f"holds a pickle .{hidden}"):
        refuse_pickles(model.folder, "level/1")


@pytest.mark.chaos
def test_a_model_logged_as_a_pickled_object_is_refused(home, tmp_path):
    import mlflow

    class Pickled(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return model_input

    experiment = registry.prepare_store()
    registry.client()
    with mlflow.start_run(experiment_id=experiment):
        logged = mlflow.pyfunc.log_model(
            name="pickled", python_model=Pickled(), metadata=toy_models.LEVEL.to_metadata(), pip_requirements=["numpy"]
        )
    mlflow.register_model(logged.model_uri, "pickled")
    assert "holds a pickle" in refused("models:/pickled/1")


@pytest.mark.chaos
@pytest.mark.parametrize("uri", ["runs:/abc/model", "file:///tmp/model", "/tmp/model", "https://h/m", "models:/../x/1"])
def test_models_come_from_the_registry_alone(home, uri):
    assert "expected models:/NAME@ALIAS" in refused(uri)


@pytest.mark.chaos
def test_a_registrys_password_is_not_told(home, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ana:geheim@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said = refused("models:/level@champion")
    assert "cannot be reached" in said
    assert "geheim" not in said + caplog.text


@pytest.mark.slow
def test_an_mlflow_server_serves_as_well(home, tmp_path, monkeypatch):
    """A real server: registered through it, resolved through it, scanned after it is gone."""
    with mlflow_server(home, tmp_path / "artifacts") as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert register.main(["--name", "shipped"]) == 0
        [model] = registry.resolve(["models:/shipped@champion"])
    registry.check([model])
    assert model.shipped.contract.labels[0] == "no_defect"


def test_registering_the_same_weights_twice_makes_one_version(home):
    from jobs import register

    assert register.main([]) == 0
    assert register.main([]) == 0
    client = registry.client()
    assert len(client.search_model_versions("name = 'audio-artifacts'")) == 1
    assert {a: str(n) for a, n in client.get_registered_model("audio-artifacts").aliases.items()} == {"champion": "1"}
    [model] = registry.resolve([launch.DEFAULT_MODEL_URI])
    assert not list(model.folder.rglob("*.pkl"))
    predictor = load_predictor(model.folder, "cpu")
    assert front_end_s(predictor) == 0
    predict(predictor, np.zeros((2, 48_000), dtype=np.float32), model.shipped.contract, model.shipped.key)
    assert front_end_s(predictor) > 0
    other = load_predictor(model.folder, "cpu", "openvino")
    assert isinstance(other.unwrap_python_model().classifier.classify, FunctionType)  # not the network's own method
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (3, 48_000)).astype(np.float32)
    ours, theirs = (predict(each, noise, model.shipped.contract, model.shipped.key) for each in (predictor, other))
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_a_champion_that_no_longer_loads_gives_way(home, tmp_path):
    """After an upgrade that changed the network's code, `make register` must leave a champion that works."""
    broken = toy_models.LEVEL_CODE.replace("class Level", "raise ImportError('gone')\nclass Level")
    code = tmp_path / "code"
    good = toy_models.register_level(tmp_path)
    # MLflow tries a model's code when it is logged, so it is broken afterwards.
    for path in (home / "mlflow").rglob("level.py"):
        path.write_text(broken)
    assert "choose another version, or register one" in refused("models:/level@champion")
    version = toy_models.register_level(code, alias=None)
    is_champion, reason = register.promote("level", version, None, None)
    assert is_champion
    assert f"cannot be used: model level/{good} cannot be loaded" in reason
    assert registry.resolve(["models:/level@champion"])[0].shipped.version == version
    third = toy_models.register_level(tmp_path / "third", alias=None)
    assert register.promote("level", third, None, None) == (
        False, f"not compared with the champion, version {version}: give --compare-on",
    )  # fmt: skip


class OutOfMemoryError(RuntimeError):
    """As PyTorch names its own, which needs a GPU."""


@pytest.mark.parametrize("error", [OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB"), MemoryError()])
def test_a_batch_that_does_not_fit_into_memory_is_halved(monkeypatch, error):
    sizes = []

    class Small:
        metadata = None

        def predict(self, waveforms):
            sizes.append(len(waveforms))
            if len(waveforms) > 5:
                raise error
            loud = np.abs(waveforms).max(axis=1)
            return np.stack([1 - loud, loud], axis=1)

    monkeypatch.setattr(contract, "_most_segments", {})
    waveforms = np.random.default_rng(0).uniform(-1, 1, (64, 480)).astype(np.float32)
    shape = ModelContract(48_000, 0.01, 0.01, ("quiet", "loud"))
    scores = contract.predict(Small(), waveforms, shape, "small/1")
    np.testing.assert_array_equal(scores[:, 1], np.abs(waveforms).max(axis=1))
    assert sizes[:4] == [64, 32, 16, 8]
    assert sum(sizes[4:]) == 64
    sizes.clear()
    contract.predict(Small(), waveforms, shape, "small/1")
    assert max(sizes) <= 4  # it has learned
    monkeypatch.setattr(contract, "_most_segments", {})

    class Broken(Small):
        def predict(self, waveforms):
            raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        contract.predict(Broken(), waveforms, shape, "broken/1")

    class Never(Small):
        def predict(self, waveforms):
            raise error

    with pytest.raises(type(error)):
        contract.predict(Never(), waveforms, shape, "never/1")
