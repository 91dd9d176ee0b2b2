"""Registers weights as a new version of a model and moves an alias to it.

Reads: a safetensors file (`--weights`, default the shipped one) or a training run (`--run-id`).
Writes: a run and a model version in MLflow.
Launch: spark-submit jobs/register.py [--weights FILE | --run-id ID] [--name NAME] [--alias ALIAS]
Takes: seconds (the first time about 15 more, in which MLflow prepares its database).
"""

import argparse
import hashlib
from pathlib import Path

from jobs import registry
from jobs.launch import SHIPPED_MODEL, AuscultError, log, run
from models import checkpoint
from udfs.contract import ModelContract

WEIGHTS_ARTIFACT = "audio-artifacts.safetensors"


def contract_of(weights: Path) -> ModelContract:
    """The contract of a CNN6 weights file.

    Raises:
        AuscultError: the file is missing or is not one.
    """
    try:
        config = checkpoint.load(weights).config
    except FileNotFoundError as error:
        raise AuscultError(f"weights {weights}: there is no such file") from error
    except Exception as error:  # safetensors has no public error class of its own
        raise AuscultError(f"weights {weights}: {error}") from error
    return ModelContract(
        sample_rate_hz=config.sample_rate_hz,
        segment_s=config.segment_s,
        hop_s=config.segment_s,
        labels=config.labels,
        clean_labels=config.labels[:1],
    )


def register(weights: Path, name: str, alias: str, run_id: str | None = None) -> str:
    """Log weights as a model, register it as the next version and point the alias at it.

    A version with the same weights is not registered twice; the alias moves to it all the same.

    Returns:
        The version's number.
    """
    contract = contract_of(weights)
    experiment = registry.prepare_store()
    client = registry.client()
    import mlflow
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.tags.get("weights_sha256") == digest:
            client.set_registered_model_alias(name, alias, version.version)
            log.info("%s/%s already has these weights; @%s points at it", name, version.version, alias)
            return str(version.version)
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("float32"), (-1, contract.segment_samples))]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, len(contract.labels)))]),
    )
    with mlflow.start_run(run_id=run_id, experiment_id=None if run_id else experiment, run_name=f"register {name}"):
        logged = mlflow.pyfunc.log_model(
            name=name,
            python_model=str(Path(__file__).with_name("served_cnn6.py")),
            artifacts={"weights": str(weights)},
            signature=signature,
            metadata=contract.to_metadata(),
            model_config={"device": "cpu"},  # the scan overrides it where a task has a GPU
            # The network's code is this package; what else it needs follows from its pins.
            pip_requirements=["auscult"],
        )
    version = mlflow.register_model(logged.model_uri, name, tags={"weights_sha256": digest})
    client.set_registered_model_alias(name, alias, version.version)
    registry.check(registry.resolve([f"models:/{name}/{version.version}"]))
    return str(version.version)


def main(argv: list[str]) -> int:
    """Register weights, print the version."""
    parser = argparse.ArgumentParser(prog="register.py", description=(__doc__ or "").split("\n\n")[0])
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--weights", type=Path, default=checkpoint.SHIPPED, help="safetensors file (default: shipped)")
    source.add_argument("--run-id", help="MLflow run of jobs/train.py whose best weights to register")
    parser.add_argument("--name", default=SHIPPED_MODEL, help="registered model name")
    parser.add_argument("--alias", default="champion", help="alias to point at the new version")
    options = parser.parse_args(argv)
    weights = options.weights
    if options.run_id:
        weights = _weights_of_run(options.run_id)
    version = register(weights, options.name, options.alias, options.run_id)
    print(f"models:/{options.name}/{version} is registered at {registry.tracking_uri()}; @{options.alias} points at it")
    return 0


def _weights_of_run(run_id: str) -> Path:
    registry.client()
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=WEIGHTS_ARTIFACT))
    except (MlflowException, OSError) as error:
        raise AuscultError(f"run {run_id}: no {WEIGHTS_ARTIFACT} to be had from it: {error}") from error


if __name__ == "__main__":
    run(main)
