"""Rendering: blocks of any length are the whole, and what a block does not need is not there."""

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wavediff.audio import ArraySource
from wavediff.denoiser import Denoiser
from wavediff.network import MASK_UNIT, BandNet, NetworkConfig
from wavediff.path import Bridge, Diffusion, Path
from wavediff.render import Rendered, Request
from wavediff.samplers import SAMPLERS, Walk

RATE = 1000  # low, so that seconds are few samples
CPU = torch.device("cpu")
CONFIG = NetworkConfig(
    window=64, hop=32, bands=4, channels=8, layers=3, cycle=3, mixing=2, summary=4
)
WALKS = [Walk(sampler, steps) for sampler in ("ddim", "ancestral") for steps in (1, 2, 4)]


def denoiser(path: Path | None = None) -> Denoiser:
    """A random network, loud enough that the far end of its reach can be heard."""
    torch.manual_seed(1)
    network = BandNet(CONFIG)
    for name, parameter in network.named_parameters():
        torch.nn.init.normal_(parameter, std=0.2 / MASK_UNIT if name == "leave" else 0.4)
    return Denoiser(network, path or Bridge(0.03, 2.6)).eval().requires_grad_(False)


DENOISER = denoiser()


def sound(samples: int, channels: int = 1) -> Tensor:
    """Bursts: the level changes within the reach of the network."""
    generator = torch.Generator().manual_seed(samples)
    bursts = torch.sin(torch.arange(samples) / 40).square()
    return 0.1 * bursts * torch.randn(channels, samples, generator=generator)


class Counted(ArraySource):
    """A source that notes what is read of it."""

    def __init__(self, audio: Tensor, rate: int = RATE) -> None:
        super().__init__(audio, rate)
        self.reads: list[tuple[int, int]] = []

    def read(self, start: int, stop: int) -> Tensor:
        self.reads.append((start, stop))
        return super().read(start, stop)


def rendered(
    audio: Tensor, walk: Walk, seconds: float = 1e6, seed: int = 0, path: Path | None = None
) -> Rendered:
    model = denoiser(path) if path else DENOISER
    request = Request(walk, seed, seconds)
    return Rendered(ArraySource(audio, RATE), model, 2.0, request, CPU)


def all_of(source: Rendered) -> Tensor:
    return source.read(0, source.samples)


@pytest.mark.parametrize("walk", WALKS, ids=str)
def test_blocks_are_the_whole(walk: Walk) -> None:
    audio = sound(15_013, 2)
    whole = all_of(rendered(audio, walk))
    assert whole.shape == audio.shape
    assert whole.square().mean().sqrt() > 0.01
    for seconds in (1, 7):
        blocks = all_of(rendered(audio, walk, seconds))
        torch.testing.assert_close(blocks, whole, rtol=0, atol=1e-4)


