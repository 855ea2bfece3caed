"""Generation: what is invented depends on the seed, the labels and the number, and on no block."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

from wavediff import generating, noise
from wavediff import model as models
from wavediff.denoiser import Denoiser
from wavediff.errors import TaskError
from wavediff.generating import GenerateConfig, GenerateSettings, Invented, shares
from wavediff.mel import PRESETS, MelPreset
from wavediff.model import Model, load
from wavediff.path import Diffusion
from wavediff.prior import PriorConfig, PriorNet
from wavediff.recipe import Recipe
from wavediff.samplers import SAMPLERS
from wavediff.tasks import build
from wavediff.vocoding import Start, lead

CPU = torch.device("cpu")
PRESET = PRESETS["narrow8k"]
TINY = {"window": 512, "hop": 128, "bands": 4, "channels": 8, "layers": 2, "cycle": 2, "mixing": 2}
LABELS = ("a", "b", "c")
MADE = GenerateConfig(steps=3, guidance=1.0)


@lru_cache
def denoiser(frames: int = 0, labels: tuple[str, ...] = LABELS) -> Denoiser:
    """A random prior, loud enough that the far end of its reach and its labels are heard."""
    torch.manual_seed(3)
    config = PriorConfig(channels=8, layers=2, cycle=2, labels=labels)
    network = PriorNet(config, PRESET.bands, frames)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    network.centre.fill_(-5.0)
    network.spread.fill_(2.0)
    return Denoiser(network, Diffusion(1.0, 0.02, 20.0)).eval().requires_grad_(False)


def invented(
    frames: int = 0, known: tuple[str, ...] = LABELS, number: int = 0, **settings: Any
) -> Invented:
    chosen = GenerateSettings(**{"seconds": 1.0, **settings})
    return Invented(denoiser(frames, known), PRESET, MADE, chosen, CPU, number)


def whole(*args: Any, **settings: Any) -> Tensor:
    mel = invented(*args, **settings)
    return mel.read(0, mel.frames)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise of few numbers at a time: every band of every step makes a tile."""
    monkeypatch.setattr(noise, "TILE", 64)


@contextmanager
def asked(made: Denoiser) -> Iterator[list[Tensor | None]]:
    """The labels that a network is asked for, call by call."""
    seen: list[Tensor | None] = []
    hook = made.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    yield seen
    hook.remove()


