"""The MLflow model of a trained network ("models from code": this file is stored with the weights)."""

from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.pyfunc import PythonModel, PythonModelContext

from models import checkpoint
from models.serving import Classifier


class ServedNetwork(PythonModel):
    """Waveforms float32 (batch, samples) in, probabilities float32 (batch, labels) out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the weights and prepare them for the device and the runtime in the model's configuration."""
        config = context.model_config or {}
        device, runtime = torch.device(config.get("device", "cpu")), config.get("runtime", "torch")
        self.classifier = Classifier(checkpoint.load(context.artifacts["weights"]), device, runtime=runtime)

    @property
    def front_end_s(self) -> float:
        """Seconds that the front ends took so far; the scanner counts them apart (udfs/stages.py)."""
        return self.classifier.front_end_s

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """Score a batch."""
        return self.classifier(torch.from_numpy(np.ascontiguousarray(model_input))).numpy()


mlflow.models.set_model(ServedNetwork())
