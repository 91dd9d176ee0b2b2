"""Makes a trained network fast on the device at hand without changing what it says."""

import copy
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.checkpoint import Network
from models.precision import Exactly
from models.runtimes import RUNTIMES, compiled_by_openvino


def has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 matrix work is native on this device (else it is slower than float32)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported())


def has_int8() -> bool:
    """Whether this processor multiplies int8 exactly and fast (VNNI); without, sums of products may overflow."""
    return bool(torch.cpu._is_vnni_supported())


def fold_batch_norm(network: Network) -> Network:
    """Return a copy in evaluation mode whose convolutions carry their batch norms (modules with `conv1` and `bn1`).

    `bn0` stays: it precedes a zero-padded convolution, so it cannot be folded exactly.
    """
    folded = copy.deepcopy(network).eval()
    for module in folded.modules():
        if isinstance(getattr(module, "bn1", None), nn.BatchNorm1d | nn.BatchNorm2d):
            module.conv1 = fuse_conv_bn_eval(module.conv1, module.bn1)  # type: ignore[type-var,assignment,arg-type]
            module.bn1 = nn.Identity()
    return folded


def keep_exact(network: Network) -> None:
    """Make the layers that a network calls `exact` run in float32 whatever autocast says, in place.

    They are the first ones above all: little of the work, and most of bfloat16's error, since decibels have a wide
    range for its 8 bits.
    """
    exact = {id(layer) for layer in network.exact}
    for name, layer in list(network.named_modules()):
        if id(layer) in exact:
            parent, _, own_name = name.rpartition(".")
            setattr(network.get_submodule(parent), own_name, Exactly(layer))


class Classifier(nn.Module):
    """A network prepared for serving: (b, n) waveforms in, (b, k) or (b, frames, k) probabilities out.

    Args:
        network: a trained network.
        device: where to run.
        bf16: use bfloat16 in the convolutions; None takes it where the device has it natively and the network gains from
            it, which with OpenVINO's own bfloat16 every network does.
        runtime: one of `RUNTIMES`, what runs the layers behind the front end on a CPU.

    Raises:
        ValueError: an unknown runtime.
        ModuleNotFoundError: the runtime is not installed.

    Attributes:
        front_end_s: seconds that the network's front ends have taken so far; counted on a CPU only, since a GPU works on
            while its caller goes on.
    """

    def __init__(
        self, network: Network, device: torch.device, *, bf16: bool | None = None, runtime: str = "torch"
    ) -> None:
        super().__init__()
        if runtime not in RUNTIMES:
            raise ValueError(f"runtime: expected one of {', '.join(RUNTIMES)}, found {runtime!r}")
        self.device = device
        self.front_end_s = 0.0
        gains = network.gains_from_bf16 or device.type != "cpu" or runtime in ("openvino-bf16", "openvino-int8")
        self.bf16 = has_bf16(device) and gains if bf16 is None else bf16
        self.network = fold_batch_norm(network).to(device)
        self.classify: Callable[..., torch.Tensor] = self.network.classify
        if runtime != "torch" and device.type == "cpu":
            int8 = runtime == "openvino-int8" and bool(self.network.ranges) and has_int8()
            # OpenVINO has one precision for all that is not in int8, so that no layer can be kept exact.
            bf16 = self.bf16 and not int8 and not network.bf16_needs_exact
            self.classify = compiled_by_openvino(self.network, bf16=bf16, int8=int8)
        keep_exact(self.network)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Probabilities (b, k) or (b, frames, k) in float32 on the CPU."""
        if self.device.type == "cpu" and len(waveform) > self.network.few:
            return torch.cat([self(part) for part in waveform.split(self.network.few)])
        waveform = waveform.to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            started = time.perf_counter()
            heard = self.network.hear(waveform)
            if self.device.type == "cpu":
                self.front_end_s += time.perf_counter() - started
            log_probabilities = self.classify(*heard)
        return torch.exp(log_probabilities).float().cpu()