def model(frames: int = 0, labels: tuple[str, ...] = LABELS, renderer: bool = True) -> Model:
    vocoder = Recipe.model_validate(
        {
            "task": "vocode",
            "rate": 8000,
            "mel": PRESET.name,
            "network": TINY,
            "vocode": {"iterations": 2, "steps": 1},
        }
    )
    torch.manual_seed(4)
    rendering = Model("v", vocoder, {}, build(vocoder).eval().requires_grad_(False), CPU)
    prior = {"channels": 8, "layers": 2, "cycle": 2, "labels": labels}
    recipe = Recipe.model_validate(
        {
            "task": "generate",
            "rate": 8000,
            "mel": PRESET.name,
            "prior": prior,
            "generate": {"frames": frames},
        }
    )
    return Model("g", recipe, {}, denoiser(frames, labels), CPU, rendering if renderer else None)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_blocks_are_the_whole(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = whole(sampler=sampler, seconds=3.0)
    assert expected.shape == (1, 64, 188)
    assert float(expected.std()) > 0.5
    for block in (7, 50):
        monkeypatch.setattr(generating, "BLOCK", block)
        made = whole(sampler=sampler, seconds=3.0)
        torch.testing.assert_close(made, expected, rtol=0, atol=1e-3)


def test_blocks_without_their_surroundings_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the test above would say nothing."""
    expected = whole(seconds=3.0)
    monkeypatch.setattr(generating, "BLOCK", 50)
    monkeypatch.setattr(Denoiser, "reach", 0)
    assert (whole(seconds=3.0) - expected).abs().max() > 0.1


def test_blocks_of_a_one_shot_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = whole(100)
    monkeypatch.setattr(generating, "BLOCK", 40)
    torch.testing.assert_close(whole(100), expected, rtol=0, atol=1e-3)


def test_any_ranges_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = whole(seconds=2.0)
    monkeypatch.setattr(generating, "BLOCK", 30)
    mel = invented(seconds=2.0)
    for first, last in ((0, 10), (5, 70), (100, 125), (3, 9), (-4, 3), (120, 140), (130, 131)):
        frames = torch.arange(first, last).clamp(0, mel.frames - 1)
        torch.testing.assert_close(mel.read(first, last), expected[..., frames], rtol=0, atol=1e-3)


def test_seconds_and_one_shots_have_their_length() -> None:
    assert [invented(seconds=s).frames for s in (1e-9, 0.016, 0.017, 1.0)] == [1, 1, 2, 63]
    assert invented(20, seconds=None).frames == 20


@pytest.mark.parametrize("seconds", [0.01, 1.0])
def test_a_sound_is_as_long_as_was_asked(seconds: float) -> None:
    preset: MelPreset = PRESETS["tacotron2"]
    settings = GenerateSettings(steps=1, seconds=seconds)
    frames = Invented(denoiser(0, LABELS), preset, MADE, settings, CPU).frames
    assert preset.samples(frames) >= seconds * preset.rate


def test_a_number_is_the_same_whatever_the_count() -> None:
    settings = GenerateSettings(steps=2, seconds=0.3)
    made = model()
    three = made.generate(3, settings)
    assert three.shape == (3, 19 * 128)
    assert torch.equal(made.generate(2, settings), three[:2])
    last = made.generate_source(settings, 2)
    assert torch.equal(last.read(0, last.samples)[0], three[2])
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (three[one] - three[other]).abs().max() > 1e-3


def test_a_seed_decides() -> None:
    one, again, other, second = (
        whole(seed=seed, number=number) for seed, number in ((1, 0), (1, 0), (2, 0), (1, 1))
    )
    assert torch.equal(one, again)
    for different in (other, second):
        assert (one - different).abs().max() > 0.1


@pytest.mark.parametrize("labels", [{}, {"b": 1.0}])
@pytest.mark.parametrize("sampler", ["ancestral", "heun"])
def test_without_guidance_there_is_a_call_a_step(labels: dict[str, float], sampler: str) -> None:
    with asked(denoiser(0, LABELS)) as seen:
        one = whole(labels=labels, sampler=sampler, guidance=1.0)
        calls = {"ancestral": 3, "heun": 5}[sampler]
        assert [len(shares) for shares in seen if shares is not None] == [1] * calls
        assert torch.equal(whole(labels=labels, sampler=sampler), one)


def test_guidance_asks_twice_where_it_acts() -> None:
    labels, steps = {"b": 1.0}, 12
    times = denoiser(0, LABELS).path.times(steps)[:-1]
    within = [generating.GUIDED[0] < sigma < generating.GUIDED[1] for sigma in times]
    assert 0 < sum(within) < steps
    with asked(denoiser(0, LABELS)) as seen:
        guided = whole(labels=labels, steps=steps, guidance=2.0)
        found = [len(shares) for shares in seen if shares is not None]
    assert found == [1 + inside for inside in within]
    assert (guided - whole(labels=labels, steps=steps)).abs().max() > 0.1
    with asked(denoiser(0, LABELS)) as seen:  # of nothing that was asked for there is no more
        whole(steps=steps, guidance=2.0)
        assert [len(shares) for shares in seen if shares is not None] == [1] * steps


def test_what_is_not_asked_for_is_as_the_model_says() -> None:
    made = GenerateConfig(steps=5, guidance=2.5)
    network, labels = denoiser(0, LABELS), {"b": 1.0}

    def mel(settings: GenerateSettings) -> Tensor:
        return Invented(network, PRESET, made, settings, CPU).read(0, 20)

    silent = GenerateSettings(seconds=1.0, labels=labels)
    named = replace(silent, steps=5, guidance=2.5)
    assert torch.equal(mel(silent), mel(named))
    assert not torch.equal(mel(silent), mel(replace(named, guidance=0.0)))
    assert not torch.equal(mel(silent), mel(replace(named, steps=6)))


def test_guidance_moves_away_from_the_answer_without_labels() -> None:
    x, sigma = torch.randn(1, 64, 10, generator=torch.Generator().manual_seed(0)), 1.0

    def guess(weight: float) -> Tensor:
        return invented(labels={"c": 1.0}, guidance=weight)._guess(x, sigma)

    free, named = invented()._guess(x, sigma), guess(1.0)
    assert (free - named).abs().max() > 1e-2
    torch.testing.assert_close(guess(0.0), free, rtol=0, atol=1e-5)
    torch.testing.assert_close(guess(3.0), free + 3 * (named - free), rtol=0, atol=1e-4)


def test_labels_are_mixed_by_their_shares() -> None:
    network = denoiser(0, LABELS).network
    assert isinstance(network, PriorNet)
    half = shares(network, {"c": 3.0, "a": 1.0})
    assert half is not None
    assert half.tolist() == [[0.25, 0.0, 0.75]]
    none = shares(network, {})
    assert none is not None
    assert none.tolist() == [[0.0, 0.0, 0.0]]
    made = [whole(labels=labels) for labels in ({}, {"a": 1}, {"b": 1}, {"a": 1, "b": 1})]
    for n, one in enumerate(made):
        for other in made[:n]:
            assert (one - other).abs().max() > 0.1
    assert torch.equal(whole(labels={"a": 5.0, "b": 5.0}), made[-1])
    plain = denoiser(labels=()).network
    assert isinstance(plain, PriorNet)
    assert shares(plain, {}) is None
    assert whole(0, ()).isfinite().all()


def test_no_mel_is_quieter_than_silence() -> None:
    made = denoiser(0, LABELS)
    network = made.network
    assert isinstance(network, PriorNet)
    before = network.centre.clone()
    try:
        network.centre.fill_(PRESET.silence)
        mel = whole()
    finally:
        network.centre.copy_(before)
    assert float(mel.min()) == pytest.approx(PRESET.silence)
    assert 0.01 < float((mel == mel.min()).float().mean()) < 0.99


def test_what_comes_out_is_the_renderers_sound_of_that_mel() -> None:
    made, settings = model(), GenerateSettings(steps=2, seconds=0.5, seed=3)
    assert made.renderer is not None
    (sound,) = made.generate(1, settings)
    mel = whole(steps=2, seconds=0.5, seed=3)
    direct = made.renderer.vocode(mel[0])
    assert isinstance(direct, Tensor)
    assert sound.abs().max() > 1e-4
    assert sound.shape == direct.shape
    assert (mel - whole(steps=2, seconds=0.5)).abs().max() > 0.1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "step"),
        ({"sampler": "euler"}, "no sampler is called euler"),
        ({"guidance": -1.0}, "guidance of -1.0"),
        ({"guidance": math.nan}, "guidance of nan"),
        ({"guidance": math.inf}, "guidance of inf"),
        ({"seconds": 0.0}, "0.0 seconds"),
        ({"seconds": -1.0}, "-1.0 seconds"),
        ({"seconds": math.inf}, "inf seconds"),
        ({"seconds": math.nan}, "nan seconds"),
        ({"labels": {"d": 1.0}}, "knows no label d"),
        ({"labels": {"a": -1.0}}, "weight of -1.0 for a"),
        ({"labels": {"a": math.nan}}, "weight of nan for a"),
        ({"labels": {"a": math.inf}}, "weight of inf for a"),
        ({"render_steps": 0}, "step"),
    ],
)
def test_what_is_not_possible_is_refused_with_a_hint(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        model().generate(1, GenerateSettings(**{"steps": 1, "seconds": 0.1, **wrong}))
    assert "\n" not in caught.value.message


def test_a_model_that_knows_no_labels_says_so() -> None:
    with pytest.raises(TaskError, match="knows no label a") as caught:
        invented(0, (), labels={"a": 1.0})
    assert "leave out" in caught.value.hint
    with pytest.raises(TaskError, match="knows no label d") as caught:
        invented(labels={"d": 1.0})
    assert "a, b, c" in caught.value.hint


def test_without_a_renderer_phases_have_to_do() -> None:
    settings = GenerateSettings(steps=2, seconds=0.5)
    plain = model(renderer=False)
    sounds = plain.generate(2, settings)
    assert sounds.shape == (2, 4096)  # whole frames
    assert not torch.equal(*sounds)
    mels = Invented(plain.denoiser, plain.preset, MADE, settings, plain.device)
    start = Start(mels, plain.preset, 0, noise.derive_seed(0, 0))
    before = lead(plain.preset)
    torch.testing.assert_close(sounds[:1], start.read(before, before + 4096))
    with pytest.raises(TaskError, match="not to generate"):
        load("denoise-16k", "cpu").generate(1)
    with pytest.raises(TaskError, match="not to vocode"):
        model().vocode(torch.zeros(64, 5))


def test_a_one_shot_stays_within_full_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    made, settings = model(20), GenerateSettings(steps=2)
    plain = made.generate(2, settings)
    loudest = float(plain.abs().max())
    monkeypatch.setattr(models, "LOUDEST", loudest / 2)
    softer = made.generate(2, settings)
    peaks = plain.abs().amax(1, keepdim=True)
    torch.testing.assert_close(softer, plain * (loudest / 2 / peaks).clamp(max=1))
    assert float(softer.abs().max()) == pytest.approx(loudest / 2)
