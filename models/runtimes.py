"""What runs a network's layers on a CPU in place of PyTorch. Importing this module imports none of them."""

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from models.checkpoint import Network

RUNTIMES = ("torch", "openvino", "openvino-bf16", "openvino-int8")  # each at most as exact as the one before


def is_installed(runtime: str) -> bool:
    """Whether one of `RUNTIMES` can be had here."""
    return runtime == "torch" or importlib.util.find_spec("openvino") is not None


def openvino_model(network: "Network") -> Any:
    """What follows a network's front end as an `openvino.Model`, for batches of any size.

    Args:
        network: in evaluation mode.

    Raises:
        ModuleNotFoundError: OpenVINO is not installed.
    """
    if not is_installed("openvino"):
        raise ModuleNotFoundError(
            "runtime openvino: expected the package openvino, the wheel's extra of that name; pip install openvino"
        )
    import torch
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    class Decisions(torch.nn.Module):
        """`forward` without the front end; networks have it as a method."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *heard: torch.Tensor) -> torch.Tensor:
            return self.network.classify(*heard)

    config = network.config
    with torch.no_grad():
        example = network.hear(torch.zeros(2, round(config.segment_s * config.sample_rate_hz)))
    # OpenVINO's front end by itself and not its convert_model, which reports each conversion to a server on the net.
    front_end = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(Decisions().eval(), example_input=example)  # must outlive the conversion
    return front_end.convert(front_end.load(decoder))


def with_int8(model: Any, network: "Network") -> None:
    """Let the layers of which a network has measured ranges run in int8, in place; all others stay as they are.

    Args:
        model: what `openvino_model` made of the network.
        network: with its `ranges` (models.quantization); its batch norms are folded.

    Raises:
        ValueError: the model lacks layers that the network has ranges of.
    """
    import numpy as np
    import openvino.opset13 as ops

    def rounded(source: Any, low: Any, high: Any, levels: int) -> Any:
        return ops.fake_quantize(source, low, high, low, high, levels).output(0)

    found = set()
    for layer in model.get_ordered_ops():
        name = layer.get_friendly_name().split("/")[0].removeprefix("__module.network.")
        if name not in network.ranges or layer.get_type_name() not in ("Convolution", "ConvolutionBackpropData"):
            continue
        found.add(name)
        low, high = network.ranges[name]
        if low < 0.0:  # -128 to 127 steps
            step = max(-low / 128, high / 127)
            low, high = -128 * step, 127 * step
        is_transposed = layer.get_type_name() == "ConvolutionBackpropData"
        weight = network.get_parameter(f"{name}.weight").detach().cpu().numpy()
        inputs = tuple(axis for axis in range(weight.ndim) if axis != (1 if is_transposed else 0))
        largest = np.abs(weight).max(axis=inputs, keepdims=True).clip(1e-12)
        heard = rounded(layer.input_value(0), np.float32(low), np.float32(high), 256)
        weights = rounded(layer.input_value(1), -largest, largest, 255)
        layer.input(0).replace_source_output(heard)
        layer.input(1).replace_source_output(weights)
    if missing := network.ranges.keys() - found:
        raise ValueError(f"openvino: expected the layers {sorted(missing)}, found none of these names in its model")
    model.validate_nodes_and_infer_types()


def compiled_by_openvino(network: "Network", *, bf16: bool, int8: bool = False) -> Callable[..., "torch.Tensor"]:
    """What follows a network's front end, run by OpenVINO on the CPU with as many threads as PyTorch has.

    Args:
        network: in evaluation mode, its batch norms folded.
        bf16: compute in bfloat16; in float32, log-probabilities stay within 1e-5 of PyTorch's.
        int8: compute the layers of which the network has ranges in int8.

    Returns:
        A function that takes what `hear` gives and returns log-probabilities (b, k), for one thread at a time.

    Raises:
        ModuleNotFoundError: OpenVINO is not installed.
    """
    model = openvino_model(network)
    if int8:
        with_int8(model, network)
    import openvino
    import torch

    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        # Each process would pin its threads to the first cores: the workers of a machine all to the same ones.
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
    }
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()

    def run(*heard: "torch.Tensor") -> "torch.Tensor":
        answer = request.infer([part.numpy() for part in heard], share_inputs=True)
        return torch.from_numpy(answer[0])  # its own memory: the next call does not touch it

    return run
