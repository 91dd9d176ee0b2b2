"""Click detectors of others, under the contract of ours: `make evaluate-clicks` judges them in the same run."""

from pathlib import Path

from models.hooknet import HookNetConfig
from udfs.contract import ModelContract

CONFIG = HookNetConfig(margin=2_048)  # adeclick looks at 55 ms at a time
MARGIN_S = CONFIG.margin / CONFIG.sample_rate_hz
CONTRACT = ModelContract(
    CONFIG.sample_rate_hz,
    CONFIG.segment_s,
    CONFIG.segment_s - 2 * MARGIN_S,
    ("click",),
    frames=CONFIG.frames,
    margin_s=MARGIN_S,
    event_score=0.1,
)
CODE = {name: Path(__file__).with_name(f"{name}.py") for name in ("adeclick", "sigclick")}