@pytest.mark.parametrize("walk", WALKS, ids=str)
def test_blocks_without_their_surroundings_are_not(
    walk: Walk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the test above would say nothing."""
    audio = sound(3000)
    bare = rendered(audio, walk, 1)
    monkeypatch.setattr(bare, "_needed", lambda first, last, calls: (first, last))
    assert (all_of(bare) - all_of(rendered(audio, walk))).abs().max() > 1e-2


def test_later_calls_leave_out_what_no_call_after_them_looks_at() -> None:
    lengths: list[int] = []
    network = DENOISER.network.register_forward_pre_hook(
        lambda module, inputs: lengths.append(inputs[0].shape[-1])
    )
    rendered(sound(15_000), Walk("ddim", 4), 3).read(7000, 7001)
    network.remove()
    assert len(lengths) == 4
    steps = [before - after for before, after in itertools.pairwise(lengths)]
    assert min(steps) >= 2 * DENOISER.receptive_field - 2 * CONFIG.hop
    assert lengths[-1] <= 3 * RATE + 2 * (DENOISER.receptive_field + 2 * CONFIG.hop)


@pytest.mark.parametrize("walk", WALKS, ids=str)
def test_a_walk_reaches_as_far_as_all_of_its_calls(walk: Walk) -> None:
    model, path, one = copy.deepcopy(DENOISER).double(), DENOISER.path, DENOISER.receptive_field
    middle = walk.calls * one + 70
    y = sound(2 * middle).double().requires_grad_()

    def guess(x: Tensor, t: float) -> Tensor:
        return model(x, y, x.new_full((1,), t))

    def draw(number: int) -> Tensor:
        return torch.zeros_like(y)

    end = SAMPLERS[walk.sampler](path, guess, y, y, path.times(walk.steps), draw)
    (gradient,) = torch.autograd.grad(end[0, middle], y)
    reach = int((gradient[0].nonzero()[:, 0] - middle).abs().max())
    assert (walk.calls - 1) * one < reach <= walk.calls * one


@pytest.mark.parametrize("walk", [Walk("ddim", 1), Walk("ancestral", 4)], ids=str)
@pytest.mark.parametrize("samples", [1, 2, 31, 32, 33, 63, 65, 991, 992, 993])
def test_short_sounds_and_odd_lengths(samples: int, walk: Walk) -> None:
    audio = sound(samples, 2) + 0.01
    whole = all_of(rendered(audio, walk))
    assert whole.shape == audio.shape
    assert whole.abs().max() > 1e-4
    blocks = all_of(rendered(audio, walk, 0.1))
    torch.testing.assert_close(blocks, whole, rtol=0, atol=1e-4)


def test_a_block_is_at_least_a_frame() -> None:
    audio, walk = sound(300), Walk("ancestral", 2)
    tiny = all_of(rendered(audio, walk, 1e-9))
    torch.testing.assert_close(tiny, all_of(rendered(audio, walk)), rtol=0, atol=1e-4)


def test_any_ranges_read_forward_are_the_whole() -> None:
    walk, audio = Walk("ancestral", 2), sound(3010, 2)
    whole = ArraySource(all_of(rendered(audio, walk)), RATE)

    @settings(max_examples=20, deadline=None)
    @given(
        st.floats(0.1, 5),
        st.lists(st.tuples(st.integers(-300, 900), st.integers(0, 1500)), max_size=8),
    )
    def check(seconds: float, ranges: list[tuple[int, int]]) -> None:
        blocks, start = rendered(audio, walk, seconds), -200
        for forward, length in ranges:
            start += forward
            expected = whole.read(start, start + length)
            got = blocks.read(start, start + length)
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)

    check()


@pytest.mark.parametrize("walk", [Walk("ddim", 2), Walk("ancestral", 4)], ids=str)
def test_a_channel_is_the_channel_alone(walk: Walk) -> None:
    audio = sound(2000, 3)
    together = all_of(rendered(audio, walk))
    torch.testing.assert_close(all_of(rendered(audio[:1], walk)), together[:1], rtol=0, atol=1e-5)


def test_channels_do_not_share_their_noise() -> None:
    twice = sound(2000).expand(2, -1)
    first, second = all_of(rendered(twice, Walk("ancestral", 4)))
    assert (first - second).abs().max() > 1e-3
    first, second = all_of(rendered(twice, Walk("ddim", 4)))
    assert torch.equal(first, second)


@pytest.mark.parametrize("walk", WALKS, ids=str)
def test_an_item_of_a_batch_is_the_item_alone(walk: Walk) -> None:
    y, path = torch.cat([sound(700) * n for n in (1, 2, 3)]), DENOISER.path
    noise = torch.randn(4, 3, 700, generator=torch.Generator().manual_seed(0))

    def sample(rows: slice) -> Tensor:
        def guess(x: Tensor, t: float) -> Tensor:
            return DENOISER(x, y[rows], x.new_full((len(x),), t))

        start = path.start(y[rows], lambda: noise[-1, rows])
        times = path.times(walk.steps)
        return SAMPLERS[walk.sampler](path, guess, start, y[rows], times, lambda n: noise[n, rows])

    together = sample(slice(None))
    for item in range(3):
        one = slice(item, item + 1)
        torch.testing.assert_close(sample(one), together[one], rtol=0, atol=1e-5)


def test_the_seed_decides_what_stochastic_sampling_draws() -> None:
    audio = sound(2000)
    one, again, other = (
        all_of(rendered(audio, Walk("ancestral", 4), seed=seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert (one - other).abs().max() > 1e-3


def test_a_diffusion_starts_from_noise_of_its_own() -> None:
    path, audio = Diffusion(sigma_max=1.0), sound(3000)
    one, other = (all_of(rendered(audio, Walk("ddim", 2), 1, seed, path)) for seed in (1, 2))
    whole = all_of(rendered(audio, Walk("ddim", 2), seed=1, path=path))
    torch.testing.assert_close(one, whole, rtol=0, atol=1e-4)
    assert (one - other).abs().max() > 1e-3


def test_no_two_draws_are_the_same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    source = rendered(sound(900, 2), Walk("ancestral", 4), path=Diffusion(sigma_max=1.0))
    shaped = source._noise.shaped

    class Noted:
        def shaped(self, draw: int, channel: int, *rest: object) -> Tensor:
            drawn.append((draw, channel))
            return shaped(draw, channel, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(source, "_noise", Noted())
    all_of(source)
    assert len(drawn) == len(set(drawn)) == 2 * (1 + 3)


def test_forward_reads_sample_each_block_once_and_keep_two() -> None:
    counted = Counted(sound(10_000, 2))
    source = Rendered(counted, DENOISER, 2.0, Request(Walk("ddim", 1), 0, 1.0), CPU)
    for start in range(0, 10_000, 300):
        source.read(start - 200, start + 300)
        assert len(source._kept) <= 2
        assert sum(block.shape[-1] for block in source._kept.values()) <= 2 * source._block
    assert len(counted.reads) == -(-10_000 // source._block)
    reach = 2 * DENOISER.receptive_field + 2 * CONFIG.hop
    assert all(stop - start <= source._block + reach for start, stop in counted.reads)
    starts = [start for start, _ in counted.reads]
    assert all(later > earlier for earlier, later in itertools.pairwise(starts))


def test_what_lies_outside_is_silence() -> None:
    source = rendered(sound(50) + 0.01, Walk("ddim", 1))
    inside = all_of(source)
    assert torch.equal(source.read(-20, 70), torch.nn.functional.pad(inside, (20, 20)))
    for start, stop in [(-20, -5), (60, 80), (50, 51), (49, 49), (5, 3), (1000, 2000)]:
        assert torch.equal(source.read(start, stop), torch.zeros(1, max(0, stop - start))), (
            start,
            stop,
        )


def test_the_gain_is_taken_off_again() -> None:
    audio = sound(2000)
    source, walk = ArraySource(audio, RATE), Walk("ancestral", 2)
    loud = Rendered(ArraySource(10 * audio, RATE), DENOISER, 0.2, Request(walk), CPU)
    quiet = Rendered(source, DENOISER, 2.0, Request(walk), CPU)
    torch.testing.assert_close(all_of(loud), 10 * all_of(quiet), rtol=0, atol=1e-4)


def test_what_comes_out_can_be_trained_on() -> None:
    weight = torch.ones(1, requires_grad=True)
    (all_of(rendered(sound(100), Walk("ddim", 1))) * weight).sum().backward()
    assert weight.grad is not None
