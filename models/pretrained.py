"""What a training begins with: weights of this project, for the same defects or others, or a public PANNs checkpoint."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from models import checkpoint
from models.checkpoint import Network

OUTPUT_LAYER = {"cnn6": "fc_audioset", "dscnn": "fc_out"}  # of networks with a class an output
TORCH_SAVED = (b"PK", b"\x80\x02")  # how what torch.save wrote begins: an archive, before PyTorch 1.6 a pickle
FIXED = ("spectrogram_extractor.", "logmel_extractor.")  # PANNs' front end, which is no weight
# A PANNs checkpoint has its sampler's state beside the weights, in arrays of NumPy. To make those runs no code of the file.
_ARRAYS: list[Any] = [
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("bool", "int32", "int64", "float32", "float64")),
    *(
        (made.__reduce__()[0], f"numpy.{core}.multiarray.{name}")
        for made, name in ((np.zeros(1), "_reconstruct"), (np.float64(0.0), "scalar"))
        for core in ("core", "_core")  # before NumPy 2, and since
    ),
]


def begin(architecture: str, config: dict[str, Any], path: Path) -> Network:
    """A network that begins with the weights of a file.

    Of weights of this project it takes all. Where its classes are others than theirs, the output layer begins at random,
    but for the classes that both have. Of PANNs' Cnn6 (Kong et al., "PANNs", 2020; `Cnn6_mAP=0.343.pth`) it takes what the
    Audio Artifacts paper does, all but the output layer; the batch norm of 64 mel bands is stretched over its own.

    Args:
        architecture: a key of `models.checkpoint.ARCHITECTURES`.
        config: values of its configuration other than the file's (of a PANNs checkpoint: than the defaults).
        path: weights as `models.checkpoint.save` or PANNs write them.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is neither, or has weights of another architecture or shape.
    """
    labels: tuple[str, ...] = ()
    with path.open("rb") as file:
        is_panns = file.read(2) in TORCH_SAVED
    if is_panns:
        if architecture != "cnn6":
            raise ValueError(
                f"{path}: expected weights of {architecture}, found a checkpoint of PyTorch: only cnn6 begins so"
            )
        network = checkpoint.build(architecture, config)
        weights = _read_panns(path, network.state_dict())
    else:
        given = checkpoint.load(path)
        if (found := checkpoint.architecture_of(given)) != architecture:
            raise ValueError(f"{path}: expected weights of {architecture}, found {found}")
        network = checkpoint.build(architecture, {**given.config.to_dict(), **config})
        weights, labels = given.state_dict(), given.config.labels
    try:
        if architecture in OUTPUT_LAYER and labels != network.config.labels:
            weights |= _output_layer(network, weights, labels, OUTPUT_LAYER[architecture])
        network.load_state_dict(weights)
    except RuntimeError as error:
        said = str(error).splitlines()[:2][-1].strip()  # below a headline, where there are several
        raise ValueError(f"{path}: does not fit the settings' network {config}: {said}") from error
    return network


def _output_layer(
    network: Network, weights: dict[str, torch.Tensor], labels: tuple[str, ...], layer: str
) -> dict[str, torch.Tensor]:
    """The network's own output layer, with the given rows for the labels that were known before."""
    own = {name: network.state_dict()[name].clone() for name in (f"{layer}.weight", f"{layer}.bias")}
    for row, label in enumerate(network.config.labels):
        if label in labels:
            for name, tensor in own.items():
                tensor[row] = weights[name][labels.index(label)]
    return own


def _read_panns(path: Path, own: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of a PANNs checkpoint, under the names and in the shapes of a CNN6's own."""
    try:
        with torch.serialization.safe_globals(_ARRAYS):
            saved = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path}: expected a checkpoint of PyTorch; it is damaged, cut off or something else"
        ) from error
    except pickle.UnpicklingError as error:
        _, _, reason = str(error).rpartition("WeightsUnpickler error: ")
        raise ValueError(
            f"{path}: cannot be read without running what is in it ({' '.join(reason.split())[:200]}); where you trust it, "
            'save its weights alone: torch.save({"model": torch.load(PATH, weights_only=False)["model"]}, OTHER)'
        ) from error
    weights = saved.get("model", saved) if isinstance(saved, dict) else {}
    weights = {name: tensor for name, tensor in weights.items() if not str(name).startswith(FIXED)}
    if missing := sorted(own.keys() - weights.keys()):
        raise ValueError(f"{path}: expected a checkpoint of PANNs' Cnn6, found none of its weights {missing[0]}")
    for name, tensor in weights.items():
        if name.startswith("bn0.") and name in own and tensor.ndim:
            weights[name] = functional.interpolate(
                tensor[None, None].float(), own[name].shape, mode="linear", align_corners=True
            )[0, 0]
    return weights
