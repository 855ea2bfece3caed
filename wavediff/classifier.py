"""The judge of generated sounds: a small network that tells the labels of real ones apart."""

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from wavediff.checkpoint import write
from wavediff.errors import CheckpointError, DataError
from wavediff.labelled import Labelled, load_labelled
from wavediff.lessons import lessons
from wavediff.mel import MelPreset, mel
from wavediff.noise import derive_seed
from wavediff.optimizers import Optimizers
from wavediff.resample import resample

FORMAT = "1"  # of the metadata
RANGE = math.log(1e3)  # of the log-mels below their loudest value: 60 dB
QUIETEST = -4.0  # the loudest value of a click at full scale; that of silence lies below
ONSET = 1e-2  # of the peak: what comes before it is silence
BATCH = 64
RATE = 1e-2  # of learning, at its peak
CHECKS = 10  # times that a training is judged on what is held out
SHARE = 0.1  # held out of the training clips when no folder for it is named
HINT = "train one with the sounds that the generator learned from"


class ClassifierConfig(BaseModel):
    """What the network hears, and its size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: int = Field(16_000, ge=4000, le=192_000, description="samples per second, Hz")
    seconds: float = Field(1.0, gt=0, le=30, description="that are heard, from the onset on")
    bands: int = Field(64, ge=16, le=256, description="of the mel spectrogram")
    hop: float = Field(0.016, gt=0, le=1, description="seconds between frames")
    window: float = Field(0.048, gt=0, le=1, description="seconds of a frame")
    channels: tuple[int, ...] = Field(
        (16, 32, 64, 128),
        min_length=1,
        max_length=6,
        description="of the stages, each half as fine",
    )
    features: int = Field(64, ge=2, le=1024, description="that the labels are told by")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of the features hidden in training")

    @property
    def samples(self) -> int:
        """How many samples are heard."""
        return round(self.seconds * self.rate)

    @property
    def preset(self) -> MelPreset:
        """The mel spectrogram's numbers."""
        window, hop = round(self.window * self.rate), round(self.hop * self.rate)
        return MelPreset(
            "classifier", self.rate, window, hop, self.bands, 0, self.rate / 2, centred=True
        )


