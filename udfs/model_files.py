"""A registered model's files: what they may hold, and how they are loaded."""

import hashlib
import logging
import os
import re
import warnings
import zipfile
from pathlib import Path

from udfs.contract import ContractError, Predictor

log = logging.getLogger("auscult")


def digest_of(folder: Path) -> str:
    """SHA-256 over the names and bytes of all files in a model's folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


# Formats that run code when they are read, by suffix and by how they begin.
PICKLE_SUFFIXES = frozenset({".pkl", ".pickle", ".joblib", ".dill", ".pt", ".pth", ".ckpt", ".h5", ".keras"})
_PICKLE = re.compile(rb"\x80[\x02-\x05]")


def refuse_pickles(folder: Path, model: str) -> None:
    """Raise ContractError where a model's folder holds a pickle, whatever its name: reading one runs what it holds.

    A model's own Python code (models from code) is another matter: it can be read before it is registered, and it is
    what a registry's permissions are about. An object that was pickled cannot. Programs of `torch.export` (MLflow's
    `serialization_format="pt2"`) may stay where all that is pickled in them are tensors.
    """
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if _is_exported_program(path) if path.suffix.lower() == ".pt2" else not _holds_pickle(path):
            continue
        raise ContractError(
            f"{model} holds a pickle ({path.relative_to(folder).as_posix()}), which runs code when it is read; log a "
            f'PyTorch module with serialization_format="pt2", or save the weights as safetensors and log the model from '
            f"code (jobs/served_network.py does so)"
        )


def _holds_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(4)
    names = []
    if head == b"PK\x03\x04" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    return (
        path.suffix.lower() in PICKLE_SUFFIXES
        or _PICKLE.match(head) is not None
        or any(Path(name).suffix.lower() in PICKLE_SUFFIXES for name in names)
    )


def _is_exported_program(path: Path) -> bool:
    """Whether a file is a program of torch.export with nothing in it that runs when it is read, compiled code included."""
    # MLflow has this for its own loading, which leaves it out where its environment says that pickles are welcome.
    from mlflow.exceptions import MlflowException
    from mlflow.pytorch import _validate_pt2_archive_is_pickle_free

    try:
        _validate_pt2_archive_is_pickle_free(str(path))
    except MlflowException as error:
        log.info("%s: %s", path, error)
        return False
    return True


def load_predictor(folder: Path, device: str, runtime: str = "torch") -> Predictor:
    """Load a model from its files; no registry is asked.

    Args:
        folder: the model's artifacts, as MLflow stores them.
        device: "cpu" or "cuda:N", passed to the model as its configuration. A program of torch.export runs where it was
            exported, whatever is asked for.
        runtime: what its code should run the network with on a CPU, passed likewise; models that know of no choice (no
            `runtime` in the configuration they were logged with) run as they do.
    """
    import mlflow.pyfunc  # heavy, and needed only where a model really runs
    from mlflow.models import Model

    # Models that take a device in their configuration get it there; MLflow's own PyTorch flavour reads the variable.
    os.environ["MLFLOW_DEFAULT_PREDICTION_DEVICE"] = device
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    flavour = Model.load(str(folder)).flavors.get("python_function", {})
    taken = flavour.get("config") or {}
    if runtime != "torch" and "runtime" not in taken:
        log.warning("%s: its code knows of no choice of runtime and does not run with %s", folder, runtime)
    config = {key: value for key, value in (("device", device), ("runtime", runtime)) if key in taken}
    try:
        with warnings.catch_warnings():
            # torch.export says so of each program that it reads.
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            predictor: Predictor = mlflow.pyfunc.load_model(str(folder), model_config=config or None)
    except mlflow.exceptions.MlflowException as error:
        if device == "cpu" or "torch.export" not in str(error):
            raise
        log.warning("%s: exported for a CPU and so runs there, not on %s; log it from there for speed", folder, device)
        return load_predictor(folder, "cpu", runtime)
    return predictor
