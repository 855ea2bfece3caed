"""Sounds to train on, made when they are needed, and the smallest recipe that learns from them."""

from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from wavediff import recipe as recipes
from wavediff.recipe import Recipe

RATE = 8000
NETWORK = {
    "window": 64,
    "hop": 32,
    "bands": 4,
    "channels": 8,
    "layers": 2,
    "cycle": 2,
    "mixing": 2,
    "summary": 4,
}


def voice(seed: int, seconds: float, rate: int = RATE) -> np.ndarray:
    """A voiced sound with syllables, (samples,) float32: a few harmonics that come and go."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    pitch = rng.uniform(100, 250)
    tones = sum(np.sin(2 * np.pi * pitch * k * time + rng.uniform(0, 6)) / k for k in range(1, 5))
    syllables = np.clip(np.sin(2 * np.pi * rng.uniform(2, 4) * time), 0, 1)
    return (0.2 * tones * syllables).astype(np.float32)


def hiss(seed: int, seconds: float, rate: int = RATE) -> np.ndarray:
    """White noise, (samples,) float32."""
    rng = np.random.default_rng(1000 + seed)
    return 0.1 * rng.standard_normal(int(seconds * rate), np.float32)


def put(path: Path, sound: np.ndarray, rate: int = RATE, subtype: str | None = None) -> Path:
    """Write (samples,) or (samples, channels); returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, sound, rate, subtype)
    return path


def make(folder: Path, files: int = 4, seconds: float = 2.0) -> Path:
    """A corpus in `folder`: speech/ and noise/."""
    for n in range(files):
        put(folder / "speech" / f"{n}.wav", voice(n, seconds))
        put(folder / "noise" / f"{n}.wav", hiss(n, seconds))
    return folder


def recipe(corpus: Path, **training: Any) -> Recipe:
    """A recipe for `corpus`, with settings of the training, or of others as `section__key`."""
    settings: dict[str, dict[str, Any]] = {
        "network": dict(NETWORK),
        "path": {},
        "loss": {"windows": (64, 256)},
        "mixture": {},
        "data": {"sounds": [corpus / "speech"], "noise": [corpus / "noise"]},
        "training": {"crop": 0.5, "batch": 4, "steps": 12, "warmup": 4, "precision": "fp32"},
    }
    for key, value in training.items():
        section, _, name = key.rpartition("__")
        settings[section or "training"][name] = value
    return recipes.parse({"rate": RATE, **settings}, "the test")
