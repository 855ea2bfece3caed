"""The published DiffWave: its recorded numbers, its reach, its twin, and the files it comes in."""

import collections
import copy
import functools
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from wavediff import published_sound as module
from wavediff.errors import CheckpointError, MelError
from wavediff.published import HOP, PublishedConfig, PublishedNet, Schedule, training_loss
from wavediff.published_import import SETTINGS, read_published
from wavediff.published_sound import Prepared, PreparedLayer, PublishedSound, sample

TINY = PublishedConfig(channels=8, layers=3, cycle=2, bands=3)
ALONE = TINY.model_copy(update={"bands": 0})  # unconditional
BOTH = pytest.mark.parametrize("config", [TINY, ALONE], ids=["mel", "alone"])
RATE = 1000


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@functools.cache
def network(config: PublishedConfig) -> PublishedNet:
    """A random network, all of whose parts matter, that answers with about unit variance."""
    net, draw = PublishedNet(config).requires_grad_(False), torch.Generator().manual_seed(1)
    for values in net.parameters():
        values.copy_(torch.randn(values.shape, generator=draw))
        if values.ndim == 1:  # positive, so that no ReLU is dead
            values.abs_().mul_(0.3)
        else:
            values.mul_((8 if values.ndim == 4 else 1.2) / values[0].numel() ** 0.5)
    answer = net(noise(1, 2048), mel_for(config, 8), torch.tensor([1.5]))
    last = dict(net.output_projection.named_parameters())
    last["bias"].sub_(answer.mean()).div_(answer.std())
    last["weight"].div_(answer.std())
    return net


def mel_for(config: PublishedConfig, frames: int, batch: int = 1) -> Tensor | None:
    return noise(batch, config.bands, frames, seed=9) if config.bands else None


# What a sample depends on


@pytest.mark.parametrize("layers", [3, 5])
@BOTH
def test_the_reach_is_exact(config: PublishedConfig, layers: int) -> None:
    """No gradient beyond the receptive field, in x or the frames, and some at its edge."""
    net = copy.deepcopy(network(config.model_copy(update={"layers": layers}))).double()
    reach, middle = net.receptive_field, 4 * HOP
    near, far = sum(net.config.dilations), []
    for sample_ in (middle, *((middle + edge) % HOP + middle for edge in (reach, -reach - 1))):
        x = noise(1, 9 * HOP).double().requires_grad_()
        mel = mel_for(config, 9)
        given_ = [x] if mel is None else [x, mel.double().requires_grad_()]
        answer = net(x, None if mel is None else given_[1], torch.tensor([7.3]))[0, sample_]
        on_x, *on_mel = torch.autograd.grad(answer, given_)
        touched = on_x[0].nonzero()[:, 0]
        assert (int(touched.min()), int(touched.max())) == (sample_ - near, sample_ + near)
        if on_mel:
            frames = on_mel[0][0].abs().sum(0).nonzero()[:, 0]
            far += [sample_ - int(frames.min()) * HOP, int(frames.max() + 1) * HOP - 1 - sample_]
    assert max(far, default=near) == reach


@BOTH
def test_every_parameter_matters(config: PublishedConfig) -> None:
    net = copy.deepcopy(network(config)).requires_grad_()
    (net(noise(1, 1024), mel_for(config, 4), torch.tensor([7.5])) * noise(1, 1024)).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name


@BOTH
def test_an_item_of_a_batch_is_the_item_alone(config: PublishedConfig) -> None:
    net, x, mel = network(config), noise(3, 1024), mel_for(config, 4, batch=3)
    for step in (torch.tensor([0, 17, 49]), torch.tensor([0.25, 17.375, 48.9])):
        together = net(x, mel, step)
        assert together.std() > 0.1
        for item in range(3):
            one = slice(item, item + 1)
            alone = net(x[one], None if mel is None else mel[one], step[one])
            torch.testing.assert_close(alone, together[one], rtol=0, atol=1e-5)


