"""What runs a network's layers on a CPU in place of PyTorch. Importing this module imports none of them."""

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from models.checkpoint import Network

RUNTIMES = ("torch", "openvino")


def openvino_model(network: "Network") -> Any:
    """What follows a network's front end as an `openvino.Model`, for batches of any size.

    Args:
        network: in evaluation mode.

    Raises:
        ModuleNotFoundError: OpenVINO is not installed.
    """
    if importlib.util.find_spec("openvino") is None:
        raise ModuleNotFoundError("runtime openvino: expected the package openvino; pip install 'auscult[openvino]'")
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


def compiled_by_openvino(network: "Network", *, bf16: bool) -> Callable[..., "torch.Tensor"]:
    """What follows a network's front end, run by OpenVINO on the CPU with as many threads as PyTorch has.

    Args:
        network: in evaluation mode.
        bf16: compute in bfloat16; in float32, log-probabilities stay within 1e-5 of PyTorch's.

    Returns:
        A function that takes what `hear` gives and returns log-probabilities (b, k), for one thread at a time.

    Raises:
        ModuleNotFoundError: OpenVINO is not installed.
    """
    model = openvino_model(network)
    import openvino
    import torch

    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
    }
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()

    def run(*heard: "torch.Tensor") -> "torch.Tensor":
        answer = request.infer([part.numpy() for part in heard], share_inputs=True)
        return torch.from_numpy(answer[0])  # its own memory: the next call does not touch it

    return run
