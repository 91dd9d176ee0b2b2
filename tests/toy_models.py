"""Foreign models: registered as any ML engineer would, knowing nothing of this project but its contract."""

from pathlib import Path

import mlflow
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from jobs import registry
from udfs.contract import ModelContract

LEVEL = ModelContract(48_000, 1.0, 1.0, ("quiet", "loud"), ("quiet",))
FRAMES = ModelContract(16_000, 0.512, 0.256, ("low", "high"), (), "downmix")

LEVEL_CODE = """
import mlflow, numpy as np
class Level(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: np.ndarray, params=None) -> np.ndarray:
        loud = np.sqrt((model_input.astype(np.float64) ** 2).mean(axis=1)).clip(0, 1)
        return np.stack([1 - loud, loud], axis=1).astype(np.float32)
mlflow.models.set_model(Level())
"""

FRAMES_CODE = '''
import mlflow, numpy as np
class Frames(mlflow.pyfunc.PythonModel):
    """Energy below and above 2 kHz in 8 frames."""
    def predict(self, context, model_input: np.ndarray, params=None) -> np.ndarray:
        frames = model_input.reshape(len(model_input), 8, -1)
        power = np.abs(np.fft.rfft(frames, axis=2)) ** 2
        split = power.shape[2] // 4
        low, high = power[:, :, :split].sum(2), power[:, :, split:].sum(2)
        total = low + high + 1e-9
        return np.stack([low / total, high / total], axis=2).astype(np.float32)
mlflow.models.set_model(Frames())
'''


def register(folder: Path, name: str, code: str, metadata, samples: int, alias: str | None = "champion") -> str:
    """Log and register a model from code; returns its version."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / f"{name}.py"
    source.write_text(code)
    experiment = registry.prepare_store()
    client = registry.client()
    with mlflow.start_run(experiment_id=experiment):
        logged = mlflow.pyfunc.log_model(
            name=name,
            python_model=str(source),
            metadata=metadata,
            signature=ModelSignature(
                Schema([TensorSpec(np.dtype("float32"), (-1, samples))]),
                Schema([TensorSpec(np.dtype("float32"), (-1, -1))]),
            ),
            pip_requirements=["numpy"],
        )
    version = mlflow.register_model(logged.model_uri, name)
    if alias:
        client.set_registered_model_alias(name, alias, version.version)
    return str(version.version)


def register_level(folder: Path, alias: str | None = "champion") -> str:
    return register(folder, "level", LEVEL_CODE, LEVEL.to_metadata(), LEVEL.segment_samples, alias)


def register_frames(folder: Path) -> str:
    return register(folder, "frames", FRAMES_CODE, FRAMES.to_metadata(), FRAMES.segment_samples)
