"""The network's fast twin: it answers as the plain network does, alone, in batches, in blocks."""

from typing import Any

import pytest
import torch
from torch import Tensor

from wavediff import prepared
from wavediff.denoiser import Denoiser
from wavediff.errors import TaskError
from wavediff.network import MASK_UNIT, BandNet, NetworkConfig
from wavediff.path import Bridge
from wavediff.prepared import PreparedNet, number_type

TINY = NetworkConfig(window=64, hop=32, bands=4, channels=8, layers=3, cycle=2, mixing=2, summary=4)
KINDS = {
    "tiny": (TINY, 0),
    "with a mel": (TINY, 6),
    "one band": (TINY.model_copy(update={"bands": 1}), 0),
    "no mixing, no summary": (TINY.model_copy(update={"mixing": 0, "summary": 0}), 0),
    "wide filter": (TINY.model_copy(update={"taps": 7}), 0),
    "four windows": (TINY.model_copy(update={"hop": 16}), 0),
}
CPU = torch.device("cpu")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(config: NetworkConfig, mel: int = 0) -> BandNet:
    """A random network, loud enough that all of its parts matter to the answer."""
    torch.manual_seed(0)
    net = BandNet(config, mel)
    for name, parameter in net.named_parameters():
        torch.nn.init.normal_(parameter, std=0.5 / MASK_UNIT if name == "leave" else 0.5)
    return net.requires_grad_(False)


def given(net: BandNet, mel: int, samples: int, batch: int = 2) -> tuple[Any, ...]:
    x, y = noise(batch, samples), noise(batch, samples, seed=1)
    time = torch.tensor([0.3, 1.0, 0.0])[:batch]
    known = (10 * noise(batch, mel, net.transform.frames(samples), seed=2),) if mel else ()
    return x, y, time, *known


@pytest.mark.parametrize("samples", [1, 31, 1000])
@pytest.mark.parametrize(("config", "mel"), KINDS.values(), ids=KINDS.keys())
def test_the_fast_twin_is_the_plain_network(config: NetworkConfig, mel: int, samples: int) -> None:
    net = network(config, mel)
    inputs = given(net, mel, samples)
    plain = net(*inputs)
    assert plain.abs().max() > 0.01
    torch.testing.assert_close(PreparedNet(net)(*inputs), plain, rtol=0, atol=2e-5)


@pytest.mark.parametrize("rows", [1, 50, 1 << 20])
def test_how_many_bands_are_worked_on_at_a_time_changes_nothing(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network(TINY)
    inputs, whole = given(net, 0, 1000), PreparedNet(net)
    expected = whole(*inputs)
    monkeypatch.setattr(prepared, "ROWS", rows)
    torch.testing.assert_close(whole(*inputs), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_item_of_a_batch_is_the_item_alone(dtype: torch.dtype) -> None:
    net = network(TINY, 6)
    inputs, twin = given(net, 6, 777, batch=3), PreparedNet(net, dtype)
    together = twin(*inputs)
    for item in range(3):
        alone = twin(*(each[item : item + 1] for each in inputs))
        torch.testing.assert_close(alone, together[item : item + 1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_part_with_its_reach_is_the_part_of_the_whole(dtype: torch.dtype) -> None:
    net = network(TINY)
    x, y, time = given(net, 0, 4000)
    reach = -(-net.receptive_field // TINY.hop) * TINY.hop
    twin = PreparedNet(net, dtype)
    whole, part = twin(x, y, time), twin(x[:, 640:2400], y[:, 640:2400], time)
    inside = slice(640 + reach, 2400 - reach)
    torch.testing.assert_close(part[:, reach:-reach], whole[:, inside], rtol=0, atol=1e-4)


def test_silence_stays_silence() -> None:
    silence = torch.zeros(1, 500)
    for dtype in (torch.float32, torch.bfloat16):
        assert not PreparedNet(network(TINY), dtype)(silence, silence, torch.ones(1)).any()


def test_bf16_is_near_and_no_copy() -> None:
    """Eight bits of each number: an error of a percent through three loud blocks, and not none."""
    net = network(TINY)
    inputs = given(net, 0, 4000)
    plain, near = net(*inputs), PreparedNet(net, torch.bfloat16)(*inputs)
    error = float((near - plain).std() / plain.std())
    assert 1e-4 < error < 0.05


def test_a_denoiser_made_ready_guesses_as_before_and_leaves_the_other_alone() -> None:
    plain = Denoiser(network(TINY), Bridge())
    fast = plain.prepared("fp32")
    x, y, time = given(network(TINY), 0, 500)
    torch.testing.assert_close(fast(x, y, time), plain(x, y, time), rtol=0, atol=2e-5)
    assert fast.state_dict().keys() == plain.state_dict().keys()
    plain.network.requires_grad_()
    assert plain(x, y, time).requires_grad
    assert not fast(x, y, time).requires_grad


@pytest.mark.parametrize(
    ("able", "expected"),
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "avx2": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_auto_takes_bf16_where_the_processor_has_it(
    able: dict[str, bool], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert number_type("auto", CPU) == expected
    assert number_type("fp32", CPU) == torch.float32
    assert number_type("bf16", CPU) == torch.bfloat16


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(TaskError, match="precision half is not known"):
        number_type("half", CPU)
