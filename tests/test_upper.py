"""The network above a denoiser's band: what it may know, how it is trained, and what it brings."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpus import NETWORK
from torch import Tensor

from wavediff import checkpoint, recipe
from wavediff import model as models
from wavediff.audio import ArraySource, read
from wavediff.errors import CheckpointError
from wavediff.fullband import HIGH, LOW, FullBand
from wavediff.resample import resample, resampled
from wavediff.trainer import Trainer
from wavediff.upper import UpperConfig, UpperGains, UpperNet

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
VOICE = Path(__file__).resolve().parent / "data" / "fullband" / "french-actor.flac"
BANDS = (len(HIGH) - 1, len(LOW) - 1, len(LOW) - 1)


def network(layers: int = 3) -> UpperNet:
    torch.manual_seed(0)
    made = UpperNet(UpperConfig(channels=8, layers=layers)).eval().requires_grad_(False)
    made.leave.weight.normal_(0, 0.3)
    return made


def powers(frames: int, channels: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(frames)
    return [torch.rand(channels, frames, n, generator=generator) for n in BANDS]


@pytest.mark.parametrize("layers", [1, 3])
def test_a_gain_depends_on_no_frame_beyond_its_reach(layers: int) -> None:
    made, middle = network(layers), 20
    given = [power.requires_grad_() for power in powers(41)]
    made(*given)[0, middle].sum().backward()
    for power in given:
        assert power.grad is not None
        moved = power.grad[0].abs().sum(-1).nonzero()[:, 0]
        assert int(moved.min()) == middle - made.reach
        assert int(moved.max()) == middle + made.reach


def test_an_untrained_network_leaves_most_of_everything() -> None:
    gains = UpperNet(UpperConfig())(*powers(9))
    torch.testing.assert_close(gains, torch.full_like(gains, 0.881), rtol=0, atol=1e-3)


def test_how_loud_a_recording_is_makes_no_difference() -> None:
    gains = UpperGains(network(), 0.5)(*powers(9))
    louder = UpperGains(network(), 0.05)(*(100 * power for power in powers(9)))
    torch.testing.assert_close(louder, gains, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000, 96_000])
def test_blocks_are_the_whole(rate: int) -> None:
    samples = 20_011
    generator = torch.Generator().manual_seed(rate)
    source = ArraySource(0.1 * torch.randn(2, samples, generator=generator), rate)
    observed = resampled(source, 16_000)
    denoised = ArraySource(0.3 * observed.read(0, observed.samples), 16_000)

    def made() -> FullBand:
        return FullBand(source, observed, denoised, 0.0, UpperGains(network(), 1.0))

    whole, pieces = made().read(0, samples), made()
    edges = [0, 1, 700, 5000, 5001, 19_000, samples]
    parts = [pieces.read(a, b) for a, b in pairwise(edges)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-5)


def upper(sound: Tensor, rate: int) -> Tensor:
    """What lies above 8.2 kHz."""
    spectrum = torch.fft.rfft(sound)
    spectrum[..., : int(8200 / rate * sound.shape[-1])] = 0
    return torch.fft.irfft(spectrum, sound.shape[-1])


def ratio(clean: Tensor, sound: Tensor, rate: int) -> float:
    """Of the clean sound to all else above 8.2 kHz, dB."""
    voice, rest = upper(clean, rate), upper(sound - clean, rate)
    return 10 * math.log10(float(voice.square().sum() / rest.square().sum()))


def in_hiss(decibels: float, rate: int) -> tuple[Tensor, Tensor]:
    """A voice of the tests at `rate` with half a second of silence before it, in white noise."""
    sound, own = read(VOICE)
    clean = torch.nn.functional.pad(resample(sound, own, rate), (rate // 2, 0))
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    noise *= float(clean.square().mean().sqrt()) * 10 ** (-decibels / 20)
    return clean, clean + noise


@pytest.mark.parametrize(("rate", "decibels"), [(44_100, 10), (48_000, 10), (96_000, 20)])
def test_the_package_takes_hiss_off_the_band_above(rate: int, decibels: float) -> None:
    clean, noisy = in_hiss(decibels, rate)
    model = models.load("denoise-16k", "cpu")
    after = model.denoise(noisy, rate)
    assert isinstance(after, Tensor)
    assert ratio(clean, after, rate) > ratio(clean, noisy, rate) + 10
    silence = slice(rate // 10, 2 * rate // 5)
    quieter = upper(after, rate)[:, silence].norm() / upper(noisy, rate)[:, silence].norm()
    assert 20 * math.log10(float(quieter)) < -20


@pytest.mark.parametrize(("decibels", "golden"), [(10, 0.21), (30, 12.04), (60, 37.63)])
def test_the_package_is_as_good_as_it_was(decibels: float, golden: float) -> None:
    clean, noisy = in_hiss(decibels, 44_100)
    after = models.load("denoise-16k", "cpu").denoise(noisy, 44_100)
    assert isinstance(after, Tensor)
    assert ratio(clean, after, 44_100) == pytest.approx(golden, abs=0.2)


@pytest.mark.parametrize("rate", [24_000, 44_100, 48_000])
def test_the_package_leaves_a_good_recording_as_it_is(rate: int) -> None:
    _, noisy = in_hiss(60, rate)
    after = models.load("denoise-16k", "cpu").denoise(noisy, rate)
    assert isinstance(after, Tensor)
    assert ratio(noisy, after, rate) > 15


def test_it_comes_with_every_denoiser_of_its_rate_and_by_its_own_name() -> None:
    plain, named = (models.load(name, "cpu") for name in ("denoise-16k", "denoise-48k"))
    assert (plain.rate, named.rate, named.recipe.task) == (16_000, 16_000, "denoise")
    assert plain.above(16_000) is None
    assert plain.above(8000) is None
    assert plain.above(16_001) is not None
    _, noisy = in_hiss(10, 44_100)
    torch.testing.assert_close(named.denoise(noisy, 44_100), plain.denoise(noisy, 44_100))


def denoiser(path: Path, rate: int) -> Path:
    """Save an untrained denoiser."""
    settings: dict[str, Any] = {"task": "denoise", "rate": rate, "network": NETWORK}
    trainer = Trainer(recipe.parse(settings, "the test"), CPU)
    checkpoint.save(path, models.export(trainer.snapshot({}), {}))
    return path


def trainer(below: Path | str, **training: Any) -> Trainer:
    settings: dict[str, Any] = {
        "task": "upper",
        "rate": 24_000,
        "upper": {"below": str(below), "channels": 8, "layers": 3},
        "training": {
            **{"crop": 0.5, "batch": 4, "steps": 100, "precision": "fp32"},
            **{"learning_rate": 1e-2, "warmup": 5, "optimizer": "adamw", **training},
        },
    }
    return Trainer(recipe.parse(settings, "the test"), CPU)


def batch() -> tuple[Tensor, Tensor]:
    """Bursts of white noise as voices, a steady one around them."""
    generator = torch.Generator().manual_seed(0)
    voice, noise = 0.1 * torch.randn(2, 4, 12_000, generator=generator)
    clean = voice * (torch.arange(12_000) // 2000 % 2)
    return clean + 0.3 * noise, clean


def test_training_learns_when_to_be_silent(tmp_path: Path) -> None:
    made = trainer(denoiser(tmp_path / "below.safetensors", 8000))
    losses = [made.advance(batch()).loss for _ in range(60)]
    assert np.mean(losses[-5:]) < losses[0] - 0.1
    model = models.from_checkpoint(made.snapshot({}), "upper", CPU)
    noisy, clean = (sound[:1] for sound in batch())
    after = model.denoise(noisy, 24_000)
    assert isinstance(after, Tensor)
    assert ratio(clean, after, 24_000) > ratio(clean, noisy, 24_000) + 2


def test_the_parts_of_a_batch_have_the_losses_of_the_whole(tmp_path: Path) -> None:
    below = denoiser(tmp_path / "below.safetensors", 8000)
    whole = trainer(below).advance(batch()).loss
    halves = [
        trainer(below).advance(tuple(tensor[first : first + 2] for tensor in batch()), first).loss
        for first in (0, 2)
    ]
    assert sum(halves) / 2 == pytest.approx(whole, rel=1e-4)


def test_what_lies_above_the_band_of_a_clip_teaches_nothing(tmp_path: Path) -> None:
    made = trainer(denoiser(tmp_path / "below.safetensors", 8000))
    noisy, clean = batch()
    low = torch.fft.rfft(clean)
    low[:, 3000:] = 0  # all above 6 kHz
    clean = torch.fft.irfft(low)
    above = torch.fft.rfft(0.01 * torch.randn(4, 12_000))
    above[:, :5000] = 0  # all below 10 kHz
    draw = made.objective.draw((noisy, clean), 4, torch.Generator().manual_seed(0))
    losses = []
    for noise in (torch.zeros(4, 12_000), torch.fft.irfft(above)):
        losses.append(made.objective((noisy + noise, clean), draw).detach())
    torch.testing.assert_close(losses[1], losses[0], rtol=0.01, atol=0)


def test_a_model_of_its_own_denoiser_carries_it(tmp_path: Path) -> None:
    below = denoiser(tmp_path / "below.safetensors", 8000)
    saved = models.export(trainer(below).snapshot({}), {})
    checkpoint.save(tmp_path / "own.safetensors", saved)
    below.unlink()
    model = models.load(tmp_path / "own.safetensors", "cpu")
    assert (model.rate, model.above(24_000) is not None) == (8000, True)
    assert not any(
        key.startswith("below.")
        for key in models.export(trainer("denoise-16k").snapshot({}), {}).tensors
    )


@pytest.mark.parametrize("below", ["vocode-22k", "nothing-like-it"])
def test_a_partner_that_is_no_denoiser_is_refused(below: str) -> None:
    made = trainer(below)
    with pytest.raises(CheckpointError, match=r"no denoiser|no model"):
        made.advance(batch())
    with pytest.raises(CheckpointError, match=r"no denoiser|no model"):
        models.from_checkpoint(made.snapshot({}), "upper", CPU)
