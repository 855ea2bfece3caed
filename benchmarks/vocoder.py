"""A vocoder on recordings by way of their mels, beside what needs no network.

python benchmarks/vocoder.py FOLDER --model vocode-22k --steps 1,2

Recordings are brought to the model's rate, mono, at most 10 s of each. PESQ-WB and MR-STFT are
means over the files; work is seconds of it per second of sound, on one thread.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import wavediff
from wavediff.audio import ArraySource, Source, read
from wavediff.data import find
from wavediff.mel import MelPreset, linear
from wavediff.metrics import mr_stft, pesq_wb
from wavediff.model import Model
from wavediff.phase import griffin_lim
from wavediff.resample import resample
from wavediff.vocoding import (
    Mels,
    Part,
    Start,
    VocodeSettings,
    framed,
    lead,
    resynthesised,
    transform_of,
)

LONGEST = 10  # seconds
ITERATIONS = 32  # of Griffin-Lim


def main() -> None:
    """Print a row for each system."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="vocode-22k")
    parser.add_argument("--steps", default="1,2")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = wavediff.load(given.model, "cpu")
    rate = model.rate
    sounds = []
    for path in find([given.folder]):
        sound, own = read(path)
        sounds.append(resample(sound.mean(0, keepdim=True), own, rate)[:, : LONGEST * rate])
    systems: dict[str, Callable[[Tensor], Source]] = {
        f"Griffin-Lim, {ITERATIONS} iterations": lambda sound: by_griffin_lim(sound, model.preset),
        "phases along peaks": lambda sound: by_start(sound, model),
    }
    for steps in map(int, given.steps.split(",")):
        systems[f"{given.model}, {steps} steps"] = by_model(model, VocodeSettings(steps=steps))
    print(f"{len(sounds)} files\n{'':28} {'PESQ-WB':>8} {'MR-STFT':>8} {'work':>7}")
    for name, system in systems.items():
        scores, work = [], 0.0
        for sound in sounds:
            begin = time.perf_counter()
            made = system(sound)
            result = made.read(0, made.samples)[0]
            work += time.perf_counter() - begin
            scores.append((pesq_wb(sound[0], result, rate), mr_stft(sound[0], result, rate)))
        pesq, distance = (statistics.mean(column) for column in zip(*scores, strict=True))
        seconds = sum(sound.shape[1] for sound in sounds) / rate
        print(f"{name:28} {pesq:8.3f} {distance:8.3f} {work / seconds:7.4f}", flush=True)


def by_model(model: Model, settings: VocodeSettings) -> Callable[[Tensor], Source]:
    """The model itself."""
    return lambda sound: model.resynthesise_source(ArraySource(sound, model.rate), settings)


def by_start(sound: Tensor, model: Model) -> Source:
    """What the network of a model observes."""
    preset = model.preset

    def start(mels: Mels) -> Source:
        made = Start(mels, preset, model.recipe.vocode.iterations, 0)
        return Part(made, lead(preset), made.samples - lead(preset))

    return resynthesised(ArraySource(sound, model.rate), preset, start)


def by_griffin_lim(sound: Tensor, preset: MelPreset) -> Source:
    """Phases out of noise, for the magnitudes of the mel's pseudo-inverse."""

    def iterated(mels: Mels) -> Source:
        magnitude = linear(framed(mels.read(0, mels.frames), preset), preset)
        samples = preset.samples(mels.frames) + lead(preset)
        noise = torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
        made = griffin_lim(magnitude, transform_of(preset), samples, noise, ITERATIONS)
        return ArraySource(made[:, lead(preset) :], preset.rate)

    return resynthesised(ArraySource(sound, preset.rate), preset, iterated)


if __name__ == "__main__":
    main()
