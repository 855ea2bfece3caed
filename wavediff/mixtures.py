"""Noisy mixtures made on the fly: each batch is a pure function of the seed and the step."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor

from wavediff import data, degrade
from wavediff.data import Clips
from wavediff.degrade import Sound

MARGIN = 256  # samples that wrap around when the speed changes, cut off afterwards
SILENT = 1e-5  # RMS below which a sound counts as none


def _rising(given: tuple[float, float]) -> tuple[float, float]:
    if given[0] > given[1]:
        raise ValueError("the first number is above the second")
    return given


Range = Annotated[tuple[float, float], AfterValidator(_rising)]


class MixtureConfig(BaseModel):
    """How mixtures are drawn. Chances are per item, levels in dB."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    snr: Range = Field((-5.0, 20.0), description="speech to noise, over active speech, dB")
    clean: float = Field(0.04, ge=0, le=1, description="chance of speech without noise")
    noise_only: float = Field(0.04, ge=0, le=1, description="chance of noise without speech")
    level: Range = Field((-32.0, -20.0), description="RMS of the mixture, dB")
    speed: float = Field(0.1, ge=0, lt=0.5, description="speed change of speech, up and down")
    equaliser: float = Field(5.0, ge=0, description="depth of random equalising, dB")
    room: float = Field(0.35, ge=0, le=1, description="chance of a room around the speech")
    measured_room: float = Field(0.3, ge=0, le=1, description="share of rooms from recordings")
    babble: float = Field(0.08, ge=0, le=1, description="chance that a noise is other voices")
    coloured: float = Field(0.12, ge=0, le=1, description="chance that a noise is synthetic")
    modulated: float = Field(0.2, ge=0, le=1, description="chance that a noise's level wanders")
    band_limit: float = Field(
        0.04, ge=0, le=1, description="chance that the mixture is band-limited"
    )
    clipping: float = Field(0.04, ge=0, le=1, description="chance that the mixture is clipped")
    codec: float = Field(0.05, ge=0, le=1, description="chance that a lossy codec has been used")


