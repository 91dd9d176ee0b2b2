"""Registers the baselines whose libraries are installed, each as NAME@champion."""

import importlib.util

import mlflow
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from jobs import registry
from tests.bench.baselines import CODE, CONTRACT


def main() -> None:
    """Register those whose libraries are installed, each as NAME@champion."""
    experiment, client = registry.prepare_store(), registry.client()
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype("float32"), (-1, CONTRACT.segment_samples))]),
        Schema([TensorSpec(np.dtype("float32"), (-1, CONTRACT.frames, 1))]),
    )
    for name, code in CODE.items():
        if name == "sigclick" and importlib.util.find_spec("essentia") is None:
            print("sigclick: left out, Essentia is not installed (extra bench)")
            continue
        with mlflow.start_run(experiment_id=experiment, run_name=f"register {name}"):
            logged = mlflow.pyfunc.log_model(
                name=name,
                python_model=str(code),
                signature=signature,
                metadata=CONTRACT.to_metadata(),
                pip_requirements=["auscult"],
            )
        version = mlflow.register_model(logged.model_uri, name).version
        client.set_registered_model_alias(name, "champion", version)


if __name__ == "__main__":
    main()
