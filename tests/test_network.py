"""The network: its reach, its bands, and what it does with silence, batches, levels and shifts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from wavediff.network import FEATURES, MASK_UNIT, BandNet, Bands, NetworkConfig

TINY = NetworkConfig(window=64, hop=32, bands=4, channels=8, layers=2, cycle=2, mixing=2, summary=4)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(config: NetworkConfig = TINY, loud: bool = True, seed: int = 0) -> BandNet:
    """A random network, `loud` enough that all of its parts matter to the answer."""
    torch.manual_seed(seed)
    net = BandNet(config)
    if loud:
        for name, parameter in net.named_parameters():
            torch.nn.init.normal_(parameter, std=0.5 / MASK_UNIT if name == "leave" else 0.5)
    return net.requires_grad_(False)


REACHES = {
    "tiny": TINY,
    "two cycles": TINY.model_copy(update={"layers": 5}),
    "deep": TINY.model_copy(update={"layers": 4, "cycle": 4}),
    "four windows": TINY.model_copy(update={"hop": 16}),
    "no mixing, no summary": TINY.model_copy(update={"mixing": 0, "summary": 0}),
    "wide filter": TINY.model_copy(update={"layers": 1, "taps": 7}),
}


@pytest.mark.parametrize("config", REACHES.values(), ids=REACHES.keys())
def test_the_reach_is_exact(config: NetworkConfig) -> None:
    """No gradient beyond the receptive field, and some within two samples of its edge."""
    net = network(config).double()
    reach = net.receptive_field
    middle = (reach // config.hop + 2) * config.hop
    farthest = 0
    for offset in (0, 1, config.hop // 2, config.hop - 1):
        x, y = noise(2, 1, 2 * middle).double().requires_grad_()
        answer = net(x, y, torch.ones(1).double())[0, middle + offset]
        for gradient in torch.autograd.grad(answer, (x, y)):
            touched = gradient[0].abs().nonzero()[:, 0]
            assert int((touched - middle - offset).abs().max()) <= reach
            farthest = max(farthest, int((touched - middle - offset).abs().max()))
    assert farthest >= reach - 2


def test_every_parameter_matters() -> None:
    net = network().requires_grad_()
    answer = net(noise(1, 640), noise(1, 640, seed=1), torch.tensor([0.7]))
    (answer * noise(1, 640, seed=2)).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_bands_cover_every_bin_once(data: st.DataObject) -> None:
    bins = data.draw(st.integers(1, 1025))
    count = data.draw(st.integers(1, min(bins, 64)))
    bands = Bands.split(bins, count)
    assert len(bands.edges) == count + 1
    assert bands.edges[0] == 0
    assert bands.edges[-1] == bins
    gather = bands.gather_index()
    assert gather.shape == (count, bands.width)
    assert sorted(gather[gather < bins].tolist()) == list(range(bins))


def test_bands_widen_with_frequency() -> None:
    edges = torch.tensor(Bands.split(257, 24).edges)
    widths = edges.diff()
    assert int(widths[-6:].min()) > 2 * int(widths[:6].max())


def test_more_bands_than_bins_are_refused() -> None:
    with pytest.raises(ValueError, match="5 bands do not fit into 4 bins"):
        Bands.split(4, 5)


@pytest.mark.parametrize("loud", [False, True])
@pytest.mark.parametrize("samples", [1, 63, 1000])
def test_silence_stays_silence(loud: bool, samples: int) -> None:
    silence = torch.zeros(2, samples)
    assert not network(loud=loud)(silence, silence, torch.tensor([1.0, 0.3])).any()


def test_untrained_it_answers_with_about_what_it_was_given() -> None:
    sound = noise(1, 4000)
    error = network(loud=False)(sound, sound, torch.ones(1)) - sound
    assert float(error.square().mean().sqrt()) < 0.5 * float(sound.square().mean().sqrt())


@pytest.mark.parametrize("samples", [1, 31, 64, 1001])
def test_an_item_of_a_batch_is_the_item_alone(samples: int) -> None:
    net, time = network(), torch.tensor([1.0, 0.0, 0.4])
    x, y = noise(3, samples), noise(3, samples, seed=1)
    together = net(x, y, time)
    assert together.abs().max() > 0.01
    for item in range(3):
        one = slice(item, item + 1)
        torch.testing.assert_close(net(x[one], y[one], time[one]), together[one], rtol=0, atol=1e-5)


def test_a_shift_by_a_hop_shifts_the_answer() -> None:
    net, time = network(), torch.ones(1)
    x, y = noise(1, 2000), noise(1, 2000, seed=1)
    reach, hop = net.receptive_field, net.hop
    here, later = net(x, y, time), net(x[:, hop:], y[:, hop:], time)
    inside = slice(reach + hop, -reach)
    assert here[:, inside].abs().max() > 0.01
    torch.testing.assert_close(here[:, inside], later[:, reach:-reach], rtol=0, atol=1e-5)


def test_the_answer_depends_on_the_time_the_state_and_the_observation() -> None:
    net, one = network(), torch.ones(1)
    x, y, other = noise(1, 500), noise(1, 500, seed=1), noise(1, 500, seed=2)
    answer = net(x, y, one)
    for changed in (net(x, y, 0.5 * one), net(other, y, one), net(x, other, one)):
        assert (changed - answer).abs().max() > 0.01


@pytest.mark.parametrize("scale", [1e-5, 1e-2, 1e2, 1e4])
def test_the_answer_is_of_the_order_of_the_sound(scale: float) -> None:
    """Masks and a part in proportion to the band's own energy: nothing is made out of nothing."""
    net, time = network(), torch.ones(1)
    x, y = noise(1, 2000), noise(1, 2000, seed=1)
    usual = float(net(x, y, time).square().mean().sqrt())
    scaled = float(net(scale * x, scale * y, time).square().mean().sqrt()) / scale
    assert usual / 10 < scaled < 10 * usual


