"""Phases: like the reference's, of known reach, the same by blocks, and near the true ones."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from wavediff.phase import BLOCK, Phased, griffin_lim, locked_phase, reach, with_phase
from wavediff.transform import Transform

MEL = Transform(1024, 256, 1.0)
SMALL = [Transform(16, 4, 1.0), Transform(16, 8), Transform(24, 4, 1.0), Transform(8, 1, 1.0)]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def voice(samples: int, rate: int = 22050, pitch: float = 120.0) -> Tensor:
    """A gliding tone with overtones in syllables, (1, samples)."""
    time = torch.arange(samples, dtype=torch.float64) / rate
    cycles = pitch * time + 15 * torch.sin(2 * math.pi * 0.7 * time) / 2
    tones = sum(torch.sin(2 * math.pi * n * cycles + n * n) / n for n in range(1, 30))
    assert isinstance(tones, Tensor)
    syllables = torch.sin(2 * math.pi * 2 * time).clamp(min=0)
    return (0.2 * tones * syllables)[None].float() + 1e-3 * noise(1, samples)


def plain(
    magnitude: Tensor, transform: Transform, start: Tensor, iterations: int, momentum: float
) -> Tensor:
    """Fast Griffin-Lim by its formula, with the transform's own functions."""
    samples = start.shape[-1]
    found = transform.analyse(start)
    mixed = found
    for iteration in range(iterations):
        sound = transform.synthesise(mixed.sgn() * magnitude, samples)
        before, found = found, transform.analyse(sound)
        mixed = found + momentum * (found - before) if iteration else found
    return transform.synthesise(mixed.sgn() * magnitude, samples)


def distance(sound: Tensor, magnitude: Tensor, transform: Transform = MEL) -> float:
    """How far a sound is from having these magnitudes, as a share of them."""
    return float((transform.analyse(sound).abs() - magnitude).norm() / magnitude.norm())


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("samples", [1000, 4096, 5001])
def test_it_is_the_published_recursion(momentum: float, samples: int) -> None:
    magnitude = MEL.analyse(noise(2, samples)).abs()
    start = noise(2, samples, seed=1)
    for iterations in (0, 1, 5):
        theirs = plain(magnitude, MEL, start, iterations, momentum)
        ours = griffin_lim(magnitude, MEL, samples, start, iterations, momentum)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("momentum", [0.0, 0.99])
def test_it_does_as_librosa_does(momentum: float) -> None:
    """With frames on whole hops up to the end, silence beyond, and the same phases to start with.

    In double precision: in single the two differ by as much as either from itself after rounding.
    """
    librosa = pytest.importorskip("librosa")
    samples = 40 * 256
    magnitude = MEL.analyse(voice(samples).double()).abs()
    start = noise(1, samples).double()
    cycles = MEL.analyse(start).angle() / (2 * math.pi)

    class Given(np.random.RandomState):
        def random(self, size: object = None) -> np.ndarray:  # type: ignore[override]
            return cycles[0].T.numpy()

    theirs = librosa.griffinlim(
        magnitude[0].T.numpy(),
        n_iter=16,
        hop_length=256,
        window=MEL.taper(magnitude.device).double().numpy(),
        momentum=momentum,
        pad_mode="constant",
        random_state=Given(),
    )
    ours = griffin_lim(magnitude, MEL, samples, start, 16, momentum)
    assert ours.abs().max() > 0.1
    np.testing.assert_allclose(ours[0].numpy(), theirs, atol=1e-5)


