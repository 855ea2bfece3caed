"""The prior's network: what it sees of a mel, and how it takes labels."""

from functools import lru_cache

import pytest
import torch
from torch import Tensor

from wavediff.prior import PriorConfig, PriorNet

BANDS = 6


@lru_cache
def network(frames: int = 0, labels: tuple[str, ...] = ("a", "b"), cycle: int = 3) -> PriorNet:
    """One whose answer is not zero."""
    torch.manual_seed(2)
    made = PriorNet(PriorConfig(channels=8, layers=5, cycle=cycle, labels=labels), BANDS, frames)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    made.requires_grad_(False).spread.abs_().add_(0.1)
    return made


def frames_of(samples: int, items: int = 1) -> Tensor:
    return torch.randn(items, BANDS, samples, generator=torch.Generator().manual_seed(samples))


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def code(items: int = 1) -> Tensor:
    return torch.linspace(-0.7, 0.4, items)


@pytest.mark.parametrize("cycle", [1, 3, 5])
def test_its_receptive_field_is_what_it_says(cycle: int) -> None:
    net = network(cycle=cycle)
    reach = net.receptive_field
    x = frames_of(2 * reach + 21).requires_grad_()
    middle = reach + 10
    answer = net(x, None, code())[0, :, middle].sum()
    (gradient,) = torch.autograd.grad(answer, x)
    seen = gradient[0].abs().sum(0).nonzero()[:, 0] - middle
    assert (int(seen.min()), int(seen.max())) == (-reach, reach)


def test_without_a_length_it_answers_alike_everywhere() -> None:
    net, x = network(), frames_of(90)
    whole, part = net(x, None, code()), net(x[..., 20:], None, code())
    inner = slice(net.receptive_field, None)
    close(part[..., inner], whole[..., 20:][..., inner])


def test_a_one_shots_frames_know_where_they_are() -> None:
    net, same = network(frames=40), frames_of(1).expand(1, BANDS, 40)
    inner = slice(net.receptive_field, -net.receptive_field)
    answer = net(same, None, code())[..., inner]
    assert answer.shape[-1] > 10
    assert (answer.diff(dim=-1).abs().amax((0, 1)) > 1e-3).all()
    flat = network()(same, None, code())[..., inner]
    close(flat, flat[..., :1].expand_as(flat))


def test_no_label_is_all_of_them_at_zero() -> None:
    net, x = network(), frames_of(20, 2)
    free = net(x, None, code(2))
    assert torch.equal(net(x, torch.zeros(2, 2), code(2)), free)
    named = [net(x, torch.tensor([[a, 1 - a]]), code(2)) for a in (1.0, 0.0, 0.5)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (named[one] - named[other]).abs().max() > 1e-3
    assert (named[0] - free).abs().max() > 1e-3


def test_a_network_without_labels_takes_shares_of_none() -> None:
    net, x = network(labels=()), frames_of(20)
    assert torch.equal(net(x, torch.ones(1, 1), code()), net(x, None, code()))


def test_an_item_of_a_batch_is_the_item_alone() -> None:
    net, x, at = network(frames=30), frames_of(30, 3), code(3)
    labels = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.3, 0.7]])
    together = net(x, labels, at)
    for n in range(3):
        one = slice(n, n + 1)
        close(net(x[one], labels[one], at[one]), together[one])
    assert (net(x[:1], labels[:1], at[1:2]) - together[:1]).abs().max() > 1e-3  # the code counts


def test_the_units_of_the_diffusion_and_back() -> None:
    net, mel = network(), frames_of(20, 2)
    close(net.mel(net.normalised(mel)), mel)
    close(net.normalised(net.mel(mel)), mel)
    middle = net.centre[:, None].expand(BANDS, 3)
    assert net.normalised(middle).abs().max() == 0
    close(net.normalised(middle + net.spread[:, None]), torch.ones(BANDS, 3))


def test_untrained_it_says_nothing_and_its_facts_are_no_weights() -> None:
    made = PriorNet(PriorConfig(channels=8, layers=2, labels=("a",)), BANDS, 10)
    assert made(torch.randn(2, BANDS, 10), None, torch.zeros(2)).abs().max() == 0
    frozen = {name for name, p in made.named_parameters() if not p.requires_grad}
    assert frozen == {"centre", "spread"}
