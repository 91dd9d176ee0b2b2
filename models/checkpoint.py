"""Weights on disk: safetensors with the network's configuration in the header, never pickle."""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from models.cnn6 import Cnn6, Cnn6Config

SHIPPED = Path(__file__).parent / "weights" / "audio-artifacts.safetensors"


def save(network: Cnn6, path: Path, *, half: bool = True) -> None:
    """Write the network's weights (float16 if `half`) and configuration to `path`."""
    weights = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).contiguous().cpu()
        for name, tensor in network.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path, metadata={"architecture": "cnn6", "config": json.dumps(network.config.to_dict())})


def load(path: Path) -> Cnn6:
    """Read a network that `save` wrote, in evaluation mode and float32.

    Raises:
        ValueError: the file is a safetensors file of something else.
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("architecture") != "cnn6":
            raise ValueError(
                f"{path}: expected weights of architecture cnn6 as models.checkpoint.save writes them, "
                f"found {metadata.get('architecture')!r}"
            )
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    network = Cnn6(Cnn6Config.from_dict(json.loads(metadata["config"])))
    network.load_state_dict(
        {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    )
    return network.eval().requires_grad_(False)


def parameter_count(network: torch.nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
