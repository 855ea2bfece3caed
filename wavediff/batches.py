"""Batches for a training, from whatever its recipe names, prepared here or by worker processes."""

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wavediff import data
from wavediff.data import Clips, Skipped
from wavediff.errors import DataError, WavediffError
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

    def stream(
        self, first: int, last: int, items: range
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """The batches of steps `first` to `last`, of them the items `items`.

        Raises DataError, also for what happens in a worker process.
        """
        steps = _Steps(self.source, first, last, items)
        loader = DataLoader(
            steps,
            batch_size=None,
            num_workers=self.workers,
            prefetch_factor=4 if self.workers else None,
            worker_init_fn=_one_thread,
        )
        try:
            for batch in loader:
                if isinstance(batch, WavediffError):
                    raise batch
                yield batch
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise DataError(
                "a process that prepares batches was ended from outside",
                "is the memory too small? Set data.workers or data.memory_limit lower",
            ) from error


class _Steps(Dataset[tuple[Tensor, Tensor] | WavediffError]):
    def __init__(self, source: Mixtures | Pairs, first: int, last: int, items: range) -> None:
        self.source, self.first, self.last, self.items = source, first, last, items

    def __len__(self) -> int:
        return max(0, self.last - self.first)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor] | WavediffError:
        try:
            return self.source.batch(self.first + index, self.items)
        except WavediffError as error:  # raised here, it would come out of a worker as a traceback
            return error


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def prepare(recipe: Recipe) -> Batches:
    """Read the folders that a recipe names. Raises DataError when they hold nothing to learn."""
    settings = recipe.data
    samples = round(recipe.training.crop * recipe.rate)
    limit, seed = settings.memory_limit, recipe.training.seed
    if settings.noisy and settings.clean:
        noisy, clean = data.twins(settings.noisy, settings.clean, recipe.rate, limit)
        pairs = Pairs(noisy, clean, samples, seed, settings.balance, recipe.mixture.level)
        return Batches(pairs, (noisy, clean), settings.workers)
    if not settings.speech:
        raise DataError("no folder of clean recordings is named", "wavediff train FOLDER …")
    speech = data.load(list(settings.speech), recipe.rate, limit)
    noise = data.load(list(settings.noise), recipe.rate, limit) if settings.noise else None
    rooms = room_responses(settings.rooms, recipe.rate)
    mixtures = Mixtures(speech, noise, rooms, recipe.mixture, samples, seed, settings.balance)
    clips = (speech,) if noise is None else (speech, noise)
    return Batches(mixtures, clips, settings.workers)
