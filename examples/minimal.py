"""The whole idea on one page: train a tiny denoiser on sounds made here, then sample from it.

    python examples/minimal.py

takes about half a minute. The sounds are voices of a kind, harmonics of a gliding pitch in
syllables, and noise of a random colour.
"""

import torch
from torch import Tensor

from wavediff.denoiser import Denoiser
from wavediff.losses import LossConfig, denoise_loss
from wavediff.metrics import si_sdr
from wavediff.network import BandNet, NetworkConfig
from wavediff.path import Bridge
from wavediff.samplers import ddim, zero_draw

RATE, LEVEL = 8000, 0.05  # Hz; RMS
SMALL = NetworkConfig(window=256, hop=128, bands=16, channels=24, layers=4, cycle=4, mixing=4)


def mixtures(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy and clean sounds, (count, samples) each, at 0 dB."""
    drawn = torch.Generator().manual_seed(seed)

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, generator=drawn)

    time = torch.arange(RATE) / RATE  # one second
    pitch = between(90, 250) * (1 + between(-0.3, 0.3) * time)  # Hz
    phase = 2 * torch.pi * pitch.cumsum(-1) / RATE
    voice = sum((n * phase).sin() * between(0.1, 1) / n for n in range(1, 16))
    syllables = (2 * torch.pi * (between(2, 5) * time + between(0, 1))).sin().clamp(min=0)
    clean = LEVEL * normal(voice * syllables)

    white = torch.randn(clean.shape, generator=drawn)
    frequency = torch.fft.rfftfreq(white.shape[-1], 1 / RATE).clamp(min=50)
    colour = frequency ** -between(0, 1)
    return clean + LEVEL * normal(torch.fft.irfft(torch.fft.rfft(white) * colour)), clean


def normal(sound: Tensor) -> Tensor:
    return sound / sound.square().mean(-1, keepdim=True).sqrt()


def train(denoiser: Denoiser, steps: int, batch: int = 8) -> None:
    """At a random time the sound is part of the way to the noisy one; guess the clean one."""
    optimizer = torch.optim.AdamW(denoiser.parameters(), 6e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    for step in range(steps):
        noisy, clean = mixtures(batch, seed=step)
        time = torch.rand(batch).clamp(min=1e-3)
        time[: batch // 2] = 1.0  # where sampling begins, and ends if it has one step
        x = denoiser.path.corrupt(clean, noisy, time, torch.randn_like(clean))
        loss = denoise_loss(denoiser(x, noisy, time), clean, LossConfig(), RATE).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.inference_mode()
def sample(denoiser: Denoiser, noisy: Tensor, steps: int) -> Tensor:
    """Walk the path back from the noisy sound, with one guess a step."""
    draw = zero_draw(noisy)

    def guess(x: Tensor, time: float) -> Tensor:
        return denoiser(x, noisy, torch.full((len(x),), time))

    start = denoiser.path.start(noisy, lambda: draw(0))
    return ddim(denoiser.path, guess, start, noisy, denoiser.path.times(steps), draw)


def main(steps: int = 250) -> dict[str, float]:
    """Train, and print the SI-SDR of sounds not trained on, in dB; returned by name too."""
    torch.manual_seed(0)
    denoiser = Denoiser(BandNet(SMALL), Bridge())
    train(denoiser, steps)
    noisy, clean = mixtures(16, seed=10**6)
    sounds = {"noisy": noisy, **{f"{n} steps": sample(denoiser, noisy, n) for n in (1, 4)}}
    scores = {name: sum(map(si_sdr, clean, sound)) / 16 for name, sound in sounds.items()}
    for name, score in scores.items():
        print(f"{name:8} {score:6.2f} dB")
    return scores


if __name__ == "__main__":
    main()
