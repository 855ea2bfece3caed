"""The published DiffWave: its recorded numbers, its reach, its twin, and the files it comes in."""

import collections
import copy
import functools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from wavediff import published_sound as module
from wavediff.errors import MelError
from wavediff.published import HOP, PublishedConfig, PublishedNet, Schedule, training_loss
from wavediff.published_sound import Prepared, PreparedLayer, PublishedSound, sample

TINY = PublishedConfig(channels=8, layers=3, cycle=2, bands=3)
ALONE = TINY.model_copy(update={"bands": 0})  # unconditional
BOTH = pytest.mark.parametrize("config", [TINY, ALONE], ids=["mel", "alone"])
RATE = 1000


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@functools.cache
def network(config: PublishedConfig) -> PublishedNet:
    """A random network, all of whose parts matter, that answers with about unit variance."""
    net, draw = PublishedNet(config).requires_grad_(False), torch.Generator().manual_seed(1)
    for values in net.parameters():
        values.copy_(torch.randn(values.shape, generator=draw))
        if values.ndim == 1:  # positive, so that no ReLU is dead
            values.abs_().mul_(0.3)
        else:
            values.mul_((8 if values.ndim == 4 else 1.2) / values[0].numel() ** 0.5)
    answer = net(noise(1, 2048), mel_for(config, 8), torch.tensor([1.5]))
    last = dict(net.output_projection.named_parameters())
    last["bias"].sub_(answer.mean()).div_(answer.std())
    last["weight"].div_(answer.std())
    return net


def mel_for(config: PublishedConfig, frames: int, batch: int = 1) -> Tensor | None:
    return noise(batch, config.bands, frames, seed=9) if config.bands else None


# What a sample depends on


@pytest.mark.parametrize("layers", [3, 5])
@BOTH
def test_the_reach_is_exact(config: PublishedConfig, layers: int) -> None:
    """No gradient beyond the receptive field, in x or the frames, and some at its edge."""
    net = copy.deepcopy(network(config.model_copy(update={"layers": layers}))).double()
    reach, middle = net.receptive_field, 4 * HOP
    near, far = sum(net.config.dilations), []
    for sample_ in (middle, *((middle + edge) % HOP + middle for edge in (reach, -reach - 1))):
        x = noise(1, 9 * HOP).double().requires_grad_()
        mel = mel_for(config, 9)
        given_ = [x] if mel is None else [x, mel.double().requires_grad_()]
        answer = net(x, None if mel is None else given_[1], torch.tensor([7.3]))[0, sample_]
        on_x, *on_mel = torch.autograd.grad(answer, given_)
        touched = on_x[0].nonzero()[:, 0]
        assert (int(touched.min()), int(touched.max())) == (sample_ - near, sample_ + near)
        if on_mel:
            frames = on_mel[0][0].abs().sum(0).nonzero()[:, 0]
            far += [sample_ - int(frames.min()) * HOP, int(frames.max() + 1) * HOP - 1 - sample_]
    assert max(far, default=near) == reach


@BOTH
def test_every_parameter_matters(config: PublishedConfig) -> None:
    net = copy.deepcopy(network(config)).requires_grad_()
    (net(noise(1, 1024), mel_for(config, 4), torch.tensor([7.5])) * noise(1, 1024)).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name


@BOTH
def test_an_item_of_a_batch_is_the_item_alone(config: PublishedConfig) -> None:
    net, x, mel = network(config), noise(3, 1024), mel_for(config, 4, batch=3)
    for step in (torch.tensor([0, 17, 49]), torch.tensor([0.25, 17.375, 48.9])):
        together = net(x, mel, step)
        assert together.std() > 0.1
        for item in range(3):
            one = slice(item, item + 1)
            alone = net(x[one], None if mel is None else mel[one], step[one])
            torch.testing.assert_close(alone, together[one], rtol=0, atol=1e-5)


def test_steps_between_two_rows_are_interpolated() -> None:
    net = copy.deepcopy(network(ALONE))
    x, step = noise(1, 100), torch.tensor([17])
    assert torch.equal(net(x, None, step), net(x, None, step.float()))
    code, row = net.diffusion_embedding, noise(128) / 10
    code.table = torch.arange(50)[:, None] * row  # of these, what lies between is known
    between = code(torch.tensor([2.5, 10.25]))
    code.table = torch.tensor([2.5, 10.25])[:, None] * row
    torch.testing.assert_close(between, code(torch.tensor([0, 1])), rtol=0, atol=1e-5)


# Schedules


def test_the_schedules_are_those_of_the_paper() -> None:
    full, fast = (Schedule.of(PublishedConfig(), fast) for fast in (False, True))
    assert full.steps == list(range(50))
    assert full.alpha_cum[0] == 1 - 1e-4
    assert full.alpha_cum[-1] == pytest.approx(np.prod(1 - np.linspace(1e-4, 0.05, 50)), rel=1e-12)
    expected = [0, 0.8941341, 4.086654, 10.451817, 22.992493, 42.918644]
    np.testing.assert_allclose(fast.steps, expected, rtol=0, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 49), st.booleans(), st.integers(0, 1000))