def test_steps_between_two_rows_are_interpolated() -> None:
    net = copy.deepcopy(network(ALONE))
    x, step = noise(1, 100), torch.tensor([17])
    assert torch.equal(net(x, None, step), net(x, None, step.float()))
    code, row = net.diffusion_embedding, noise(128) / 10
    code.table = torch.arange(50)[:, None] * row  # of these, what lies between is known
    between = code(torch.tensor([2.5, 10.25]))
    code.table = torch.tensor([2.5, 10.25])[:, None] * row
    torch.testing.assert_close(between, code(torch.tensor([0, 1])), rtol=0, atol=1e-5)


# Schedules


def test_the_schedules_are_those_of_the_paper() -> None:
    full, fast = (Schedule.of(PublishedConfig(), fast) for fast in (False, True))
    assert full.steps == list(range(50))
    assert full.alpha_cum[0] == 1 - 1e-4
    assert full.alpha_cum[-1] == pytest.approx(np.prod(1 - np.linspace(1e-4, 0.05, 50)), rel=1e-12)
    expected = [0, 0.8941341, 4.086654, 10.451817, 22.992493, 42.918644]
    np.testing.assert_allclose(fast.steps, expected, rtol=0, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 49), st.booleans(), st.integers(0, 1000))
def test_a_step_goes_to_the_mean_of_what_was_before(number: int, fast: bool, seed: int) -> None:
    """With the true noise for an answer: Ho et al. 2020, equations 6 and 7."""
    schedule = Schedule.of(PublishedConfig(), fast)
    number %= len(schedule.beta)
    clean, eps, fresh = 0.1 * noise(3, 50, seed=seed).double()
    level, beta = schedule.alpha_cum[number], schedule.beta[number]
    before = schedule.alpha_cum[number - 1] if number else 1.0
    x = level**0.5 * clean + (1 - level) ** 0.5 * eps
    mean = before**0.5 * beta * clean + (1 - beta) ** 0.5 * (1 - before) * x
    spread = (beta * (1 - before) / (1 - level)) ** 0.5
    stepped = schedule.advance(x, eps, number, None)
    torch.testing.assert_close(stepped, mean / (1 - level), rtol=0, atol=1e-9)
    if number:
        stepped = schedule.advance(x, eps, number, fresh)
        expected = mean / (1 - level) + spread * fresh
        torch.testing.assert_close(stepped, expected, rtol=0, atol=1e-9)
    assert schedule.advance(100 * x, eps, number, None).abs().max() <= 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"training_schedule": [0.1, 1.5]}, "variances between 0 and 1"),
        ({"training_schedule": [0.1, float("nan")]}, "variances between 0 and 1"),
        ({"training_schedule": [0.0, 0.1]}, "variances between 0 and 1"),
        ({"training_schedule": [0.1, 1e-30]}, "variances between 0 and 1"),
        ({"training_schedule": [0.99] * 999}, "variances between 0 and 1"),
        ({"inference_schedule": [1e-5, 0.1]}, "leaves the range"),
        ({"inference_schedule": [0.1, 0.99]}, "leaves the range"),
        ({"inference_schedule": []}, "at least 1"),
        ({"channels": 0}, "greater than 0"),
        ({"chanels": 64}, "chanels"),
    ],
)
def test_what_makes_no_network_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PublishedConfig.model_validate(wrong)


# Sampling


@BOTH
def test_the_fast_twin_is_the_plain_network(
    config: PublishedConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x, mel = network(config), noise(2, 1024), mel_for(config, 4, batch=2)
    steps = torch.tensor([0.0, 4.086654, 42.918644])
    one_layer = 2 * 1024 * 2 * config.channels * 4  # bytes
    for kept in (0, one_layer, 100 * one_layer):
        monkeypatch.setattr(module, "KEPT", kept)
        twin = Prepared(net, mel, steps, 1024)
        for number, step in enumerate(steps):
            plain = net(x, mel, step.expand(2))
            assert plain.std() > 0.1
            torch.testing.assert_close(twin(x, number), plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 300, 1 << 20])
def test_pieces_change_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x, mel = network(TINY), noise(2, 1024), mel_for(TINY, 4, batch=2)
    monkeypatch.setattr(module, "ROWS", rows)
    monkeypatch.setattr(module, "PERIOD", 2)
    twin = Prepared(net, mel, torch.tensor([7.3]), 1024)
    plain = net(x, mel, torch.tensor([7.3, 7.3]))
    torch.testing.assert_close(twin(x, 0), plain, rtol=0, atol=1e-5)


