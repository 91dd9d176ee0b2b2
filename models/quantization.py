"""What a network needs to know to run in int8: how large the numbers are that come into its layers.

Post-training quantisation with a range for each layer, after Jacob et al., "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference" (2018): weights have a scale for each output channel, activations one for each
layer. `models.runtimes` applies it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from models.checkpoint import Network
from models.serving import fold_batch_norm

MOST_SEGMENTS = 256
# Of the numbers that come into a layer: a range for the few beyond would make the steps coarse for all others.
WITHIN = (1e-4, 1.0 - 1e-4)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d)
MOST_LEFT_OUT = 3  # blocks, before a network is left in float32 altogether
Ranges = dict[str, tuple[float, float]]  # lowest and highest value by name of the layer


def activation_ranges(network: Network, segments: torch.Tensor) -> Ranges:
    """Measure what comes into the convolutions that may run in int8: all but those that the network calls `exact`.

    Args:
        network: with its batch norms; they are folded for the measurement, as they are for serving.
        segments: real audio (b, n), with and without what the network looks for; `MOST_SEGMENTS` of them, drawn, are used.

    Returns:
        Lowest and highest value by name of the layer; empty for a network that gains nothing from int8.
    """
    if not network.gains_from_int8:
        return {}
    folded = fold_batch_norm(network).float()
    exact = {id(layer) for outer in folded.exact for layer in outer.modules()}
    found: Ranges = {}
    hooks = [
        layer.register_forward_pre_hook(_noting(name, found))
        for name, layer in folded.named_modules()
        if isinstance(layer, CONVOLUTIONS) and id(layer) not in exact
    ]
    chosen = segments[torch.randperm(len(segments), generator=torch.Generator().manual_seed(0))[:MOST_SEGMENTS]]
    with torch.inference_mode():
        for part in chosen.split(folded.few):
            folded.classify(*folded.hear(part))
    for hook in hooks:
        hook.remove()
    return found


def _noting(name: str, found: Ranges) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def note(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        low, high = np.quantile(inputs[0].numpy(), WITHIN)
        before = found.get(name, (0.0, 0.0))
        found[name] = min(before[0], float(low)), max(before[1], float(high))

    return note


def within_loss(ranges: Ranges, figure_of: Callable[[Ranges], float], least: float) -> tuple[Ranges, float]:
    """The ranges of those blocks that can run in int8 while a figure stays, the most sensitive ones left out one by one.

    Args:
        ranges: of all layers (`activation_ranges`).
        figure_of: what the network reaches with some of these ranges; the larger the better.
        least: what it must reach.

    Returns:
        The ranges kept, and the figure with them; no ranges where the figure is missed without `MOST_LEFT_OUT` blocks, too.

    >>> costs = {"first.conv": 0.02, "second.conv": 0.001, "third.conv": 0.004}
    >>> kept, figure = within_loss(dict.fromkeys(costs, (0.0, 1.0)), lambda some: 0.9 - sum(costs[name] for name in some), 0.897)
    >>> sorted(kept), round(figure, 3)
    (['second.conv'], 0.899)
    >>> within_loss(dict.fromkeys(costs, (0.0, 1.0)), lambda some: 0.89, 0.897)
    ({}, 0.89)
    """
    figure = figure_of(ranges)
    for _ in range(MOST_LEFT_OUT):
        blocks = sorted({_block(name) for name in ranges})
        if figure >= least or len(blocks) < 2:
            break
        tried = [{name: bounds for name, bounds in ranges.items() if _block(name) != block} for block in blocks]
        ranges, figure = max(((some, figure_of(some)) for some in tried), key=lambda pair: pair[1])
    return (ranges, figure) if figure >= least else ({}, figure)


def _block(layer: str) -> str:
    """Name of the block that a layer belongs to: contracting.3 for contracting.3.first.conv1."""
    return ".".join(layer.split(".")[:2])
