"""Resolves models in the MLflow registry, once and on the driver, to versions, digests and files."""

import atexit
import logging
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.launch import AuscultError, home
from udfs.contract import ContractError, ModelContract, ShippedModel, try_out
from udfs.decoder_findings import DECODER
from udfs.model_files import digest_of, load_predictor, refuse_pickles

EXPERIMENT = "auscult"
_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


@dataclass(frozen=True)
class ResolvedModel:
    """A model version and its files on the driver."""

    shipped: ShippedModel
    folder: Path


def client() -> Any:
    """MLflow's client at `MLFLOW_TRACKING_URI`, else at the embedded store in the home folder.

    Raises:
        AuscultError: the server cannot be reached.
    """
    # An unreachable server is to be reported in seconds; MLflow's own defaults retry for many minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # five small files: noise in a log
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    import mlflow

    # Advice on logging models and news of database migrations; errors are raised, not logged.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    is_embedded = not os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(tracking_uri())
    if is_embedded:
        # MLflow exports what it was told; later calls must still see that the user chose no server.
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    return mlflow.MlflowClient()


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, else the embedded sqlite store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_embedded_store()}"


def _embedded_store() -> Path:
    return home() / "mlflow" / "mlflow.db"


def prepare_store() -> Any:
    """Create the embedded store and the experiment where they are missing; returns the experiment's id.

    The experiment's artifact location is absolute: MLflow's own default depends on the current directory.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        _embedded_store().parent.mkdir(parents=True, exist_ok=True)
    registry = client()
    experiment = registry.get_experiment_by_name(EXPERIMENT)
    if experiment is not None:
        return experiment.experiment_id
    location = None
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        location = (home() / "mlflow" / "artifacts").as_uri()
    return registry.create_experiment(EXPERIMENT, artifact_location=location)


def resolve(uris: list[str]) -> list[ResolvedModel]:
    """Resolve model URIs to versions, fetch their files and check that each fits its contract.

    Args:
        uris: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Raises:
        AuscultError: a URI is malformed, the registry cannot be reached, there is no such model,
            alias or version, or the model does not fit the contract.
    """
    parsed = []
    for uri in uris:
        match = _URI.fullmatch(uri)
        if match is None:
            raise AuscultError(f"model {uri!r}: expected models:/NAME@ALIAS or models:/NAME/VERSION")
        if match["name"] == DECODER.name:
            raise AuscultError(
                f"model {uri!r}: what the decoder finds comes with every scan and under this name; choose another"
            )
        parsed.append((uri, match["name"], match["alias"], match["version"]))
    if not os.environ.get("MLFLOW_TRACKING_URI") and not _embedded_store().exists():
        raise AuscultError(
            f"no model registry at {_embedded_store()}: run `make register` to register the shipped model there, "
            f"or set MLFLOW_TRACKING_URI to your MLflow server"
        )
    registry = client()
    resolved: dict[str, ResolvedModel] = {}
    for uri, name, alias, version in parsed:
        number = version or _version_of_alias(registry, uri, name, alias)
        model = _fetch(registry, uri, name, number)
        resolved.setdefault(model.shipped.key, model)
    return list(resolved.values())


def shipped(uris: list[str]) -> list[ShippedModel]:
    """What wrote stored scores: as `resolve`, and the decoder (models:/decoder/1), which is in no registry."""
    ours = f"models:/{DECODER.key}"
    others = [uri for uri in uris if uri != ours]
    found = [model.shipped for model in resolve(others)] if others else []
    return [*found, DECODER] if ours in uris else found


def _version_of_alias(registry: Any, uri: str, name: str, alias: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        return str(registry.get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        raise _unresolved(registry, uri, name, error) from error


def _unresolved(registry: Any, uri: str, name: str, error: Exception) -> AuscultError:
    """Say what there is instead of what was asked for."""
    from mlflow.exceptions import MlflowException

    reason = _without_passwords(str(error))
    if getattr(error, "error_code", "") not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"):
        return AuscultError(f"model {uri}: the registry at {_shown_uri()} cannot be reached or refuses: {reason[:300]}")
    try:
        model = registry.get_registered_model(name)
        aliases = ", ".join(f"@{alias} -> {number}" for alias, number in sorted(model.aliases.items())) or "none"
        versions = ", ".join(
            sorted((str(version.version) for version in registry.search_model_versions(f"name = '{name}'")), key=int)
        )
        return AuscultError(
            f"model {uri}: not in the registry; {name} has versions {versions or 'none'}, aliases {aliases}"
        )
    except MlflowException:
        names = sorted(found.name for found in registry.search_registered_models())
        return AuscultError(
            f"model {uri}: the registry at {_shown_uri()} has no model {name!r}; it has {', '.join(names) or 'none'}"
        )


def _shown_uri() -> str:
    """The registry's address without a password in it."""
    return _without_passwords(tracking_uri())


