"""Click detectors of others, under the contract of ours: `make evaluate-clicks` judges them in the same run."""

from pathlib import Path

from models.hooknet import HookNetConfig
from udfs.contract import ModelContract

CONFIG = HookNetConfig()
MARGIN_S = CONFIG.margin / CONFIG.sample_rate_hz
CONTRACT = ModelContract(
    CONFIG.sample_rate_hz,
    CONFIG.segment_s,
    CONFIG.segment_s - 2 * MARGIN_S,
    ("click",),
    frames=CONFIG.frames,
    margin_s=MARGIN_S,
    event_score=0.1,
)
CODE = {name: Path(__file__).with_name(f"{name}.py") for name in ("adeclick", "sigclick")}


def main() -> None:
    """Register those whose libraries are installed, each as NAME@champion."""
    import importlib.util

    import mlflow
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    from jobs import registry

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
