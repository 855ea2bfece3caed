"""The optimizers: who moves which parameter, and that all of it is saved and comes back."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wavediff.checkpoint import Checkpoint
from wavediff.network import BandNet, NetworkConfig
from wavediff.optimizers import SMALLEST, Optimizers
from wavediff.prior import PriorConfig, PriorNet
from wavediff.recipe import Recipe

BANDED = NetworkConfig(
    window=64, hop=32, bands=4, channels=16, layers=2, cycle=2, mixing=4, summary=4
)


def prior() -> PriorNet:
    torch.manual_seed(0)
    made = PriorNet(PriorConfig(channels=16, layers=2, cycle=2, labels=("a", "b")), 20, 8)
    with torch.no_grad():
        made.centre.fill_(0.7)
        made.spread.fill_(1.3)
    return made


def banded() -> BandNet:
    torch.manual_seed(0)
    return BandNet(BANDED)


def gradients(network: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn(parameter.shape, generator=generator)


def run(network: nn.Module, made: Optimizers, steps: range, rate: float = 1e-2) -> None:
    for step in steps:
        made.zero_grad()
        gradients(network, step)
        made.step(rate)


def saved(made: Optimizers) -> Checkpoint:
    return Checkpoint(Recipe(), {key: t.clone() for key, t in made.tensors().items()}, {})


def values(network: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def held(optimizer: torch.optim.Optimizer) -> set[int]:
    return {id(p) for group in optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize("make", [prior, banded])
def test_each_parameter_has_one_optimizer(make: Any) -> None:
    network: nn.Module = make()
    made = Optimizers(network, True, 0.01)
    adamw, muon = (held(optimizer) for optimizer in made.each)
    names = {id(p): name for name, p in network.named_parameters()}
    assert not adamw & muon
    trainable = {id(p) for p in network.parameters() if p.requires_grad}
    assert adamw | muon == trainable
    for key in muon:
        assert names[key].startswith("blocks.")
        assert names[key].endswith(".weight")
    matrices = {
        name
        for name, p in network.named_parameters()
        if name.startswith("blocks.") and p.ndim == 2 and min(p.shape) >= SMALLEST
    }
    assert {names[key] for key in muon} == matrices
    assert len(matrices) >= 6
    (alone,) = Optimizers(network, False, 0.01).each
    assert held(alone) == trainable


def test_muon_makes_all_directions_of_a_step_alike_long() -> None:
    network = prior()
    made, before = Optimizers(network, True, 0.0), values(network)
    run(network, made, range(1))
    after = values(network)
    name = "blocks.0.dilated.weight"
    singular = torch.linalg.svdvals(after[name] - before[name])
    assert float(singular.max() / singular.min()) < 2.5
    entering = torch.linalg.svdvals(after["enter.weight"] - before["enter.weight"])
    assert float(entering.max() / entering.min()) > 2.5


def test_both_take_steps_of_one_rate() -> None:
    """Muon's steps are as long as AdamW's, and follow the rate alike."""
    sizes = []
    for rate in (1e-2, 1e-3):
        network = prior()
        made, before = Optimizers(network, True, 0.0), values(network)
        run(network, made, range(1), rate)
        moved = {
            name: float((p - before[name]).square().mean().sqrt())
            for name, p in network.named_parameters()
        }
        sizes.append((moved["blocks.0.dilated.weight"], moved["enter.weight"]))
    assert sizes[0][0] == pytest.approx(10 * sizes[1][0], rel=1e-2)
    assert sizes[0][1] == pytest.approx(10 * sizes[1][1], rel=1e-2)
    assert 0.1 < sizes[0][0] / sizes[0][1] < 1


@pytest.mark.parametrize("muon", [True, False])
def test_decay_shrinks_the_weights_and_not_what_is_frozen(muon: bool) -> None:
    network = prior()
    made, before = Optimizers(network, muon, 0.5), values(network)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    made.step(0.1)
    for name, parameter in network.named_parameters():
        factor = 0.95 if parameter.requires_grad else 1.0
        torch.testing.assert_close(parameter.detach(), factor * before[name])
    run(network, made, range(3))
    for name in ("centre", "spread"):
        assert torch.equal(getattr(network, name), before[name])
        assert not any(key.endswith(f".{name}") for key in made.tensors())


@pytest.mark.parametrize("make", [prior, banded])
@pytest.mark.parametrize("muon", [True, False])
def test_what_it_remembers_comes_back_exactly(make: Any, muon: bool) -> None:
    network: nn.Module = make()
    made = Optimizers(network, muon, 0.01)
    assert (made.updates, made.tensors()) == (0, {})
    run(network, made, range(4))
    assert made.updates == 4
    middle, kept = saved(made), saved(made).tensors
    weights = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    run(network, made, range(4, 7))

    again: nn.Module = make()
    again.load_state_dict(weights)
    other = Optimizers(again, muon, 0.01)
    other.restore(middle, 4)
    assert other.updates == 4
    assert all(torch.equal(t, middle.tensors[key]) for key, t in other.tensors().items())
    run(again, other, range(4, 7))
    assert other.updates == 7
    expected = values(network)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in values(again).items())
    assert other.tensors().keys() == made.tensors().keys()
    assert all(torch.equal(t, kept[key]) for key, t in middle.tensors.items())  # it was copied