def test_the_names_and_shapes_of_the_weights_are_the_format_of_checkpoints() -> None:
    """Whoever changes these breaks the models that people have."""
    block = {
        "norm.weight": (8,),
        "norm.bias": (8,),
        "time.weight": (8, 8),
        "time.bias": (8,),
        "dilated.weight": (16, 24),
        "dilated.bias": (16,),
        "out.weight": (8, 8),
        "out.bias": (8,),
        "squeeze.weight": (2, 8),
        "squeeze.bias": (2,),
        "mix.weight": (16, 8),
        "mix.bias": (16,),
        "expand.weight": (8, 2),
        "expand.bias": (8,),
    }
    expected = {
        "enter": (4, 70, 8),
        "place": (4, 1, 8),
        "leave": (4, 8, 140),
        "describe.weight": (4, 4),
        "describe.bias": (4,),
        "tell.weight": (32, 4),
        "tell.bias": (32,),
        "time.0.weight": (16, 32),
        "time.0.bias": (16,),
        "time.2.weight": (8, 16),
        "time.2.bias": (8,),
        "rest": (10, 1, 1, 33),
    }
    for layer in range(TINY.layers):
        expected |= {f"blocks.{layer}.{name}": shape for name, shape in block.items()}
    state = BandNet(TINY).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected


def test_the_same_weights_give_the_same_answer_as_ever() -> None:
    """Weights that are shipped mean what they meant when they were trained."""
    net = BandNet(TINY).requires_grad_(False)
    for name, parameter in net.named_parameters():
        values = torch.sin(torch.arange(parameter.numel())).reshape(parameter.shape) / 2
        parameter.copy_(values / MASK_UNIT if name == "leave" else values)
    sweep = torch.linspace(0, 20, 200) ** 2
    answer = net(0.1 * sweep.sin()[None], 0.1 * sweep.cos()[None], torch.tensor([0.6]))[0]
    expected = torch.tensor([0.020812, 0.044469, 0.075435, -0.038849, 0.084401])
    torch.testing.assert_close(answer[[0, 50, 100, 150, 199]], expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 64, "hop": 48}, "not a multiple of twice the hop"),
        ({"window": 64, "hop": 32, "bands": 34}, "34 bands do not fit into 33 bins"),
        ({"taps": 4}, "4 taps have no middle"),
        ({"channels": 0}, "greater than 0"),
        ({"chanels": 64}, "chanels"),
    ],
)
def test_sizes_that_make_no_network_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        NetworkConfig.model_validate(settings)


def test_weights_that_no_bin_has_may_be_left_out() -> None:
    config = NetworkConfig(window=64, hop=32, bands=7, channels=8, layers=2, mixing=2)
    torch.manual_seed(0)
    network, other = BandNet(config), BandNet(config)
    short = network.compact(network.state_dict())
    bins, parts = 33, network.parts
    assert short["enter"].shape == (bins * FEATURES, 8)
    assert short["leave"].shape == (bins * parts, 8)
    assert sum(w.numel() for w in short.values()) < sum(p.numel() for p in network.parameters())
    assert network.compact(short) is short
    other.load_state_dict(short)
    x, time = torch.randn(2, 640), torch.tensor([0.3, 1.0])
    assert torch.equal(network(x, -x, time), other(x, -x, time))
    assert all(torch.equal(short[key], w) for key, w in other.compact(other.state_dict()).items())
    with pytest.raises(RuntimeError, match="size mismatch"):
        BandNet(config.model_copy(update={"bands": 6})).load_state_dict(short)