def test_what_no_step_changes_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, condition = collections.Counter[Any](), PreparedLayer.condition

    def counted(layer: PreparedLayer, mel: Tensor) -> Tensor:
        calls.update([layer])
        return condition(layer, mel)

    monkeypatch.setattr(PreparedLayer, "condition", counted)
    net = copy.deepcopy(network(TINY))
    for once in (net.spectrogram_upsampler, net.diffusion_embedding):
        assert once is not None
        once.register_forward_hook(lambda part, *_: calls.update([part]))
    sample(net, mel_for(TINY, 4), lambda number: noise(1, 1024, seed=number))
    assert len(calls) == 2 + TINY.layers
    assert set(calls.values()) == {1}


def test_bf16_is_near_and_no_copy() -> None:
    net, mel = network(TINY), mel_for(TINY, 8)
    sounds = [
        sample(net, mel, lambda number: noise(1, 2048, seed=number), dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    ]
    error = float((sounds[0] - sounds[1]).std() / sounds[0].std())
    assert 1e-4 < error < 10 ** (-35 / 20)


@pytest.mark.parametrize("fast", [True, False])
@BOTH
def test_sampling_is_the_plain_recursion(config: PublishedConfig, fast: bool) -> None:
    net, mel = network(config), mel_for(config, 2)
    schedule = Schedule.of(config, fast)
    x = noise(1, 512, seed=0)
    for draw, number in enumerate(range(len(schedule.beta) - 1, -1, -1), 1):
        eps = net(x, mel, torch.tensor([schedule.steps[number]]))
        x = schedule.advance(x, eps, number, noise(1, 512, seed=draw) if number else None)
    drawn: list[int] = []

    def draw_(number: int) -> Tensor:
        drawn.append(number)
        return noise(1, 512, seed=number)

    torch.testing.assert_close(sample(net, mel, draw_, fast), x, rtol=0, atol=1e-5)
    assert drawn == list(range(6 if fast else 50))


def sound(config: PublishedConfig, seconds: float = 1e6, **settings: Any) -> PublishedSound:
    mel = mel_for(config, 14)
    samples = settings.pop("samples", 14 * HOP)
    mel = None if mel is None else mel[0]
    return PublishedSound(network(config), RATE, mel, samples, block_seconds=seconds, **settings)


@pytest.mark.parametrize("fast", [True, False])
@BOTH
def test_blocks_are_the_whole(config: PublishedConfig, fast: bool) -> None:
    source = sound(config, fast=fast)
    whole = source.read(0, source.samples)
    assert whole.shape == (1, 14 * HOP)
    assert whole.std() > 0.1
    assert whole.abs().max() <= 1
    for seconds in (0.1, 0.8, 2.0):
        blocks = sound(config, seconds, fast=fast).read(0, source.samples)
        torch.testing.assert_close(blocks, whole, rtol=0, atol=1e-4)


@BOTH
def test_blocks_without_their_halo_are_not(config: PublishedConfig) -> None:
    whole, blocks = sound(config), sound(config, 0.8)
    blocks._halo = 0
    assert (blocks.read(0, 3000) - whole.read(0, 3000)).abs().max() > 0.01


def test_reads_are_parts_of_the_whole() -> None:
    source = sound(TINY, 0.5, samples=3333)
    whole = sound(TINY).read(0, 3333)
    assert (source.rate, source.channels, source.samples) == (RATE, 1, 3333)
    for start, stop in ((-5, 700), (600, 601), (650, 2000), (3300, 4000), (5, 5), (9000, 9001)):
        expected = torch.zeros(1, stop - start)
        low, high = max(start, 0), min(stop, 3333)
        if low < high:
            expected[:, low - start : high - start] = whole[:, low:high]
        torch.testing.assert_close(source.read(start, stop), expected, rtol=0, atol=1e-4)


def test_the_seed_decides() -> None:
    one, other = sound(ALONE, seed=1).read(0, 500), sound(ALONE, seed=2).read(0, 500)
    assert torch.equal(one, sound(ALONE, seed=1).read(0, 500))
    assert (one - other).abs().max() > 0.1


@pytest.mark.parametrize(
    ("config", "mel", "message"),
    [
        (TINY, None, "needs a mel of 3 bands"),
        (ALONE, torch.zeros(3, 4), "takes no mel"),
        (TINY, torch.zeros(80, 4), r"\(1, 80, 4\)"),
        (TINY, torch.zeros(1, 3, 4), r"\(1, 1, 3, 4\)"),
        (TINY, torch.zeros(3, 3), "3 frames for 1000 samples"),
    ],
)
def test_mels_that_do_not_fit_are_refused(
    config: PublishedConfig, mel: Tensor | None, message: str
) -> None:
    with pytest.raises(MelError, match=message) as caught:
        PublishedSound(network(config), RATE, mel, 1000)
    assert caught.value.hint
    with pytest.raises(MelError, match=message.replace("3 frames for 1000", "for 1024")):
        network(config)(noise(1, 1024), mel if mel is None else mel[None], torch.tensor([1]))


# Training


class Oracle(PublishedNet):
    """Knows the sound, so that it can tell the noise."""

    clean: Tensor

    def forward(self, x: Tensor, mel: Tensor | None, step: Tensor) -> Tensor:
        levels = torch.tensor(Schedule.of(self.config, fast=False).alpha_cum).double()
        level = levels[step][:, None]
        return (x - level.sqrt() * self.clean) / (1 - level).sqrt()


def test_the_loss_is_the_error_of_the_noise() -> None:
    audio, fresh, t = 0.1 * noise(2, 300), noise(2, 300, seed=1), torch.tensor([3, 49])
    untrained = PublishedNet(ALONE)
    dict(untrained.named_parameters())["output_projection.bias"].data.fill_(0.25)
    loss = training_loss(untrained, audio, None, t, fresh)
    torch.testing.assert_close(loss, (0.25 - fresh).abs().mean(1))
    knows = Oracle(ALONE)
    knows.clean = audio.double()
    assert training_loss(knows, audio.double(), None, t, fresh.double()).max() < 1e-5


# Files


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

REFERENCE = Path(__file__).resolve().parents[1].parent / "shared" / "reference"
recorded = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason=f"needs the recorded vectors of {REFERENCE.name}"
)


