"""Checkpoints of the published DiffWave: pickles that are read without executing anything."""

import warnings
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from wavediff.audio import RATES
from wavediff.errors import CheckpointError
from wavediff.published import HOP, PublishedConfig, PublishedNet

HINT = "what can be read is a checkpoint of lmnt-com/diffwave, as its training saves it"
SETTINGS = {  # of ours, by the names that a file's `params` have for them
    "residual_channels": "channels",
    "residual_layers": "layers",
    "dilation_cycle_length": "cycle",
    "n_mels": "bands",
    "noise_schedule": "training_schedule",
    "inference_noise_schedule": "inference_schedule",
}
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
LATE = {"inference_noise_schedule", "unconditional"}  # not in files of before 2021


def read_published(path: Path) -> tuple[PublishedConfig, dict[str, Tensor], dict[str, Any]]:
    """A published checkpoint's configuration, its weights (float32, on the CPU) and its facts.

    Facts are plain numbers under the file's own names: `step`, `sample_rate`, `hop_samples`, the
    learning rate and whatever else its `params` say. Raises CheckpointError for anything else.
    """
    content = _unpickled(path)
    params, model = (_table(path, content, name) for name in ("params", "model"))
    config = _config(path, params)
    facts = {
        key: value
        for key, value in {**params, "step": content.get("step")}.items()
        if isinstance(value, int | float | str) and key not in SETTINGS
    }
    rate, hop = facts.get("sample_rate"), facts.get("hop_samples")
    if not isinstance(rate, int) or not RATES[0] <= rate <= RATES[1]:
        raise CheckpointError(f"{path} is of sounds at a sample rate of {rate} Hz", HINT)
    if config.bands and hop != HOP:
        raise CheckpointError(f"{path} has {hop} samples a frame in place of {HOP}", HINT)
    return config, _weights(path, model, config), facts


def _unpickled(path: Path) -> dict[str, Any]:
    """What a file of torch holds, if that is tensors, numbers and tables of them."""
    if not path.is_file():
        raise CheckpointError(f"{path} is not there", HINT)
    try:
        with warnings.catch_warnings():  # torch's, about what is odd in files of others
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no checkpoint fail in a dozen ways
        if "unsupported global" in str(error).lower():
            raise CheckpointError(
                f"{path} could run code when it is opened, and was not opened",
                "save its weights and params alone, as plain tensors and numbers",
            ) from None
        raise CheckpointError(f"{path} is damaged or no checkpoint of torch", HINT) from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, no checkpoint", HINT)
    return content


def _table(path: Path, content: dict[str, Any], name: str) -> dict[str, Any]:
    table = content.get(name)
    if not isinstance(table, dict) or not all(isinstance(key, str) for key in table):
        raise CheckpointError(f"{path} has no table called {name}", HINT)
    return table


def _config(path: Path, params: dict[str, Any]) -> PublishedConfig:
    """The sizes that the file states: never a default for what its program always wrote."""
    missing = [key for key in SETTINGS if key not in params and key not in LATE]
    if missing:
        raise CheckpointError(f"the params of {path} lack {', '.join(missing)}", HINT)
    settings = {ours: params[key] for key, ours in SETTINGS.items() if key in params}
    if params.get("unconditional"):
        settings["bands"] = 0
    try:
        return PublishedConfig.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "params"
        reason = f"{where}: {first['msg']}".replace("\n", " ")
        raise CheckpointError(f"{path} cannot be used ({reason})", HINT) from None


def _weights(path: Path, model: dict[str, Any], config: PublishedConfig) -> dict[str, Tensor]:
    """The weights, in the order of the network's own, if they are all that it needs."""
    least = 2 * config.layers * 8 * config.channels**2  # bytes, of the layers' convolutions
    if least > path.stat().st_size:  # a file that lies costs no memory
        raise CheckpointError(f"{path} is too small for the sizes that its params state", HINT)
    expected = {name: tensor.shape for name, tensor in PublishedNet(config).state_dict().items()}
    strange = sorted(expected.keys() ^ model.keys())
    if strange:
        what = "lacks" if strange[0] in expected else "has a strange"
        raise CheckpointError(f"{path} {what} {strange[0]!r}", HINT)
    for name, shape in expected.items():
        tensor = model[name]
        if not isinstance(tensor, Tensor) or tensor.shape != shape:
            found = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise CheckpointError(
                f"{path} has {name} as {found}, its params want {tuple(shape)}", HINT
            )
        dense = tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not dense or tensor.dtype not in FLOATS or not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{path} has a {name} that is not of finite numbers", HINT)
    return {name: model[name].detach().float().contiguous() for name in expected}
