"""Published checkpoints: read with their own sizes, nothing executed, anything else refused."""

import collections
import functools
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_published import BOTH, TINY, mel_for, network, noise

from wavediff.errors import CheckpointError
from wavediff.published import PublishedConfig, PublishedNet
from wavediff.published_import import SETTINGS, read_published


def params(config: PublishedConfig = TINY, **changes: Any) -> dict[str, Any]:
    found = {name: getattr(config, ours) for name, ours in SETTINGS.items()}
    found = {name: list(v) if isinstance(v, tuple) else v for name, v in found.items()}
    others = {"n_mels": 80, "unconditional": True} if not config.bands else {"unconditional": False}
    return {**found, "sample_rate": 22050, "hop_samples": 256, "learning_rate": 2e-4} | (
        {"max_grad_norm": None, **others, **changes}
    )


def content(config: PublishedConfig = TINY, **changes: Any) -> dict[str, Any]:
    model = collections.OrderedDict(network(config).state_dict())
    return {"step": 7, "model": model, "optimizer": {}, "params": params(config), **changes}


@functools.cache
def whole(zipped: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content(), file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def refusal(path: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        read_published(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def harmless(path: Path) -> None:
    """What is read is a network, or is refused; any other error fails the test."""
    try:
        config, weights, _ = read_published(path)
    except CheckpointError:
        return
    PublishedNet(config).load_state_dict(weights)


@pytest.mark.parametrize("zipped", [True, False])
@BOTH
def test_a_file_is_read_with_its_own_sizes(
    config: PublishedConfig, zipped: bool, tmp_path: Path
) -> None:
    config = config.model_copy(update={"training_schedule": (0.01, 0.1, 0.2, 0.3)})
    config = config.model_copy(update={"inference_schedule": (0.02, 0.3)})
    path = tmp_path / "it.pt"
    torch.save(content(config), path, _use_new_zipfile_serialization=zipped)
    read, weights, facts = read_published(path)
    assert read == config
    assert facts["step"] == 7
    assert facts["sample_rate"] == 22050
    net = PublishedNet(read)
    net.load_state_dict(weights)
    x, mel, step = noise(1, 512), mel_for(config, 2), torch.tensor([1.5])
    assert torch.equal(net(x, mel, step), network(config)(x, mel, step))


def test_the_names_and_shapes_of_the_weights_are_the_published_ones() -> None:
    layer = {
        "dilated_conv": (16, 8, 3),
        "diffusion_projection": (8, 512),
        "conditioner_projection": (16, 3, 1),
        "output_projection": (16, 8, 1),
    }
    expected = {
        "input_projection": (8, 1, 1),
        "diffusion_embedding.projection1": (512, 128),
        "diffusion_embedding.projection2": (512, 512),
        "spectrogram_upsampler.conv1": (1, 1, 3, 32),
        "spectrogram_upsampler.conv2": (1, 1, 3, 32),
        **{f"residual_layers.{i}.{name}": shape for i in range(3) for name, shape in layer.items()},
        "skip_projection": (8, 8, 1),
        "output_projection": (1, 8, 1),
    }
    state = PublishedNet(TINY).state_dict()
    weights = {k: tuple(v.shape) for k, v in state.items() if k.endswith(".weight")}
    assert weights == {f"{name}.weight": shape for name, shape in expected.items()}
    assert state.keys() == {f"{n}.{part}" for n in expected for part in ("weight", "bias")}


def test_old_files_get_the_defaults_for_what_they_lack(tmp_path: Path) -> None:
    path, old = tmp_path / "old.pt", params()
    del old["unconditional"], old["inference_noise_schedule"]
    torch.save(content(params=old), path)
    assert read_published(path)[0] == TINY
    for always in ("residual_layers", "residual_channels", "noise_schedule", "n_mels"):
        torch.save(content(params={k: v for k, v in old.items() if k != always}), path)
        assert always in refusal(path).message


def weights(**changes: Any) -> dict[str, Any]:
    model = network(TINY).state_dict()
    model.update({name.replace("__", "."): value for name, value in changes.items()})
    return {"model": model}


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "a tensor": (lambda: torch.ones(3), "holds a Tensor"),
    "weights alone": (lambda: network(TINY).state_dict(), "no table called params"),
    "no params": (lambda: content(params=None), "no table called params"),
    "no model": (lambda: content(model=[1]), "no table called model"),
    "numbered weights": (lambda: content(model={0: torch.ones(1)}), "no table called model"),
    "other sizes": (lambda: content(params=params(residual_channels=5)), "(8, 1, 1)"),
    "more layers": (lambda: content(params=params(residual_layers=4)), "lacks 'residual_layers.3"),
    "fewer layers": (lambda: content(params=params(residual_layers=2)), "strange 'residual_layers"),
    "endless layers": (lambda: content(params=params(residual_layers=10**12)), "layers: "),
    "all too large": (
        lambda: content(params=params(residual_layers=1000, residual_channels=4096)),
        "too small",
    ),
    "a text": (lambda: content(params=params(residual_layers="many\n")), "layers: "),
    "no mel": (lambda: content(params=params(unconditional=True)), "strange 'residual_layers.0.c"),
    "a schedule": (lambda: content(params=params(noise_schedule=[0.1, 2])), "between 0 and 1"),
    "a rate": (lambda: content(params=params(sample_rate=0)), "sample rate of 0"),
    "a hop": (lambda: content(params=params(hop_samples=200)), "200 samples a frame"),
    "a shape": (lambda: content(**weights(skip_projection__bias=torch.ones(5))), "(5,)"),
    "no tensor": (lambda: content(**weights(skip_projection__bias=1.0)), "as float"),
    "NaN": (
        lambda: content(**weights(skip_projection__bias=torch.full((8,), torch.nan))),
        "finite",
    ),
    "integers": (lambda: content(**weights(skip_projection__bias=torch.arange(8))), "finite"),
    "sparse": (lambda: content(**weights(skip_projection__bias=torch.ones(8).to_sparse())), "fin"),
    "void": (lambda: content(**weights(skip_projection__bias=torch.ones(8, device="meta"))), "fin"),
}


@pytest.mark.parametrize(("made", "message"), BAD.values(), ids=BAD.keys())
def test_other_contents_are_refused(made: Callable[[], Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.pt"
    torch.save(made(), path)
    assert message in refusal(path).message


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert "not there" in refusal(tmp_path / "absent.pt").message
    refusal(tmp_path)
    (tmp_path / "text.pt").write_text("<html>404 not found</html>" * 100)
    refusal(tmp_path / "text.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_cut_anywhere_it_is_refused(zipped: bool, tmp_path: Path) -> None:
    path, raw = tmp_path / "cut.pt", whole(zipped)
    for length in {*range(0, len(raw), len(raw) // 20), *range(0, 2000, 97), len(raw) - 1}:
        path.write_bytes(raw[:length])
        refusal(path)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x04"]))
def test_random_bytes_are_refused(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, start: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "random.pt"
    path.write_bytes(start + noise)
    refusal(path)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1 << 13), st.integers(1, 255)), min_size=1, max_size=3))
@pytest.mark.parametrize("zipped", [True, False])
def test_flipped_bits_are_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, zipped: bool, flips: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / f"flipped-{zipped}.pt"
    raw = bytearray(whole(zipped))
    for place, flip in flips:
        raw[place] ^= flip
    path.write_bytes(raw)
    harmless(path)


class Trap:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.system, (f'echo caught > "{self.trace}"',)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_file_is_executed(zipped: bool, tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "it.pt"
    pickle.loads(pickle.dumps(Trap(trace)))
    assert trace.exists()  # the trap works
    trace.unlink()
    for protocol in range(6):
        path.write_bytes(pickle.dumps(Trap(trace), protocol))
        refusal(path)
    for bad in (Trap(trace), content(step=Trap(trace)), content(model={"a": Trap(trace)})):
        torch.save(bad, path, _use_new_zipfile_serialization=zipped)
        assert "could run code" in refusal(path).message
    assert not trace.exists()


# The published program's own numbers
