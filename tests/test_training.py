"""Training itself: steps, kills, averages, what is seen again, several processes."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from signals import music_like

from models.replay import Replay
from models.segments import SegmentSource
from models.training import Phase, TrainingSettings
from models.training import train as train_network


def _files(folder):
    files = []
    for number in range(3):
        path = folder / f"{number}.npy"
        np.save(path, (music_like(3.0, 48_000, np.random.default_rng(number)) * 32767).astype(np.int16))
        files.append(path)
    return files


def killed_before_step_4_is_saved(step, metrics):
    if step == 4:
        raise KeyboardInterrupt


def test_replays_cost_no_simulation(tmp_path):
    source = SegmentSource(_files(tmp_path), 48_000)
    settings = TrainingSettings(
        batch_segments=6,
        phases=(Phase(0.25, 3), Phase(0.5, 4)),
        validation_segments=6,
        validate_every_steps=7,
        replays=2,
        loader_workers=0,
    )
    losses = {}
    _network, result = train_network(
        source,
        source,
        settings,
        tmp_path / "work",
        lambda step, metrics: losses.update({step: metrics["loss"]}),
        torch.device("cpu"),
    )
    assert losses.keys() == {7}
    assert np.isfinite(losses[7])
    assert (result["segments_seen"], result["segments_simulated"]) == (42, 18)


def test_a_killed_training_goes_on_where_it_was(tmp_path):
    files = _files(tmp_path)
    settings = TrainingSettings(
        batch_segments=6, phases=(Phase(0.25, 4),), validation_segments=6, validate_every_steps=2, seed=3
    )
    source = lambda: SegmentSource(files, 48_000)  # noqa: E731
    device = torch.device("cpu")
    losses: dict = {}

    def note(step, metrics):
        losses[step] = metrics["loss"]

    whole, _result = train_network(source(), source(), settings, tmp_path / "whole", note, device)
    undisturbed = dict(losses)
    losses.clear()

    with pytest.raises(KeyboardInterrupt):
        train_network(source(), source(), settings, tmp_path / "again", killed_before_step_4_is_saved, device)
    network, result = train_network(source(), source(), settings, tmp_path / "again", note, device)
    assert losses == {4: pytest.approx(undisturbed[4], rel=1e-3)}
    assert result["segments_seen"] == 24
    for (name, kept), expected in zip(network.state_dict().items(), whole.state_dict().values(), strict=True):
        torch.testing.assert_close(kept, expected, rtol=1e-2, atol=1e-3, msg=name)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_what_is_kept_is_the_average_of_the_last_steps(tmp_path, decay):
    settings = TrainingSettings(
        batch_segments=6, phases=(Phase(0.25, 8),), validation_segments=6, validate_every_steps=1, loader_workers=0,
        ema_decay=decay,
    )  # fmt: skip
    source = SegmentSource(_files(tmp_path), 48_000)
    steps: dict = {}

    def note(step, metrics):
        if step > 1:  # the state of the step before
            steps[step - 1] = torch.load(tmp_path / "work" / "state.pt", weights_only=True)

    train_network(source, source, settings, tmp_path / "work", note, torch.device("cpu"))
    steps[8] = torch.load(tmp_path / "work" / "state.pt", weights_only=True)
    weights = [decay ** (8 - step) * (1 - decay) for step in (5, 6, 7, 8)]  # by when the average is that long
    for name, parameter in steps[8]["averaged"].items():
        if parameter.is_floating_point():
            expected = sum(w * steps[step]["network"][name] for step, w in zip((5, 6, 7, 8), weights, strict=True))
            expected = expected + decay**4 * steps[4]["averaged"][name]
            torch.testing.assert_close(parameter, expected, rtol=1e-3, atol=1e-5, msg=name)
        else:
            assert parameter == steps[8]["network"][name]


def test_what_was_simulated_before_a_kill_counts(tmp_path):
    source = SegmentSource(_files(tmp_path), 48_000)
    settings = TrainingSettings(
        batch_segments=6, phases=(Phase(0.25, 6),), validation_segments=6, validate_every_steps=2, replays=2,
        loader_workers=0,
    )  # fmt: skip

    rest = (source, source, settings, tmp_path / "work")
    with pytest.raises(KeyboardInterrupt):
        train_network(*rest, killed_before_step_4_is_saved, torch.device("cpu"))
    _network, result = train_network(*rest, lambda step, metrics: None, torch.device("cpu"))
    # Of the first two steps one; what is replayed is lost with the process, so the third is simulated, and the sixth.
    assert (result["segments_seen"], result["segments_simulated"]) == (36, 18)


def test_segments_come_again_at_another_level_with_their_targets():
    rng = torch.Generator().manual_seed(1)
    kept = Replay(5, torch.device("cpu"), seed=2)
    last: list[torch.Tensor] = []
    for _ in range(4):
        batch = torch.randn(3, 64, generator=rng)
        last += batch
        kept.add(batch, batch[:, 0])  # a target that tells which segment it belongs to
    segments, targets = kept.draw(400)
    seen, factors = set(), []
    for segment, target in zip(segments, targets, strict=True):
        [place] = [number for number, known in enumerate(last) if known[0] == target]
        seen.add(place)
        factor = segment / last[place]
        assert torch.allclose(factor, factor[0].expand(64), rtol=1e-4)
        factors.append(float(factor[0]))
    assert seen == set(range(7, 12))  # the latest five
    assert 0.49 < min(map(abs, factors)) < 0.6 < 0.9 < max(map(abs, factors)) <= 1.0
    assert {np.sign(factor) for factor in factors} == {-1, 1}
    kept.add(torch.ones(2, 32), torch.ones(2))  # shorter ones
    assert kept.draw(9)[0].shape == (9, 32)


def test_batch_norm_over_two_processes_is_that_over_all_segments(tmp_path):
    # gloo in two threads is not to be had; two processes of this interpreter are.

    script = tmp_path / "halves.py"
    script.write_text(
        "import sys, torch\n"
        "from torch import distributed, nn\n"
        "from models.distributed import synced\n"
        "rank = int(sys.argv[1])\n"
        "distributed.init_process_group('gloo', init_method=f'file://{sys.argv[2]}', rank=rank, world_size=2)\n"
        "torch.manual_seed(0)\n"
        "whole, target = torch.randn(6, 3, 4, 5) * 5 - 60, torch.randn(6, 3, 4, 5)\n"
        "expected = nn.Sequential(nn.BatchNorm2d(3))\n"
        "found = synced(nn.Sequential(nn.BatchNorm2d(3)), torch.device('cpu'))\n"
        "mine = slice(3 * rank, 3 * rank + 3)\n"
        "x, y = whole.clone().requires_grad_(), whole[mine].clone().requires_grad_()\n"
        "a, b = expected(x), found(y)\n"
        "(a * target).sum().backward(); (b * target[mine]).sum().backward()\n"
        "torch.testing.assert_close(b, a[mine], rtol=1e-4, atol=1e-4)\n"
        "torch.testing.assert_close(y.grad, x.grad[mine], rtol=1e-3, atol=1e-4)\n"
        "for name, value in expected.state_dict().items():\n"
        "    torch.testing.assert_close(found.state_dict()[name], value, rtol=1e-4, atol=1e-4)\n"
        "found.eval(), expected.eval()\n"
        "torch.testing.assert_close(found(y), expected(x)[mine])\n"
    )
    halves = [
        subprocess.Popen([sys.executable, str(script), str(rank), str(tmp_path / "meet")], stderr=subprocess.PIPE)
        for rank in (0, 1)
    ]
    for half in halves:
        _, errors = half.communicate(timeout=120)
        assert half.returncode == 0, errors.decode()
