"""Layers that keep the precision of their inputs whatever the rest of a network runs in."""

import torch
from torch import nn


def exactly(layer: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
    """What a layer makes of its inputs in float32, under autocast and on a GPU too.

    A sample in bfloat16 has lost what lies 54 dB under it, and in TF32, which cuDNN takes for float32 unless told
    otherwise, what lies 72 dB under it: a faint click, and what some damaged frames change.
    """
    device = inputs[0].device.type
    with torch.autocast(device, enabled=False):
        floats = [x.float() for x in inputs]
        if device != "cuda":
            return layer(*floats)
        benchmark = torch.backends.cudnn.benchmark
        with torch.backends.cudnn.flags(enabled=True, benchmark=benchmark, allow_tf32=False):
            return layer(*floats)


class Exactly(nn.Module):
    """A layer that always runs `exactly`."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the layer makes of `x`."""
        return exactly(self.layer, x)