@dataclass(frozen=True)
class Mixtures:
    """Draws (noisy, clean) batches from clips of speech, noise and room responses."""

    speech: Clips
    noise: Clips | None
    rooms: tuple[np.ndarray, ...]  # (taps,) each, from the direct sound on, at the speech's rate
    config: MixtureConfig
    samples: int  # of a crop
    seed: int
    balance: float = 0.5  # see `Clips.draw`

    def batch(self, step: int, items: range) -> tuple[Tensor, Tensor]:
        """Items of step `step` as (noisy, clean), each (len(items), samples)."""
        drawn = [self._item(np.random.default_rng((self.seed, step, n))) for n in items]
        noisy, clean = zip(*drawn, strict=True)
        return torch.from_numpy(np.stack(noisy)), torch.from_numpy(np.stack(clean))

    def _item(self, rng: np.random.Generator) -> tuple[Sound, Sound]:
        config, rate = self.config, self.speech.rate
        only_noise = rng.random() < config.noise_only
        without_noise = not only_noise and rng.random() < config.clean
        speech = self._voice(rng)
        heard, clean = self._room(rng, speech) if rng.random() < config.room else (speech, speech)
        level = degrade.active_level(heard, rate)
        if only_noise or level < SILENT:
            heard = clean = np.zeros_like(speech)
            level = 0.1
        noisy = heard
        if not without_noise:
            noise = self._noises(rng)
            wanted = level * 10 ** (-rng.uniform(*config.snr) / 20)
            noisy = heard + noise * (wanted / max(degrade.active_level(noise, rate), SILENT))
        noisy = self._microphone(rng, noisy)
        gain = 10 ** (rng.uniform(*config.level) / 20) / max(degrade.rms(noisy), SILENT)
        noisy, clean = noisy * gain, clean * gain
        if rng.random() < config.codec:
            noisy = degrade.through_codec(rng, noisy, rate)
        return noisy, clean

    def _voice(self, rng: np.random.Generator) -> Sound:
        """A crop of speech at another speed, equalised; (samples,)."""
        factor = 1 + rng.uniform(-1, 1) * self.config.speed
        return self._crop(rng, self.speech, factor, self.config.equaliser)

    def _crop(self, rng: np.random.Generator, clips: Clips, factor: float, depth: float) -> Sound:
        clip = clips.draw(rng, self.balance)
        wanted = degrade.fast_length(self.samples + 2 * MARGIN)
        taken = degrade.fast_length(int(wanted * factor))
        spare = int(clips.lengths[clip]) - taken
        if spare >= 0:
            piece = clips.crop(clip, int(rng.integers(spare + 1)), taken)
        else:  # a short clip comes somewhere within the crop
            piece = clips.crop(clip, 0, taken).roll(int(rng.integers(-spare + 1)))
        response = degrade.equaliser(rng, wanted // 2 + 1, depth)
        return degrade.respeed(piece.numpy(), wanted, response)[MARGIN : MARGIN + self.samples]

    def _room(self, rng: np.random.Generator, speech: Sound) -> tuple[Sound, Sound]:
        """The speech as heard in a room, and as it should come out."""
        rate = self.speech.rate
        if self.rooms and rng.random() < self.config.measured_room:
            response = self.rooms[int(rng.integers(len(self.rooms)))]
        else:
            response = degrade.from_direct(degrade.simulate_room(rng, rate))
        both = np.stack((response, degrade.early_part(response, rate)))
        wet, clean = degrade.convolve(speech, both)
        return wet, clean

    def _noises(self, rng: np.random.Generator) -> Sound:
        """One to three noises added, (samples,)."""
        total = np.zeros(self.samples, np.float32)
        for _ in range(int(rng.choice((1, 1, 2, 3)))):
            noise = self._noise(rng)
            if rng.random() < self.config.modulated:
                noise = degrade.modulate(rng, noise, self.speech.rate)
            level = degrade.rms(noise)
            if level > SILENT:
                total += noise * (10 ** (-rng.uniform(0, 15) / 20) / level)
        return total

    def _noise(self, rng: np.random.Generator) -> Sound:
        config, kind = self.config, rng.random()
        if kind < config.babble:
            babble = np.zeros(self.samples, np.float32)
            for _ in range(int(rng.integers(2, 7))):
                voice = self._voice(rng)
                level = max(degrade.rms(voice), SILENT)
                babble += voice * (10 ** (-rng.uniform(0, 10) / 20) / level)
            return self._room(rng, babble)[0] if rng.random() < 0.5 else babble
        if kind < config.babble + config.coloured or self.noise is None:
            if rng.random() < 0.25:
                return degrade.hum(rng, self.samples, self.speech.rate)
            return degrade.coloured_noise(rng, self.samples)
        factor = 2 ** rng.uniform(-0.5, 0.5)
        return self._crop(rng, self.noise, factor, 2 * config.equaliser)

    def _microphone(self, rng: np.random.Generator, sound: Sound) -> Sound:
        """What a poor recorder does to the mixture."""
        if rng.random() < self.config.band_limit:
            cutoff = float(rng.choice((3400, 4000, 5500, 7000)))
            if cutoff < self.speech.rate / 2.2:
                bins = self.samples // 2 + 1
                response = degrade.low_pass(bins, self.speech.rate, cutoff)
                sound = degrade.apply_response(sound, response)
        if rng.random() < self.config.clipping:
            sound = degrade.clip_peaks(sound, 10 ** rng.uniform(-3, -1))
        return sound


@dataclass(frozen=True)
class Pairs:
    """Draws (noisy, clean) batches from recordings that exist in both forms."""

    noisy: Clips
    clean: Clips
    samples: int
    seed: int
    balance: float = 0.5  # see `Clips.draw`
    level: Range = (-32.0, -20.0)  # RMS of the crop, dB

    def batch(self, step: int, items: range) -> tuple[Tensor, Tensor]:
        """Items of step `step` as (noisy, clean), each (len(items), samples)."""
        both = []
        for n in items:
            rng = np.random.default_rng((self.seed, step, n))
            clip = self.noisy.draw(rng, self.balance)
            spare = max(0, int(self.noisy.lengths[clip]) - self.samples)
            start = int(rng.integers(spare + 1))
            pair = [clips.crop(clip, start, self.samples) for clips in (self.noisy, self.clean)]
            rms = pair[0].pow(2).mean().sqrt().clamp(min=SILENT)
            gain = 10 ** (rng.uniform(*self.level) / 20) / rms
            both.append(torch.stack(pair) * gain)
        noisy, clean = torch.stack(both).unbind(1)
        return noisy, clean


def room_responses(folder: Path | None, rate: int) -> tuple[np.ndarray, ...]:
    """The room responses below `folder` at `rate`, from the direct sound on, 2 s at most."""
    if folder is None:
        return ()
    clips = data.load([folder], rate)
    responses = []
    for clip in range(len(clips)):
        response = clips.crop(clip, 0, int(clips.lengths[clip])).numpy()
        response = degrade.from_direct(response)[: 2 * rate]
        if response[0]:  # the loudest tap: silence is no room
            responses.append(response / response[0])
    return tuple(responses)