class Convolution(nn.Module):
    """A 3 by 3 convolution, its weight a matrix, which Muon takes."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.randn(after, 9 * before) * (2 / (9 * before)) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, before, bands, frames) to (batch, after, bands / stride, frames / stride)."""
        return F.conv2d(x, self.weight.unflatten(1, (-1, 3, 3)), None, self.stride, 1)


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first, self.first_norm = Convolution(before, after, stride), nn.BatchNorm2d(after)
        self.second, self.second_norm = Convolution(after, after), nn.BatchNorm2d(after)
        nn.init.zeros_(self.second_norm.weight)  # begins as the shortcut alone
        self.shortcut = nn.Sequential()
        if before != after or stride > 1:
            pool = nn.AvgPool2d(stride, ceil_mode=True)
            self.shortcut = nn.Sequential(pool, nn.Conv2d(before, after, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, before, bands, frames) to (batch, after, bands / stride, frames / stride)."""
        inner = self.second(F.relu(self.first_norm(self.first(x))))
        return F.relu(self.shortcut(x) + self.second_norm(inner))


class Network(nn.Module):
    """A residual network on log-mels as pictures."""

    def __init__(self, config: ClassifierConfig, labels: int) -> None:
        super().__init__()
        first, *rest = config.channels
        self.stem = nn.Conv2d(1, first, 5, 2, 2, bias=False)
        self.norm = nn.BatchNorm2d(first)
        sizes = zip(config.channels, rest, strict=False)
        self.blocks = nn.Sequential(
            Residual(first, first, 1), *(Residual(before, after, 2) for before, after in sizes)
        )
        rows = -(-config.bands // 2 ** len(config.channels))
        self.project = nn.Linear(2 * rows * config.channels[-1], config.features)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.features, labels)

    def forward(self, mels: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, bands, frames) to features (batch, features) and logits (batch, labels)."""
        x = self.stem(mels[:, None]).contiguous(memory_format=torch.channels_last)  # a third faster
        x = self.blocks(F.relu(self.norm(x)))
        # Pooled over time alone: a kick and a tom differ in where their bands are.
        features = F.relu(self.project(torch.cat((x.mean(3), x.amax(3)), 1).flatten(1)))
        return features, self.head(self.dropout(features))


@dataclass(frozen=True)
class Classifier:
    """A trained network, its labels, and what is known of it."""

    config: ClassifierConfig
    labels: tuple[str, ...]
    network: Network
    facts: dict[str, Any] = field(default_factory=dict)  # accuracy, and on how many sounds

    @torch.inference_mode()
    def judge(self, sounds: Sequence[Tensor], rate: int) -> tuple[Tensor, Tensor]:
        """Features (n, features) and probabilities (n, labels) of sounds (samples,) at `rate` Hz.

        What a sound gets does not depend on the others.
        """
        mels = log_mels([resample(sound, rate, self.config.rate) for sound in sounds], self.config)
        return self.judge_mels(mels)

    @torch.inference_mode()
    def judge_mels(self, mels: Tensor) -> tuple[Tensor, Tensor]:
        """The same from `log_mels`."""
        self.network.eval()
        judged = [self.network(piece) for piece in mels.split(BATCH)]
        features, logits = (torch.cat(parts) for parts in zip(*judged, strict=True))
        return features, logits.double().softmax(1)


@dataclass(frozen=True)
class Event:
    """What a training says after a step."""

    step: int  # steps done
    progress: float  # 0 to 1
    loss: float
    accuracy: float | None = None  # on what is held out, where it was measured
    classifier: Classifier | None = None  # after the last step


def log_mels(sounds: Sequence[Tensor], config: ClassifierConfig) -> Tensor:
    """Sounds (samples,) at the classifier's rate as (n, bands, frames), 0 to 1.

    Each begins at its onset, is cut or filled up with silence, and is taken at its own level: 1 is
    its loudest value, 0 is 60 dB below.
    """
    heard = torch.stack([_heard(sound, config.samples) for sound in sounds])
    pieces = []
    for piece in heard.split(BATCH):
        values = mel(piece, config.preset)
        loudest = values.amax((1, 2), keepdim=True).clamp(min=QUIETEST)
        pieces.append((1 + (values - loudest) / RANGE).clamp(min=0))
    return torch.cat(pieces)


def _heard(sound: Tensor, samples: int) -> Tensor:
    """The part of a sound that is judged, at full scale."""
    size = sound.abs()
    peak = float(size.max()) if len(size) else 0.0
    if peak < 1e-6:
        return sound.new_zeros(samples)
    onset = int((size > ONSET * peak).nonzero()[0])
    piece = sound[onset : onset + samples] / peak
    return F.pad(piece, (0, samples - len(piece)))


def train_classifier(
    folders: str | Path | Sequence[str | Path],
    config: ClassifierConfig | None = None,
    *,
    held_out: str | Path | Sequence[str | Path] | None = None,
    steps: int = 1500,
    minutes: float | None = None,
    seed: int = 0,
) -> Iterator[Event]:
    """Learn to tell apart the labels of labelled folders; the last event has the classifier.

    Its accuracy is that on the labelled folders `held_out`, else on a tenth of the clips that is
    not learned from. A training ends after `steps`, or after `minutes` if those are over earlier.
    Raises DataError for folders that cannot be used.
    """
    config = config or ClassifierConfig()
    train = load_labelled(folders, config.rate)
    if held_out is None:
        train, test = train.split(SHARE, seed)
    else:
        test = load_labelled(held_out, config.rate, flat=True)
    truth = places(test, train.labels)
    for what, clips in (("learn from", train), ("judge it by", test)):
        if not len(clips):
            raise DataError(f"too few sounds: none is left to {what}", "give more of every label")
    mels, test_mels = _all_mels(train, config), _all_mels(test, config)
    label = torch.from_numpy(train.label_of)
    counts = torch.bincount(label, minlength=len(train.labels)).float()
    chances = counts.clamp(min=1).rsqrt()[label]  # labels count between alike and by their size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, 0))
        network = Network(config, len(train.labels))
    optimizers = Optimizers(network, muon=True, decay=0.05)
    begin, step, progress = time.monotonic(), 0, 0.0
    while progress < 1:
        drawn = torch.Generator().manual_seed(derive_seed(seed, 1, step))
        items = torch.multinomial(chances, BATCH, True, generator=drawn)
        rate = RATE * min(progress / 0.1 + 0.01, (1 - progress) / 0.9)
        heard, target = lessons(mels, label, len(train.labels), items, drawn)
        loss = _learn(network, optimizers, rate, heard, target, drawn)
        step += 1
        checked = int(progress * CHECKS)
        progress = step / steps
        if minutes is not None:
            progress = max(progress, (time.monotonic() - begin) / 60 / minutes)
        progress = min(progress, 1.0)
        if int(progress * CHECKS) == checked:
            yield Event(step, progress, loss)
            continue
        judge = Classifier(config, train.labels, network)
        right = judge.judge_mels(test_mels)[1].argmax(1).numpy() == truth
        accuracy, classifier = float(right.mean()), None
        if progress == 1:
            found = {n: float(right[truth == n].mean()) for n in np.unique(truth)}
            facts = {
                "accuracy": accuracy,
                "held_out": len(test),
                "accuracy_by_label": {train.labels[n]: share for n, share in found.items()},
                "clips": len(train),
                "steps": step,
                "seed": seed,
            }
            classifier = Classifier(config, train.labels, network.requires_grad_(False), facts)
        yield Event(step, progress, loss, accuracy, classifier)


def places(clips: Labelled, labels: tuple[str, ...]) -> np.ndarray:
    """The place of each clip's label in `labels`. Raises DataError for a label not among them."""
    unknown = [label for label in clips.labels if label not in labels]
    if unknown:
        raise DataError(
            f"the label {unknown[0] or 'of files in no sub-folder'} is not known",
            "the labels are " + ", ".join(labels),
        )
    return np.array([labels.index(label) for label in clips.labels])[clips.label_of]


def _all_mels(clips: Labelled, config: ClassifierConfig) -> Tensor:
    return log_mels([clips.sound(n) for n in range(len(clips))], config)


def _learn(
    network: Network,
    optimizers: Optimizers,
    rate: float,
    mels: Tensor,
    target: Tensor,
    drawn: torch.Generator,
) -> float:
    """One step; returns its loss."""
    network.train()
    with torch.random.fork_rng(devices=[]), torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=drawn)))  # of the dropout
        _, logits = network(mels)
    loss = F.cross_entropy(logits.float(), target)
    optimizers.zero_grad()
    loss.backward()
    optimizers.step(rate)
    return loss.item()


