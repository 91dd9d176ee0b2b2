"""Training in several processes: what they share, so that N of them learn what one would."""

from typing import TypeVar

import torch
from torch import distributed, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

T = TypeVar("T")


def rank() -> int:
    """Number of this process among those that train together; 0 where there is one."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def summed(values: torch.Tensor) -> torch.Tensor:
    """The sum of `values` over all processes."""
    if not distributed.is_initialized():
        return values
    if distributed.get_backend() == "nccl" and not values.is_cuda:  # NCCL knows no other memory
        return summed(values.cuda()).to(values.device)
    distributed.all_reduce(values)
    return values


def from_first(value: T) -> T:
    """What the first process has, in all of them."""
    if not distributed.is_initialized():
        return value
    held = [value]
    distributed.broadcast_object_list(held)
    return held[0]


class SyncedBatchNorm(_BatchNorm):
    """Batch norm over the batches of all processes. PyTorch's own `SyncBatchNorm` is for GPUs only."""

    def _check_input_dim(self, input: torch.Tensor) -> None:
        pass

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise (b, c, ...) by the mean and variance of each channel c."""
        if not self.training:
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            x = input.double()  # decibels squared and summed need more than float32 has
            axes = [axis for axis in range(x.dim()) if axis != 1]
            count = torch.full((1,), x.numel() / x.shape[1], dtype=x.dtype, device=x.device)
            sums = all_reduce(torch.cat([x.sum(dim=axes), x.square().sum(dim=axes), count]))
            mean, square = (sums[:-1] / sums[-1]).chunk(2)
            variance = (square - mean.square()).clamp(min=0.0)
            self._remember(mean.detach(), variance.detach() * sums[-1] / (sums[-1] - 1))
            shape = [1, -1] + [1] * (x.dim() - 2)
            x = (x - mean.view(shape)) * torch.rsqrt(variance + self.eps).view(shape)
            return (x * self.weight.view(shape) + self.bias.view(shape)).to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        momentum = self.momentum if self.momentum is not None else 0.1
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)
        self.num_batches_tracked += 1


def synced(network: nn.Module, device: torch.device) -> nn.Module:
    """`network` with batch norms that look at the batches of all processes; its weights stay the same objects."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for name, child in network.named_children():
        if isinstance(child, _BatchNorm):
            replacement = SyncedBatchNorm(child.num_features, child.eps, child.momentum)
            replacement.weight, replacement.bias = child.weight, child.bias
            for buffer in ("running_mean", "running_var", "num_batches_tracked"):
                setattr(replacement, buffer, getattr(child, buffer))
            setattr(network, name, replacement)
        else:
            synced(child, device)
    return network
