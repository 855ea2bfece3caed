"""The Python face: any array in, the same kind out, and a clear refusal of what cannot be."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import wavediff
from wavediff import checkpoint as checkpoints
from wavediff import tasks
from wavediff.audio import ArraySource
from wavediff.checkpoint import Checkpoint
from wavediff.errors import AudioError, CheckpointError, TaskError
from wavediff.model import Model, choose_device, export, from_checkpoint, names
from wavediff.network import NetworkConfig
from wavediff.recipe import Recipe
from wavediff.tasks import DenoiseSettings

RATE = 16_000
CPU = torch.device("cpu")
TINY = NetworkConfig(window=64, hop=32, bands=4, channels=8, layers=2, cycle=2, mixing=2, summary=4)


def saved(average: bool = False) -> Checkpoint:
    torch.manual_seed(0)
    recipe = Recipe(network=TINY)
    weights = tasks.build(recipe).network.state_dict()
    tensors = {f"network.{key}": tensor for key, tensor in weights.items()}
    if average:
        tensors |= {f"average.{key}": tensor + 0.1 for key, tensor in weights.items()}
    return Checkpoint(recipe, tensors, {"step": 7, "seconds": 1.5, "rng": [1, 2]})


@pytest.fixture(scope="module")
def model() -> Model:
    return from_checkpoint(saved(), "tiny", CPU)


def sound(*shape: int) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(shape[-1]))


@pytest.mark.parametrize("shape", [(1,), (999,), (1, 999), (2, 999), (8, 40)])
@pytest.mark.parametrize("rate", [RATE, 44_100])
def test_any_kind_of_array_comes_back_as_it_was(
    model: Model, shape: tuple[int, ...], rate: int
) -> None:
    audio = sound(*shape)
    clean = model.denoise(audio, rate)
    assert isinstance(clean, Tensor)
    assert clean.shape == audio.shape
    assert (clean - audio).abs().max() > 1e-5
    for dtype, tolerance in ((torch.float64, 0), (torch.float16, 1e-3), (torch.bfloat16, 5e-3)):
        other = model.denoise(audio.to(dtype), rate)
        assert other.dtype == dtype
        torch.testing.assert_close(other.float(), clean, rtol=0, atol=tolerance)
    for kind, tolerance in (("<f4", 0), (">f4", 0), ("<f8", 0), ("<f2", 1e-3)):
        array = model.denoise(audio.numpy().astype(kind), rate)
        assert isinstance(array, np.ndarray)
        assert array.dtype == np.dtype(kind)
        np.testing.assert_allclose(array.astype("f4"), clean.numpy(), rtol=0, atol=tolerance)


def test_the_layout_in_memory_does_not_matter_and_stays(model: Model) -> None:
    audio = sound(2, 999).numpy()
    expected = model.denoise(audio, RATE)
    backwards = model.denoise(np.ascontiguousarray(audio[:, ::-1])[:, ::-1], RATE)
    np.testing.assert_array_equal(backwards, expected)
    columns = np.ascontiguousarray(audio.T)
    columns.setflags(write=False)
    np.testing.assert_array_equal(model.denoise(columns.T, RATE), expected)
    np.testing.assert_array_equal(model.denoise(audio[0], RATE).shape, (999,))


def test_what_was_given_is_not_changed(model: Model) -> None:
    audio = sound(500)
    array, tensor = audio.numpy().copy(), audio.clone().requires_grad_()
    model.denoise(array, RATE)
    np.testing.assert_array_equal(array, audio.numpy())
    clean = model.denoise(tensor, RATE)
    assert torch.equal(tensor, audio)
    assert not clean.requires_grad


def test_a_louder_recording_comes_back_louder(model: Model) -> None:
    audio = sound(2, 3000)
    for settings in (None, DenoiseSettings(4)):
        once = model.denoise(audio, RATE, settings)
        tenfold = model.denoise(10 * audio, RATE, settings)
        torch.testing.assert_close(tenfold, 10 * once, rtol=0, atol=1e-5)


def test_a_file_is_denoised_like_an_array(model: Model) -> None:
    audio, settings = sound(2, 3000), DenoiseSettings(2)
    source = model.denoise_source(ArraySource(audio, 44_100), settings)
    parts = [source.read(start, start + 1000) for start in (0, 1000, 2000)]
    whole = model.denoise(audio, 44_100, settings)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (torch.zeros(10, dtype=torch.int16), "torch.int16 is not float"),
        (np.zeros(10, np.int32), "int32 is not float"),
        (np.zeros(10, complex), "complex128 is not float"),
        (np.array(["a", "b"]), "is not float"),
        (np.array([None, 1.0]), "object is not float"),
        (torch.zeros(0), r"shape \(0,\)"),
        (torch.zeros(2, 0), r"shape \(2, 0\)"),
        (torch.zeros(0, 5), r"shape \(0, 5\)"),
        (torch.zeros(1, 2, 5), r"shape \(1, 2, 5\)"),
        (torch.tensor(0.5), r"shape \(\)"),
        (np.zeros(()), r"shape \(\)"),
        (np.zeros((4000, 2)), "4000 channels, at most 8"),
        (torch.tensor([0.1, float("nan")]), "NaN or infinite"),
        (np.array([0.1, -np.inf]), "NaN or infinite"),
        ([0.1, 0.2], "audio is a list"),
        (None, "audio is a NoneType"),
    ],
)
def test_what_is_no_sound_is_refused_with_a_hint(model: Model, audio: object, message: str) -> None:
    with pytest.raises(AudioError, match=message) as caught:
        model.denoise(audio, RATE)  # type: ignore[arg-type]
    assert caught.value.hint


@pytest.mark.parametrize("rate", [0, -16_000, 999, 1_000_001, 44_100.5, float("nan")])
def test_what_is_no_rate_is_refused(model: Model, rate: float) -> None:
    with pytest.raises(AudioError, match=f"a rate of {rate} Hz"):
        model.denoise(sound(100), rate)  # type: ignore[arg-type]


def test_a_rate_may_be_any_kind_of_number(model: Model) -> None:
    expected = model.denoise(sound(100), RATE)
    for rate in (16_000.0, np.int64(16_000), np.float32(16_000)):
        assert torch.equal(model.denoise(sound(100), rate), expected)  # type: ignore[arg-type]


def test_a_saved_model_is_loaded_by_file_and_by_folder(tmp_path: Path, model: Model) -> None:
    file = tmp_path / "checkpoint.safetensors"
    checkpoints.save(file, saved())
    expected = model.denoise(sound(500), RATE)
    for name in (file, str(file), tmp_path):
        loaded = wavediff.load(name, "cpu")
        assert loaded.name == str(name)
        assert loaded.recipe == model.recipe
        assert torch.equal(loaded.denoise(sound(500), RATE), expected)
    assert not loaded.denoiser.training
    assert not any(p.requires_grad for p in loaded.denoiser.parameters())


def test_the_averaged_weights_are_the_ones_to_use(model: Model) -> None:
    averaged = from_checkpoint(saved(average=True), "tiny", CPU)
    for ours, plain in zip(
        averaged.denoiser.parameters(), model.denoiser.parameters(), strict=True
    ):
        torch.testing.assert_close(ours, plain + 0.1)


def test_what_ships_is_half_the_size_and_sounds_the_same(tmp_path: Path) -> None:
    file = tmp_path / "shipped.safetensors"
    checkpoints.save(file, export(saved(average=True), {"licence": "CC0"}))
    shipped = wavediff.load(file, "cpu")
    assert shipped.state == {"step": 7, "seconds": 1.5, "licence": "CC0"}
    parameters = sum(p.numel() for p in shipped.denoiser.parameters())
    assert file.stat().st_size < 2 * parameters + 20_000
    expected = from_checkpoint(saved(average=True), "tiny", CPU).denoise(sound(2000), RATE)
    torch.testing.assert_close(shipped.denoise(sound(2000), RATE), expected, rtol=0, atol=1e-3)


def test_a_model_that_is_not_here_is_refused(tmp_path: Path) -> None:
    for name in ("denoise-17k", tmp_path, tmp_path / "none.safetensors", ""):
        with pytest.raises(CheckpointError, match="no model is called") as caught:
            wavediff.load(name)
        assert all(known in caught.value.hint for known in names())


def test_weights_that_do_not_fit_their_recipe_are_refused() -> None:
    checkpoint = saved()
    for broken in (
        {k: v for k, v in checkpoint.tensors.items() if k != "network.enter"},
        {**checkpoint.tensors, "network.more": torch.zeros(1)},
        {**checkpoint.tensors, "network.enter": torch.zeros(3)},
        {},
    ):
        with pytest.raises(CheckpointError, match="do not fit its own recipe"):
            from_checkpoint(Checkpoint(checkpoint.recipe, broken, {}), "broken", CPU)


@pytest.mark.parametrize("device", ["quantum", "cuda:99", "", "meta"])
def test_a_device_that_is_not_here_is_refused(device: str) -> None:
    with pytest.raises(TaskError, match="cannot be used") as caught:
        choose_device(device)
    assert caught.value.hint == "use -d cpu"


def test_auto_is_a_device_that_works() -> None:
    device = choose_device("auto")
    assert torch.ones(1, device=device).item() == 1
    assert choose_device(torch.device("cpu")) == CPU