def test_a_step_goes_to_the_mean_of_what_was_before(number: int, fast: bool, seed: int) -> None:
    """With the true noise for an answer: Ho et al. 2020, equations 6 and 7."""
    schedule = Schedule.of(PublishedConfig(), fast)
    number %= len(schedule.beta)
    clean, eps, fresh = 0.1 * noise(3, 50, seed=seed).double()
    level, beta = schedule.alpha_cum[number], schedule.beta[number]
    before = schedule.alpha_cum[number - 1] if number else 1.0
    x = level**0.5 * clean + (1 - level) ** 0.5 * eps
    mean = before**0.5 * beta * clean + (1 - beta) ** 0.5 * (1 - before) * x
    spread = (beta * (1 - before) / (1 - level)) ** 0.5
    stepped = schedule.advance(x, eps, number, None)
    torch.testing.assert_close(stepped, mean / (1 - level), rtol=0, atol=1e-9)
    if number:
        stepped = schedule.advance(x, eps, number, fresh)
        expected = mean / (1 - level) + spread * fresh
        torch.testing.assert_close(stepped, expected, rtol=0, atol=1e-9)
    assert schedule.advance(100 * x, eps, number, None).abs().max() <= 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"training_schedule": [0.1, 1.5]}, "variances between 0 and 1"),
        ({"training_schedule": [0.1, float("nan")]}, "variances between 0 and 1"),
        ({"training_schedule": [0.0, 0.1]}, "variances between 0 and 1"),
        ({"training_schedule": [0.1, 1e-30]}, "variances between 0 and 1"),
        ({"training_schedule": [0.99] * 999}, "variances between 0 and 1"),
        ({"inference_schedule": [1e-5, 0.1]}, "leaves the range"),
        ({"inference_schedule": [0.1, 0.99]}, "leaves the range"),
        ({"inference_schedule": []}, "at least 1"),
        ({"channels": 0}, "greater than 0"),
        ({"chanels": 64}, "chanels"),
    ],
)
def test_what_makes_no_network_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PublishedConfig.model_validate(wrong)


# Sampling


@BOTH
def test_the_fast_twin_is_the_plain_network(
    config: PublishedConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x, mel = network(config), noise(2, 1024), mel_for(config, 4, batch=2)
    steps = torch.tensor([0.0, 4.086654, 42.918644])
    one_layer = 2 * 1024 * 2 * config.channels * 4  # bytes
    for kept in (0, one_layer, 100 * one_layer):
        monkeypatch.setattr(module, "KEPT", kept)
        twin = Prepared(net, mel, steps, 1024)
        for number, step in enumerate(steps):
            plain = net(x, mel, step.expand(2))
            assert plain.std() > 0.1
            torch.testing.assert_close(twin(x, number), plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 300, 1 << 20])
def test_pieces_change_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x, mel = network(TINY), noise(2, 1024), mel_for(TINY, 4, batch=2)
    monkeypatch.setattr(module, "ROWS", rows)
    monkeypatch.setattr(module, "PERIOD", 2)
    twin = Prepared(net, mel, torch.tensor([7.3]), 1024)
    plain = net(x, mel, torch.tensor([7.3, 7.3]))
    torch.testing.assert_close(twin(x, 0), plain, rtol=0, atol=1e-5)


def test_what_no_step_changes_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, condition = collections.Counter[Any](), PreparedLayer.condition

    def counted(layer: PreparedLayer, mel: Tensor) -> Tensor:
        calls.update([layer])
        return condition(layer, mel)

    monkeypatch.setattr(PreparedLayer, "condition", counted)
    net = copy.deepcopy(network(TINY))
    for once in (net.spectrogram_upsampler, net.diffusion_embedding):
        assert once is not None
        once.register_forward_hook(lambda part, *_: calls.update([part]))
    sample(net, mel_for(TINY, 4), lambda number: noise(1, 1024, seed=number))
    assert len(calls) == 2 + TINY.layers
    assert set(calls.values()) == {1}