class Recorded:
    """A published checkpoint and what its program made of it."""

    def __init__(self, name: str) -> None:
        self.config, self.weights, self.facts = read_published(REFERENCE / f"{name}.pt")
        self.arrays = dict(np.load(REFERENCE / f"{name}.npz"))
        self.conditional = "mel" in self.arrays

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(np.asarray(self.arrays[name]))

    @property
    def network(self) -> PublishedNet:
        net = PublishedNet(self.config)
        net.load_state_dict(self.weights)
        return net

    @property
    def mel(self) -> Tensor | None:
        return self["mel"][None] if self.conditional else None


@pytest.fixture(scope="module", params=["lmnt-diffwave-random", "lmnt-uncond-random"])
def published(request: pytest.FixtureRequest) -> Recorded:
    return Recorded(request.param)


def close(actual: Tensor, expected: Tensor, atol: float) -> None:
    torch.testing.assert_close(actual.double(), expected.double(), rtol=0, atol=atol)


@recorded
def test_recorded_sizes_and_names(published: Recorded) -> None:
    assert published.config == PublishedConfig(
        channels=32 if published.conditional else 16,
        layers=10 if published.conditional else 4,
        bands=80 if published.conditional else 0,
    )
    assert list(published.weights) == published.arrays["train_grad_names"].tolist()
    assert published.facts["step"] == 12345
    assert published.facts["sample_rate"] == 22050