def save(path: Path, classifier: Classifier) -> None:
    """Write beside and rename. Raises CheckpointError when it cannot be written."""
    metadata = {
        "wavediff-classifier": FORMAT,
        "config": classifier.config.model_dump_json(),
        "labels": json.dumps(classifier.labels),
        "facts": json.dumps(classifier.facts),
    }
    write(path, classifier.network.state_dict(), metadata)


def load(path: Path) -> Classifier:
    """Read a classifier. Raises CheckpointError for anything that is not a whole one."""
    if not path.is_file():
        raise CheckpointError(f"{path} is not there", HINT)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            version = metadata.get("wavediff-classifier")
            if version is None:
                raise CheckpointError(f"{path} is not a wavediff classifier", HINT)
            if version != FORMAT:
                raise CheckpointError(
                    f"{path} has format {version}, this wavediff reads {FORMAT}",
                    "install a newer wavediff",
                )
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        config = ClassifierConfig.model_validate_json(metadata.get("config", ""))
        labels, facts = json.loads(metadata.get("labels", "")), json.loads(metadata["facts"])
        if not isinstance(labels, list) or not isinstance(facts, dict):
            raise ValueError("its labels are no list, or its facts no table")
        network = Network(config, len(labels))
        network.load_state_dict(tensors)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is damaged or no classifier ({str(error).splitlines()[0]})", HINT
        ) from None
    network = network.eval().requires_grad_(False)
    return Classifier(config, tuple(map(str, labels)), network, facts)
