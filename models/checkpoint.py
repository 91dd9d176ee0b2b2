"""Weights on disk: safetensors with the network's configuration in the header, never pickle."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from models.cnn6 import Cnn6, Cnn6Config
from models.dscnn import DsCnn, DsCnnConfig
from models.hooknet import HookNet, HookNetConfig

Network = Cnn6 | DsCnn | HookNet
ARCHITECTURES: dict[str, tuple[type[Network], Any]] = {
    "cnn6": (Cnn6, Cnn6Config),
    "dscnn": (DsCnn, DsCnnConfig),
    "hooknet": (HookNet, HookNetConfig),
}

WEIGHTS = Path(__file__).parent / "weights"
SHIPPED = WEIGHTS / "audio-artifacts.safetensors"  # the default detector (dscnn)
SHIPPED_CNN6 = WEIGHTS / "audio-artifacts-cnn6.safetensors"  # the paper's network


def build(architecture: str, config: dict[str, Any] | None = None) -> Network:
    """A network with random weights.

    Args:
        architecture: a key of `ARCHITECTURES`.
        config: values of its configuration other than the defaults.
    """
    network, configuration = ARCHITECTURES[architecture]
    return network(configuration.from_dict({**configuration().to_dict(), **(config or {})}))  # type: ignore[arg-type]


def architecture_of(network: Network) -> str:
    """The name of a network's architecture."""
    return next(name for name, (kind, _) in ARCHITECTURES.items() if type(network) is kind)


def save(network: Network, path: Path, *, half: bool = True) -> None:
    """Write the network's weights (float16 if `half`), architecture, configuration and ranges to `path`."""
    weights = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).contiguous().cpu()
        for name, tensor in network.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"architecture": architecture_of(network), "config": json.dumps(network.config.to_dict())}
    if network.ranges:
        metadata["ranges"] = json.dumps(network.ranges)
    save_file(weights, path, metadata=metadata)


def load(path: Path) -> Network:
    """Read a network that `save` wrote, in evaluation mode and float32.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no safetensors file, one of something else, or of another version of the architecture.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise ValueError(f"{path}: expected a safetensors file, found something else ({error})") from error
    if metadata.get("architecture") not in ARCHITECTURES:
        raise ValueError(
            f"{path}: expected weights of architecture {' or '.join(ARCHITECTURES)} as models.checkpoint.save "
            f"writes them, found {metadata.get('architecture')!r}"
        )
    try:
        network = build(metadata["architecture"], json.loads(metadata["config"]))
        network.load_state_dict(
            {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
        )
    except (RuntimeError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path}: weights of another version of {metadata['architecture']} than this one; train or register anew "
            f"({' '.join(str(error).split())[:200]})"
        ) from error
    network.ranges = {name: (low, high) for name, (low, high) in json.loads(metadata.get("ranges", "{}")).items()}
    return network.eval().requires_grad_(False)


def parameter_count(network: torch.nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