@recorded
@torch.no_grad()
def test_recorded_answers(published: Recorded) -> None:
    net = published.network
    close(net.diffusion_embedding.table, published["embedding"], 1e-6)
    for kind in ("int", "float"):
        step = published[f"t_{kind}"][None]
        close(net.diffusion_embedding(step)[0], published[f"step_code_{kind}"], 1e-6)
        eps = net(published["x"][None], published.mel, step)
        close(eps[0], published[f"eps_{kind}"], 2e-5)
    if published.conditional:
        up = net.upsampled(published.mel, published["x"].shape[0])
        assert up is not None
        close(up[0, :, :512], published["mel_up_head"], 1e-6)
        with torch.autocast("cpu", torch.bfloat16):
            eps = net(published["x"][None], published.mel, published["t_int"][None])
        assert (eps[0].float() - published["eps_int"]).square().mean().sqrt() < 0.02


@recorded
def test_recorded_schedules(published: Recorded) -> None:
    full, fast = (Schedule.of(published.config, fast) for fast in (False, True))
    np.testing.assert_allclose(full.beta, published["beta"], rtol=1e-14)
    np.testing.assert_allclose(full.alpha_cum, published["alpha_cum"], rtol=1e-14)
    np.testing.assert_allclose(fast.beta, published["fast_beta"], rtol=1e-14)
    np.testing.assert_allclose(fast.alpha_cum, published["fast_alpha_cum"], rtol=1e-14)
    fast_t, full_t = (torch.tensor(schedule.steps) for schedule in (fast, full))
    close(fast_t, published["fast_T"], 1e-6)
    assert torch.equal(full_t, published["full_T"])


@recorded
@pytest.mark.parametrize("kind", ["fast", "full"])
def test_recorded_sounds(published: Recorded, kind: str) -> None:
    draws = published[f"{kind}_noise"]
    audio = sample(published.network, published.mel, lambda n: draws[n][None], kind == "fast")
    close(audio[0], published[f"{kind}_audio"], 2e-5)
    close(audio[0], published[f"{kind}_audio64"], 2e-5)


@recorded
def test_recorded_training_step(published: Recorded) -> None:
    net = published.network
    mel = published["train_mel"] if published.conditional else None
    audio, t, fresh = (published[f"train_{name}"] for name in ("audio", "t", "noise"))
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-4)
    loss = training_loss(net, audio, mel, t, fresh).mean()
    loss.backward()
    close(loss.detach(), published["train_loss"], 1e-6)
    parameters = dict(net.named_parameters())
    norms = torch.stack([p.grad.norm() for p in parameters.values() if p.grad is not None])
    assert list(parameters) == published.arrays["train_grad_names"].tolist()
    torch.testing.assert_close(norms, published["train_grad_norms"], rtol=1e-4, atol=0)
    torch.testing.assert_close(norms.norm(), published["train_grad_norm"], rtol=1e-5, atol=0)
    optimizer.step()
    after = [name for name in published.arrays if name.startswith("train_after/")]
    assert len(after) == 3
    for name in after:
        close(parameters[name.removeprefix("train_after/")].detach(), published[name], 1e-5)


@recorded
@torch.no_grad()
def test_recorded_full_size() -> None:
    arrays = dict(np.load(REFERENCE / "lmnt-diffwave-fullsize.npz"))
    net, weights = PublishedNet(PublishedConfig()), {}
    draw = np.random.RandomState(20260703)
    for name, shape, std, total in zip(
        *(arrays[key].tolist() for key in ("names", "shapes", "std", "abs_sum")), strict=True
    ):
        sizes = [int(size) for size in shape.split(",")]
        values = (draw.standard_normal(int(np.prod(sizes))) * std).astype(np.float32)
        assert np.abs(values.astype(np.float64)).sum() == pytest.approx(total, rel=1e-9)
        weights[name] = torch.from_numpy(values.reshape(sizes))
    net.load_state_dict(weights)
    assert sum(p.numel() for p in net.parameters()) == 2_619_971
    x, mel = torch.from_numpy(arrays["x"])[None], torch.from_numpy(arrays["mel"])[None]
    for kind in ("int", "float"):
        step = torch.from_numpy(np.asarray(arrays[f"t_{kind}"]))[None]
        close(net(x, mel, step)[0], torch.from_numpy(arrays[f"eps_{kind}"]), 5e-5)
        if kind == "int":
            close(net(x, mel, step)[0], torch.from_numpy(arrays["eps_int_f64"]), 5e-5)
