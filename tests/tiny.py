"""The smallest models that vocode and generate, untrained, and mels to give them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from wavediff import checkpoint, recipe
from wavediff import model as models
from wavediff.mel import PRESETS, mel
from wavediff.trainer import Trainer

NETWORK = {"bands": 4, "channels": 8, "layers": 2, "cycle": 2, "mixing": 2, "summary": 4}
LABELS = ("kick", "snare")


def _save(path: Path, settings: dict[str, Any]) -> Path:
    trainer = Trainer(recipe.parse(settings, "the test"), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    for tensor in trainer.average.values():  # else its last layer, all zeros, would say nothing
        tensor.add_(0.02 * torch.randn(tensor.shape, generator=generator))
    facts = {"name": path.stem, "licence": "CC0-1.0"}
    checkpoint.save(path, models.export(trainer.snapshot({}), facts))
    return path


def vocoder(path: Path, preset: str = "hifigan") -> Path:
    """Save a model of random weights that vocodes."""
    kind = PRESETS[preset]
    network = {"window": kind.window, "hop": kind.hop, **NETWORK}
    task = {"task": "vocode", "rate": kind.rate, "mel": preset}
    return _save(path, {**task, "network": network})


def generator(path: Path, labels: tuple[str, ...] = LABELS, frames: int = 32) -> Path:
    """Save a model of random weights that invents one-shots, its renderer beside it."""
    renderer = vocoder(path.with_name("renderer.safetensors"), "narrow8k")
    settings = {
        "task": "generate",
        "rate": 8000,
        "mel": "narrow8k",
        "generate": {"frames": frames, "renderer": str(renderer)},
        "prior": {"channels": 16, "layers": 2, "cycle": 2, "labels": labels},
    }
    return _save(path, settings)


def mel_of(sound: np.ndarray, preset: str = "hifigan") -> np.ndarray:
    """The mel of (samples,) at the preset's rate, (bands, frames) float32."""
    return mel(torch.from_numpy(sound)[None], PRESETS[preset])[0].contiguous().numpy()
