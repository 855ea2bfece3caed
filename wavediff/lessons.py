"""What a classifier learns from: log-mels, varied and mixed, with the answers."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def lessons(
    mels: Tensor, label: Tensor, labels: int, items: Tensor, drawn: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Varied log-mels of the clips `items`, and what is to be answered, (items, labels).

    Of all clips `mels` is (clips, bands, frames), `label` the place of each one's label.

    Half of them are on the way to another clip of their label, as a new kit or voice may be. All
    have something of another item in them, mostly little, and the answer has as much of its label
    (Zhang et al. 2018): what lies between labels is then answered with doubt.
    """
    half = torch.rand(2, len(items), generator=drawn)
    counts = label.bincount(minlength=labels)
    first = counts.cumsum(0) - counts  # of each label, in the order of labels
    mate = first[label[items]] + (half[0] * counts[label[items]]).long()
    way = (2 * half[1] - 1).clamp(min=0)[:, None, None]
    heard = varied(torch.lerp(mels[items], mels[label.argsort()[mate]], way), drawn)
    answer = F.one_hot(label[items], labels).float()
    other = torch.randperm(len(items), generator=drawn)
    share = 0.5 * torch.rand(len(items), 1, generator=drawn) ** 4
    return (
        torch.lerp(heard, heard[other], share[..., None]),
        torch.lerp(answer, answer[other], share),
    )


def varied(mels: Tensor, drawn: torch.Generator) -> Tensor:
    """Log-mels (batch, bands, frames), each as another speaker, kit or room might give it.

    Moved by up to a tenth of the time, stretched by up to a sixth of it and a twelfth of the bands,
    of another colour, over a noise, with some bands and some time missing.
    """
    batch, bands, frames = mels.shape

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(batch, *shape, generator=drawn)

    # A row maps a place in the result to one in the original, both from -1 to 1 over the picture.
    maps = torch.zeros(batch, 2, 3)
    maps[:, 0, 0] = draw(-0.15, 0.15).exp()
    maps[:, 0, 2] = maps[:, 0, 0] - 1 + draw(-0.2, 0.1)  # the beginning stays, then all is moved
    maps[:, 1, 1] = draw(-0.08, 0.08).exp()
    maps[:, 1, 2] = maps[:, 1, 1] - 1  # the lowest band stays, as in a sound of another pitch
    grid = F.affine_grid(maps, [batch, 1, bands, frames], align_corners=False)
    x = F.grid_sample(mels[:, None], grid, align_corners=False)[:, 0]

    place = torch.linspace(0, math.pi, bands)
    waves = torch.stack([(n * place).cos() for n in range(1, 5)])
    colour = draw(-0.05, 0.05, 4) @ waves
    x = torch.where(x > 0, x + colour[:, :, None], 0)
    floor = draw(-0.5, 0.45, 1, 1) + 0.03 * torch.randn(x.shape, generator=drawn)
    x = torch.maximum(x, floor).clamp(0, 1)

    for size, shape in ((bands, (-1, bands, 1)), (frames, (-1, 1, frames))):
        first, width = draw(0, size, 1), draw(0, size / 6, 1)
        index = torch.arange(size)
        x = x.masked_fill(((index >= first) & (index < first + width)).reshape(shape), 0)
    return x