def _without_passwords(text: str) -> str:
    """One line without the user and password of any URL in it: MLflow's errors repeat the registry's address."""
    return re.sub(r"//[^/@\s]*@", "//", " ".join(text.split()))


def _fetch(registry: Any, uri: str, name: str, version: str) -> ResolvedModel:
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        registry.get_model_version(name, version)
    except MlflowException as error:
        raise _unresolved(registry, uri, name, error) from error
    folder = _temporary("model")
    try:
        mlflow.artifacts.download_artifacts(f"models:/{name}/{version}", dst_path=str(folder))
        metadata = mlflow.models.Model.load(str(folder)).metadata
    except (MlflowException, OSError) as error:
        raise AuscultError(
            f"model {uri}: its files cannot be fetched: {_without_passwords(str(error))[:300]}"
        ) from error
    # MLflow notes here where it was fetched from, which would change the digest from place to place.
    (folder / "registered_model_meta").unlink(missing_ok=True)
    key = f"{name}/{version}"
    try:
        contract = ModelContract.from_metadata(metadata, key)
        refuse_pickles(folder, key)
    except ContractError as error:
        raise AuscultError(str(error)) from error
    digest = digest_of(folder)
    archive = f"{re.sub(r'[^A-Za-z0-9_-]', '_', name)}-{version}-{digest[:16]}.zip"
    return ResolvedModel(ShippedModel(name, version, digest, archive, contract), folder)


def check(models: list[ResolvedModel], runtime: str = "torch") -> None:
    """Run each model on a few waveforms.

    Args:
        models: what `resolve` found.
        runtime: what is to run them on a CPU (`models.runtimes.RUNTIMES`).

    Raises:
        AuscultError: a model cannot be loaded, fails, or returns what its contract does not promise; the runtime is
            not installed.
    """
    for model in models:
        try:
            predictor = load_predictor(model.folder, "cpu", runtime)
        except ModuleNotFoundError as error:
            raise AuscultError(f"model {model.shipped.key}: {error}") from error
        except Exception as error:  # foreign code
            raise AuscultError(
                f"model {model.shipped.key} cannot be loaded by this version of the code: "
                f"{' '.join(str(error).split())[:300]}; choose another version, or register one (jobs/register.py)"
            ) from error
        try:
            try_out(predictor, model.shipped.contract, model.shipped.key)
        except ContractError as error:
            raise AuscultError(str(error)) from error


def ship(spark: Any, models: list[ResolvedModel]) -> None:
    """Distribute the models' files to the executors, which unpack them under the archive's name.

    The name holds the digest, so an archive that this session has shipped before is the same one.
    """
    from pyspark import SparkFiles

    for model in models:
        if os.path.exists(SparkFiles.get(model.shipped.archive)):
            continue
        # Executors fetch it when their first task begins, so it stays until this process ends.
        base = _temporary("ship") / model.shipped.archive.removesuffix(".zip")
        spark.addArtifacts(shutil.make_archive(str(base), "zip", root_dir=model.folder), archive=True)


def _temporary(what: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"auscult-{what}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