@pytest.mark.parametrize("iterations", [0, 1, 3])
@pytest.mark.parametrize("transform", SMALL, ids=str)
def test_a_sample_depends_on_its_reach_and_on_no_more(
    transform: Transform, iterations: int
) -> None:
    span = reach(transform, iterations)
    samples = 2 * span + 8 * transform.window
    magnitude = transform.analyse(noise(1, samples).double()).abs() + 0.1
    start = noise(1, samples, seed=1).double()
    whole = griffin_lim(magnitude, transform, samples, start, iterations)
    farthest = 0
    for place in range(samples // 2, samples // 2 + transform.hop):
        other = start.clone()
        other[0, place] += 3
        changed = griffin_lim(magnitude, transform, samples, other, iterations)[0] != whole[0]
        where = changed.nonzero()[:, 0] - place
        assert where.abs().max() <= span
        farthest = max(farthest, int(where.abs().max()))
    assert farthest == span


@pytest.mark.parametrize("iterations", [0, 4, 16])
def test_blocks_with_their_reach_equal_the_whole(iterations: int) -> None:
    samples, hop = 250 * 256 - 77, MEL.hop
    magnitude = MEL.analyse(noise(1, samples)).abs()
    start = noise(1, samples, seed=1)
    whole = griffin_lim(magnitude, MEL, samples, start, iterations)
    halo = -(-reach(MEL, iterations) // hop) * hop
    block = 60 * hop
    for first in range(0, samples, block):
        last = min(first + block, samples)
        begin, end = max(0, first - halo), min(samples, last + halo)
        frames = slice(begin // hop, begin // hop + MEL.frames(end - begin))
        part = griffin_lim(magnitude[:, frames], MEL, end - begin, start[:, begin:end], iterations)
        torch.testing.assert_close(
            part[:, first - begin : last - begin], whole[:, first:last], rtol=0, atol=1e-4
        )


def test_iterations_and_momentum_bring_a_sound_nearer_to_its_magnitudes() -> None:
    magnitude = MEL.analyse(voice(22050)).abs()
    start = noise(1, 22050)
    few, many, slow = (
        distance(griffin_lim(magnitude, MEL, 22050, start, iterations, momentum), magnitude)
        for iterations, momentum in ((4, 0.99), (32, 0.99), (32, 0.0))
    )
    assert many < slow < few
    assert many < 0.5 * few


def test_a_sound_with_the_right_phases_is_kept() -> None:
    sound = voice(11025)
    spectrum = MEL.analyse(sound)
    for start in (sound, spectrum, 3 * spectrum):
        kept = griffin_lim(spectrum.abs(), MEL, 11025, start, 8)
        torch.testing.assert_close(kept, sound, rtol=0, atol=1e-5)


def test_silence_stays_silent_and_silent_bins_do_no_harm() -> None:
    silent = torch.zeros(1, MEL.frames(5000), MEL.bins)
    first = torch.zeros(1, MEL.bins)
    assert not griffin_lim(silent, MEL, 5000, noise(1, 5000), 4).any()
    assert not griffin_lim(silent + 1, MEL, 5000, torch.zeros(1, 5000), 4).any()
    assert locked_phase(silent, MEL, first).isfinite().all()
    magnitude = MEL.analyse(voice(5000)).abs()
    magnitude[..., 200:] = 0
    magnitude[:, 9:12] = 0
    for start in (noise(1, 5000), with_phase(magnitude, locked_phase(magnitude, MEL, first))):
        sound = griffin_lim(magnitude, MEL, 5000, start, 4)
        assert sound.isfinite().all()
        assert distance(sound, magnitude) < 0.5


def test_what_comes_out_can_be_trained_with() -> None:
    magnitude = MEL.analyse(noise(1, 2000)).abs().requires_grad_()
    sound = griffin_lim(magnitude, MEL, 2000, noise(1, 2000), 1)
    weight = torch.ones(1, requires_grad=True)
    (weight * sound).square().sum().backward()
    assert weight.grad is not None
    assert weight.grad.abs() > 0


@pytest.mark.parametrize("hertz", [300.0, 1234.5, 5000.0])
def test_the_phase_of_a_tone_goes_on_by_its_frequency(hertz: float) -> None:
    rate = 22050
    tone = torch.sin(2 * math.pi * hertz / rate * torch.arange(rate))[None]
    spectrum = MEL.analyse(tone)[:, 10:60]
    phase = locked_phase(spectrum.abs(), MEL, torch.zeros(1, MEL.bins))
    near = round(hertz / rate * MEL.window)
    advance = torch.exp(2j * math.pi * phase[0, :, near]).diff().abs()
    assert advance.max() < 2.1
    steps = phase[0, 1:, near] - phase[0, :-1, near] - hertz * MEL.hop / rate
    assert (steps - steps.round()).abs().max() < 0.02  # of a cycle, for each frame


def test_a_click_is_put_where_it_was() -> None:
    """Group delays: the bins of each frame agree on the sample on which the click lies."""
    click = torch.zeros(1, 4096)
    click[0, 8 * 256 + 100] = 1
    magnitude = MEL.analyse(click).abs()[:, 7:11]
    phase = locked_phase(magnitude, MEL, torch.zeros(1, MEL.bins))
    for frame in (1, 2):
        delay = -phase[0, frame].diff()
        delay = (delay - delay.round()).median() * MEL.window + (frame + 7) * MEL.hop
        assert abs(float(delay) - (8 * 256 + 100)) < 50  # samples of 1024


def test_locked_phases_are_far_nearer_to_consistent_than_noise() -> None:
    sound = voice(22050)
    magnitude = MEL.analyse(sound).abs()
    locked = with_phase(magnitude, locked_phase(magnitude, MEL, noise(1, MEL.bins)))
    found = distance(griffin_lim(magnitude, MEL, 22050, locked, 0), magnitude)
    assert found < 0.5 * distance(griffin_lim(magnitude, MEL, 22050, noise(1, 22050), 0), magnitude)
    assert found < distance(griffin_lim(magnitude, MEL, 22050, noise(1, 22050), 8), magnitude)


def test_a_batch_is_its_items_and_goes_on_where_it_stopped() -> None:
    magnitude = MEL.analyse(torch.cat((voice(22050), voice(22050, pitch=200.0)))).abs()
    first = noise(2, MEL.bins)
    whole = locked_phase(magnitude, MEL, first)
    for items, frames in ((slice(1, 2), slice(None)), (slice(None), slice(40, None))):
        begin = whole[items, frames][:, 0]
        part = locked_phase(magnitude[items, frames], MEL, begin)
        turned = part - whole[items, frames]
        assert (turned - turned.round()).abs().max() < 1e-3


def test_whatever_is_read_is_that_part_of_the_whole() -> None:
    samples = 3 * BLOCK * 64 + 777
    transform = Transform(256, 64, 1.0)
    magnitude = transform.analyse(torch.cat((voice(samples), voice(samples, pitch=90.0)))).abs()
    asked: list[int] = []

    def read(first: int, last: int) -> Tensor:
        assert 0 <= first < last <= magnitude.shape[1]
        asked.append(last - first)
        return magnitude[:, first:last]

    def source(seed: int = 0) -> Phased:
        return Phased(read, transform, 22050, 2, samples, 3, seed)

    whole = source().read(-10, samples + 10)
    assert whole.shape == (2, samples + 20)
    assert not whole[:, :10].any()
    assert not whole[:, -10:].any()
    assert distance(whole[:, 10:-10], magnitude, transform) < 0.3
    assert not torch.equal(source(1).read(0, samples), source().read(0, samples))
    asked.clear()
    kept = source()
    for start, stop in (
        (40000, 40500), (0, 3), (samples - 5, samples + 9), (-9, 30000), (2 * BLOCK * 64 - 1, 33000)
    ):  # fmt: skip
        for reader in (kept, source()):
            part = reader.read(start, stop)
            expected = whole[:, start + 10 : stop + 10]
            torch.testing.assert_close(part, expected, rtol=0, atol=1e-5)
    assert max(asked) < 3 * BLOCK
    assert kept.read(5, 2).shape == (2, 0)