def test_bf16_is_near_and_no_copy() -> None:
    net, mel = network(TINY), mel_for(TINY, 8)
    sounds = [
        sample(net, mel, lambda number: noise(1, 2048, seed=number), dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    ]
    error = float((sounds[0] - sounds[1]).std() / sounds[0].std())
    assert 1e-4 < error < 10 ** (-35 / 20)


@pytest.mark.parametrize("fast", [True, False])
@BOTH
def test_sampling_is_the_plain_recursion(config: PublishedConfig, fast: bool) -> None:
    net, mel = network(config), mel_for(config, 2)
    schedule = Schedule.of(config, fast)
    x = noise(1, 512, seed=0)
    for draw, number in enumerate(range(len(schedule.beta) - 1, -1, -1), 1):
        eps = net(x, mel, torch.tensor([schedule.steps[number]]))
        x = schedule.advance(x, eps, number, noise(1, 512, seed=draw) if number else None)
    drawn: list[int] = []

    def draw_(number: int) -> Tensor:
        drawn.append(number)
        return noise(1, 512, seed=number)

    torch.testing.assert_close(sample(net, mel, draw_, fast), x, rtol=0, atol=1e-5)
    assert drawn == list(range(6 if fast else 50))


def sound(config: PublishedConfig, seconds: float = 1e6, **settings: Any) -> PublishedSound:
    mel = mel_for(config, 14)
    samples = settings.pop("samples", 14 * HOP)
    mel = None if mel is None else mel[0]
    return PublishedSound(network(config), RATE, mel, samples, block_seconds=seconds, **settings)


@pytest.mark.parametrize("fast", [True, False])
@BOTH
def test_blocks_are_the_whole(config: PublishedConfig, fast: bool) -> None:
    source = sound(config, fast=fast)
    whole = source.read(0, source.samples)
    assert whole.shape == (1, 14 * HOP)
    assert whole.std() > 0.1
    assert whole.abs().max() <= 1
    for seconds in (0.1, 0.8, 2.0):
        blocks = sound(config, seconds, fast=fast).read(0, source.samples)
        torch.testing.assert_close(blocks, whole, rtol=0, atol=1e-4)


@BOTH
def test_blocks_without_their_halo_are_not(config: PublishedConfig) -> None:
    whole, blocks = sound(config), sound(config, 0.8)
    blocks._halo = 0
    assert (blocks.read(0, 3000) - whole.read(0, 3000)).abs().max() > 0.01


def test_reads_are_parts_of_the_whole() -> None:
    source = sound(TINY, 0.5, samples=3333)
    whole = sound(TINY).read(0, 3333)
    assert (source.rate, source.channels, source.samples) == (RATE, 1, 3333)
    for start, stop in ((-5, 700), (600, 601), (650, 2000), (3300, 4000), (5, 5), (9000, 9001)):
        expected = torch.zeros(1, stop - start)
        low, high = max(start, 0), min(stop, 3333)
        if low < high:
            expected[:, low - start : high - start] = whole[:, low:high]
        torch.testing.assert_close(source.read(start, stop), expected, rtol=0, atol=1e-4)


def test_the_seed_decides() -> None:
    one, other = sound(ALONE, seed=1).read(0, 500), sound(ALONE, seed=2).read(0, 500)
    assert torch.equal(one, sound(ALONE, seed=1).read(0, 500))
    assert (one - other).abs().max() > 0.1


@pytest.mark.parametrize(
    ("config", "mel", "message"),
    [
        (TINY, None, "needs a mel of 3 bands"),
        (ALONE, torch.zeros(3, 4), "takes no mel"),
        (TINY, torch.zeros(80, 4), r"\(1, 80, 4\)"),
        (TINY, torch.zeros(1, 3, 4), r"\(1, 1, 3, 4\)"),
        (TINY, torch.zeros(3, 3), "3 frames for 1000 samples"),
    ],
)
def test_mels_that_do_not_fit_are_refused(
    config: PublishedConfig, mel: Tensor | None, message: str
) -> None:
    with pytest.raises(MelError, match=message) as caught:
        PublishedSound(network(config), RATE, mel, 1000)
    assert caught.value.hint
    with pytest.raises(MelError, match=message.replace("3 frames for 1000", "for 1024")):
        network(config)(noise(1, 1024), mel if mel is None else mel[None], torch.tensor([1]))


# Training


class Oracle(PublishedNet):
    """Knows the sound, so that it can tell the noise."""

    clean: Tensor

    def forward(self, x: Tensor, mel: Tensor | None, step: Tensor) -> Tensor:
        levels = torch.tensor(Schedule.of(self.config, fast=False).alpha_cum).double()
        level = levels[step][:, None]
        return (x - level.sqrt() * self.clean) / (1 - level).sqrt()


def test_the_loss_is_the_error_of_the_noise() -> None:
    audio, fresh, t = 0.1 * noise(2, 300), noise(2, 300, seed=1), torch.tensor([3, 49])
    untrained = PublishedNet(ALONE)
    dict(untrained.named_parameters())["output_projection.bias"].data.fill_(0.25)
    loss = training_loss(untrained, audio, None, t, fresh)
    torch.testing.assert_close(loss, (0.25 - fresh).abs().mean(1))
    knows = Oracle(ALONE)
    knows.clean = audio.double()
    assert training_loss(knows, audio.double(), None, t, fresh.double()).max() < 1e-5


# Files
