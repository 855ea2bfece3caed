"""Batches for a training, from whatever its recipe names, prepared here or by worker processes."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wavediff import data
from wavediff.data import Clips, Skipped
from wavediff.errors import DataError
from wavediff.mixtures import Mixtures, Pairs, room_responses
from wavediff.recipe import Recipe


@dataclass(frozen=True)
class Batches:
    """A source of (noisy, clean) batches, and the clips that it draws from."""

    source: Mixtures | Pairs
    clips: tuple[Clips, ...]
    workers: int

    @property
    def skipped(self) -> list[Skipped]:
        """Files that could not be used."""
        return [skipped for clips in self.clips for skipped in clips.skipped]

    def stream(self, first: int, last: int, items: range) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of steps `first` to `last`, of them the items `items`."""
        steps = _Steps(self.source, first, last, items)
        loader = DataLoader(
            steps,
            batch_size=None,
            num_workers=self.workers,
            prefetch_factor=4 if self.workers else None,
            worker_init_fn=_one_thread,
        )
        yield from loader


class _Steps(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, source: Mixtures | Pairs, first: int, last: int, items: range) -> None:
        self.source, self.first, self.last, self.items = source, first, last, items

    def __len__(self) -> int:
        return max(0, self.last - self.first)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.source.batch(self.first + index, self.items)


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def prepare(recipe: Recipe) -> Batches:
    """Read the folders that a recipe names. Raises DataError when they hold nothing to learn."""
    settings = recipe.data
    samples = round(recipe.training.crop * recipe.rate)
    limit, seed = settings.memory_limit, recipe.training.seed
    if settings.noisy and settings.clean:
        noisy, clean = data.twins(settings.noisy, settings.clean, recipe.rate, limit)
        return Batches(Pairs(noisy, clean, samples, seed), (noisy, clean), settings.workers)
    if not settings.speech:
        raise DataError("no folder of clean recordings is named", "wavediff train FOLDER …")
    speech = data.load(list(settings.speech), recipe.rate, limit)
    noise = data.load(list(settings.noise), recipe.rate, limit) if settings.noise else None
    rooms = room_responses(settings.rooms, recipe.rate)
    mixtures = Mixtures(speech, noise, rooms, recipe.mixture, samples, seed, settings.balance)
    clips = (speech,) if noise is None else (speech, noise)
    return Batches(mixtures, clips, settings.workers)
