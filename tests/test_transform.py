"""Lapped transforms: nothing is lost, frames lie where they are said to lie."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wavediff.transform import Transform, squared

HALF = [Transform(2, 1), Transform(64, 32), Transform(512, 256), Transform(90, 45)]
QUARTER = [Transform(8, 2), Transform(64, 16), Transform(1024, 256)]
EIGHTH = [Transform(64, 8)]
HANN = [Transform(64, 32, 1.0), Transform(64, 16, 1.0), Transform(1024, 256, 1.0)]


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(shape[-1])) * 2 - 1


@pytest.mark.parametrize("transform", HALF + QUARTER + EIGHTH + HANN, ids=str)
def test_synthesis_gives_back_what_was_analysed(transform: Transform) -> None:
    @settings(max_examples=40, deadline=None)
    @given(st.integers(1, 5 * transform.window))
    def check(samples: int) -> None:
        audio = noise(2, samples)
        spectrum = transform.analyse(audio)
        assert spectrum.shape == (2, transform.frames(samples), transform.bins)
        again = transform.synthesise(spectrum, samples)
        torch.testing.assert_close(again, audio, rtol=0, atol=1e-6)

    check()


@pytest.mark.parametrize("transform", HALF + QUARTER + HANN, ids=str)
@pytest.mark.parametrize("frame", [0, 3, 9])
def test_a_frame_is_centred_on_its_number_times_the_hop(transform: Transform, frame: int) -> None:
    impulse = torch.zeros(1, 9 * transform.hop + 1)
    impulse[0, frame * transform.hop] = 1
    spectrum = transform.analyse(impulse)[0]
    # An impulse in the middle of the window: magnitude 1, the sign alternating from bin to bin.
    signs = (-1.0) ** torch.arange(transform.bins)
    torch.testing.assert_close(spectrum[frame], signs.to(torch.complex64), rtol=0, atol=2e-6)
    magnitude = spectrum.abs()
    overlapping = transform.window // 2 // transform.hop - 1
    for other in range(len(spectrum)):
        if abs(other - frame) > overlapping:
            assert magnitude[other].max() < 1e-6
        elif 0 <= (mirrored := 2 * frame - other) < len(spectrum):
            torch.testing.assert_close(magnitude[other], magnitude[mirrored])


@pytest.mark.parametrize("transform", HALF + QUARTER + HANN, ids=str)
def test_a_shift_by_a_hop_is_a_shift_by_a_frame(transform: Transform) -> None:
    audio = noise(1, 20 * transform.hop)
    later = torch.cat((torch.zeros(1, transform.hop), audio), 1)
    torch.testing.assert_close(transform.analyse(later)[:, 1:], transform.analyse(audio))


@pytest.mark.parametrize(
    "transform", [Transform(64, 32), Transform(64, 16), Transform(64, 16, 1.0)], ids=str
)
def test_what_a_frame_says_stays_under_its_window(transform: Transform) -> None:
    spectrum = torch.zeros(1, 21, transform.bins, dtype=torch.complex64)
    spectrum[0, 10] = torch.complex(noise(transform.bins), noise(transform.bins + 1)[1:])
    sound = transform.synthesise(spectrum, 20 * transform.hop)[0]
    middle, half = 10 * transform.hop, transform.window // 2
    assert sound[middle - half : middle + half].abs().max() > 0.01
    assert not sound[: middle - half + 1].any()
    assert not sound[middle + half :].any()


def test_without_a_power_the_window_is_the_root_of_hann() -> None:
    root = torch.hann_window(64, periodic=True).sqrt()
    assert torch.equal(Transform(64, 16).taper(root.device), root)
    assert torch.equal(Transform(64, 16, 0.5).taper(root.device), root)


def test_the_first_power_gives_the_frames_of_torch() -> None:
    audio = noise(2, 4096)
    spectrum = torch.stft(
        audio, 1024, 256, window=torch.hann_window(1024), pad_mode="constant", return_complex=True
    )
    ours = Transform(1024, 256, 1.0).analyse(audio)
    torch.testing.assert_close(ours, spectrum.mT, rtol=0, atol=1e-4)


@pytest.mark.parametrize("transform", QUARTER + HANN, ids=str)
def test_synthesis_is_the_nearest_sound_to_any_spectrum(transform: Transform) -> None:
    """Its own spectrum is then a projection: what is left over is orthogonal to every sound's."""
    samples = 6 * transform.window
    shape = 1, transform.frames(samples), transform.window
    spectrum = torch.fft.rfft(noise(*shape).double())
    found = transform.analyse(transform.synthesise(spectrum, samples))
    left = torch.fft.irfft(spectrum - found, transform.window)
    other = torch.fft.irfft(transform.analyse(noise(1, samples).double()), transform.window)
    assert left.norm() > 0.1 * other.norm()
    assert abs(float((left * other).sum())) < 1e-5 * float(left.norm() * other.norm())


def test_a_window_first_made_while_rendering_can_be_trained_with() -> None:
    transform = Transform(44, 11)  # no other test uses this one: the window is not yet in the cache
    with torch.inference_mode():
        transform.analyse(noise(1, 100))
    spectrum = transform.analyse(noise(1, 100)).requires_grad_()
    transform.synthesise(spectrum, 100).square().sum().backward()
    assert spectrum.grad is not None
    assert spectrum.grad.abs().max() > 0


@pytest.mark.parametrize(("window", "hop"), [(64, 48), (64, 64), (65, 13), (64, 0), (96, 32)])
def test_a_window_that_does_not_fit_the_hop_is_refused(window: int, hop: int) -> None:
    with pytest.raises(ValueError, match="not a multiple"):
        Transform(window, hop)


@pytest.mark.parametrize("transform", HALF + QUARTER + EIGHTH + HANN, ids=str)
@pytest.mark.parametrize("samples", [1, 37, 700])
def test_the_ways_back_are_those_that_torch_finds(transform: Transform, samples: int) -> None:
    audio = noise(2, samples).requires_grad_()
    frames, half = transform.frames(samples), transform.window // 2
    right = (frames - 1) * transform.hop + half - samples
    framed = F.pad(audio, (half, right)).unfold(-1, transform.window, transform.hop)
    plain = torch.fft.rfft(framed * transform.taper(audio.device))
    weight = noise(2, frames, transform.bins)

    def way_back(spectrum: Tensor, squares: Tensor) -> Tensor:
        loss = (weight * (squares + spectrum.real - 2 * spectrum.imag)).sum()
        return torch.autograd.grad(loss, audio)[0]

    expected = way_back(plain, plain.real.square() + plain.imag.square())
    found = transform.analyse(audio)
    torch.testing.assert_close(found, plain, rtol=0, atol=0)
    most = float(expected.abs().max())
    torch.testing.assert_close(
        way_back(found, squared(found)), expected, rtol=1e-5, atol=1e-5 * most
    )
