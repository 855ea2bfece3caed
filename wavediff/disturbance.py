"""Quality as a number with a gradient: the disturbance that PESQ hears beside the clean speech."""

import functools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wavediff.transform import Transform, squared

FRAME = 0.032  # seconds, moved by half of it
BANDS = 49  # evenly wide on the Bark scale, from 0 to HIGHEST
HIGHEST = 8000.0  # Hz
LEVEL = 10**8.36  # the power that speech is brought to between 325 and 3250 Hz: 83.6 dB
FLOOR = 1e-6  # RMS of speech below which it is none


class Ear(NamedTuple):
    """What hearing makes of the bins of a frame, up to HIGHEST."""

    bank: Tensor  # (bins, bands): which bin is in which band
    width: Tensor  # (bands,) Bark
    threshold: Tensor  # (bands,) of hearing, as powers
    exponent: Tensor  # (bands,) of loudness
    emphasis: Tensor  # (bins,) gains of a wide-band headphone on powers
    speech: Tensor  # (bins,) 1 where the level is told

    def to(self, other: Tensor) -> "Ear":
        """The same on the device of another tensor."""
        return Ear(*(x.to(other) for x in self))

    def audible(self, power: Tensor, times: float = 1.0) -> Tensor:
        """The power of each frame, (batch, frames, 1), in bands so far above their thresholds."""
        return torch.where(power > times * self.threshold, power, 0.0).sum(-1, keepdim=True)


def opinion_lost(guess: Tensor, clean: Tensor, rate: int) -> tuple[Tensor, Tensor]:
    """What PESQ takes off its best opinion, 4.5, for each item, (batch,), and whether it can.

    Sounds (batch, samples). ITU-T P.862 (Beerends et al. 2002) with the wide band of P.862.2,
    without its search for delays, since a denoiser makes none, at the sounds' own rate. Silence
    has no quality.
    """
    window = 4 * round(FRAME * rate / 4)
    ear = _ear(window, rate).to(clean)
    transform = Transform(window, window // 2, 1.0)
    heard = []
    for sound in (guess, clean):
        power = squared(transform.analyse(sound))[..., : len(ear.bank)]
        level = (power @ ear.speech).mean(1)[:, None, None]
        heard.append((power * (LEVEL / (level + 1e-12)) * ear.emphasis) @ ear.bank)
    exists = clean.square().mean(-1) > FLOOR**2
    ours, theirs = heard  # (batch, frames, bands): powers, 1 at 0 dB

    # An equaliser is forgiven: the average spectra are made alike, as far as 20 dB.
    speaking = ear.audible(theirs, 100.0) >= 1e7
    count = speaking.sum(1) + 1e-3
    averages = [(x * (x > 100 * ear.threshold) * speaking).sum(1) / count for x in heard]
    ratio = ((averages[0] + 1e3) / (averages[1] + 1e3)).clamp(0.01, 100.0)
    theirs = theirs * ratio[:, None]
    # And so is a level that wanders, nearly from frame to frame.
    gain = (ear.audible(theirs) + 5e3) / (ear.audible(ours) + 5e3)
    gain = 0.8 * gain + 0.2 * F.pad(gain, (0, 0, 1, 0), value=1.0)[:, :-1]
    ours = ours * gain.clamp(3e-4, 5.0)

    loud = [_loudness(x, ear) for x in (ours, theirs)]
    masked = 0.25 * torch.minimum(loud[0], loud[1])
    disturbance = ((loud[0] - loud[1]).abs() - masked).clamp(min=0) * ear.width
    # What has been added disturbs more than what is missing.
    added = ((ours + 50) / (theirs + 50)) ** 1.2
    added = torch.where(added < 3, 0.0, added.clamp(max=12.0))
    weight = ((ear.audible(theirs)[..., 0] + 1e5) / 1e7) ** 0.04
    even = (disturbance.square().sum(-1) * ear.width.sum() + 1e-8).sqrt()
    uneven = (disturbance * added).sum(-1)
    even, uneven = (_over_time((x / weight).clamp(max=45.0)) for x in (even, uneven))
    return 0.1 * even + 0.0309 * uneven, exists


def opinion(lost: Tensor) -> Tensor:
    """The score of P.862.2, 1.02 to 4.64, from the opinion lost."""
    return 0.999 + 4 / (1 + torch.exp(3.8224 - 1.3669 * (4.5 - lost)))


def _loudness(power: Tensor, ear: Ear) -> Tensor:
    """Sones per Bark (Zwicker), 0 below the threshold."""
    over = (0.5 + 0.5 * power / ear.threshold).clamp(min=1.0)
    return 0.1866 * (ear.threshold / 0.5) ** ear.exponent * (over**ear.exponent - 1)


def _over_time(disturbance: Tensor) -> Tensor:
    """(batch, frames) to (batch,): the worst of a third of a second count most, all of them alike.

    The sixth power within 20 frames, the square over all.
    """
    short = max(0, 20 - disturbance.shape[1])
    parts = F.pad(disturbance, (0, short)).unfold(1, 20, 10)
    # In units of its largest: the sixth power of small numbers is nothing in single precision.
    unit = parts.detach().amax(2, keepdim=True) + 1e-4
    each = unit[..., 0] * ((parts / unit) ** 6).mean(2).clamp(min=1e-12) ** (1 / 6)
    return (each.square().mean(1) + 1e-8).sqrt()


@functools.lru_cache(maxsize=4)
@torch.inference_mode(False)
def _ear(window: int, rate: int) -> Ear:
    """For frames of `window` samples at `rate` Hz."""
    bins = int(min(HIGHEST, rate / 2) * window / rate) + 1
    frequency = torch.arange(bins, dtype=torch.float64) * rate / window
    top = float(_bark(torch.tensor(HIGHEST, dtype=torch.float64)))
    band = (_bark(frequency) / top * BANDS).long().clamp(max=BANDS - 1)
    used, band = band.unique(return_inverse=True)  # the lowest bands are narrower than a bin
    bank = F.one_hot(band, len(used)).double()
    centre = (bank * frequency[:, None]).sum(0) / bank.sum(0)
    spacing = rate / window
    first = torch.where(bank > 0, frequency[:, None], torch.inf).amin(0) - spacing / 2
    last = (bank * frequency[:, None]).amax(0) + spacing / 2
    width = _bark(last) - _bark(first.clamp(min=0))
    kilo = centre.clamp(min=20) / 1000
    quiet = 3.64 * kilo**-0.8 - 6.5 * torch.exp(-0.6 * (kilo - 3.3) ** 2) + 1e-3 * kilo**4
    threshold = 10 ** (quiet / 10)
    low_bark = (6 / (_bark(centre) + 2)).clamp(1.0, 2.0)
    exponent = 0.23 * low_bark**0.15
    delay = torch.exp(-2j * torch.pi * frequency / 16_000)
    response = 2.740826 * (1 - delay) ** 2 / (1 - 1.9444777 * delay + 0.94597794 * delay**2)
    emphasis = response.abs().square()
    emphasis[0] = 0
    speech = ((frequency >= 325) & (frequency <= 3250)).double()
    parts = (bank, width, threshold, exponent, emphasis, speech)
    return Ear(*(x.float() for x in parts))


def _bark(frequency: Tensor) -> Tensor:
    """Hz to Bark (Wang et al. 1992)."""
    return 6 * torch.asinh(frequency / 600)
