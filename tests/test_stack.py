"""The blocks' fast twin in a training: the same answers and gradients as the plain blocks."""

import pytest
import torch
from torch import Tensor

from wavediff import recipe as recipes
from wavediff import stack
from wavediff.network import Blocks, NetworkConfig
from wavediff.packed import ONEDNN
from wavediff.trainer import Trainer

SMALL = {"bands": 3, "channels": 8, "layers": 3, "mixing": 2, "summary": 4}


def blocks(**sizes: int) -> Blocks:
    made = Blocks(NetworkConfig(**(SMALL | sizes)))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    return made


def differentiated(made: Blocks, h: Tensor, time: Tensor) -> dict[str, Tensor]:
    """The answer, and the gradients of all that has one."""
    h, time = h.clone().requires_grad_(), time.clone().requires_grad_()
    made.zero_grad()
    answer = made(h, time)
    (answer * torch.linspace(-1, 1, answer.numel()).view_as(answer)).sum().backward()
    found = {"answer": answer.detach(), "h": h.grad, "time": time.grad}
    found |= {name: parameter.grad for name, parameter in made.named_parameters()}
    assert all(part is not None for part in found.values())
    return found  # type: ignore[return-value]


def inputs(batch: int, frames: int, bands: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    h = torch.randn(bands, batch, frames, 8, generator=generator)
    return h, torch.randn(batch, 8, generator=generator)


@pytest.mark.parametrize(
    ("sizes", "batch", "frames"),
    [
        ({}, 4, 11),
        ({"mixing": 0}, 2, 11),
        ({"bands": 1, "mixing": 0}, 5, 3),  # a prior's, with dilations longer than the sound
        ({"layers": 7, "cycle": 6}, 1, 40),
    ],
)
@pytest.mark.parametrize("rows", [1, 70, 1 << 13])  # one item at a time, two, all of them
def test_it_answers_as_the_plain_blocks_do(
    sizes: dict[str, int], batch: int, frames: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "ROWS", rows)
    made, given = blocks(**sizes), inputs(batch, frames, sizes.get("bands", 3))
    plain = differentiated(made, *given)
    made.twin = stack.through
    fast = differentiated(made, *given)
    for name, expected in plain.items():
        assert torch.allclose(
            fast[name], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())
        ), name


def test_in_bf16_it_is_as_near_as_the_plain_blocks_are() -> None:
    made, given = blocks(), inputs(4, 11)
    exact = differentiated(made, *given)
    given = given[0].bfloat16(), given[1]
    with torch.autocast("cpu", torch.bfloat16):
        plain = differentiated(made, *given)
        made.twin = stack.through
        fast = differentiated(made, *given)
    assert fast["answer"].dtype == plain["answer"].dtype == torch.bfloat16
    assert fast["0.dilated.weight"].dtype == torch.float32

    def apart(found: dict[str, Tensor]) -> float:
        parts = [(found[name].float() - part).norm() / part.norm() for name, part in exact.items()]
        return float(torch.stack(parts).mean())

    assert apart(fast) < 1.5 * apart(plain) < 0.1


def test_without_gradients_nothing_is_kept() -> None:
    made, given = blocks(), inputs(2, 11)
    with torch.no_grad():
        expected = made(*given)
        made.twin = stack.through
        answer = made(*given)
    assert answer.grad_fn is None
    assert torch.allclose(answer, expected, atol=1e-5)


@pytest.mark.skipif(not ONEDNN, reason="oneDNN is not there, so trainings go the plain way")
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("denoise-16k", [f"network.{key}={value}" for key, value in SMALL.items()]),
        ("digits-8k", ["prior.channels=16", "prior.layers=3"]),
    ],
)
def test_a_training_takes_it_and_learns_the_same(name: str, settings: list[str]) -> None:
    settings = [*settings, "training.precision=fp32", "training.crop=0.5", "training.batch=2"]
    settings += ["training.warmup=1", "training.learning_rate=2e-3"]
    recipe = recipes.load(name, settings)
    curves = []
    for twin in (True, False):
        trainer = Trainer(recipe, torch.device("cpu"))
        taken = [part for part in trainer.denoiser.modules() if isinstance(part, Blocks)]
        assert taken
        assert all(part.twin is stack.through for part in taken)
        for part in taken:
            part.twin = stack.through if twin else None
        torch.manual_seed(0)
        batch = trainer.objective.example(2)
        trainer.measure(batch)
        curves.append([trainer.advance(batch).loss for _ in range(20)])
    fast, plain = curves
    assert plain[-1] < plain[0]
    assert fast == pytest.approx(plain, rel=1e-3, abs=1e-4)
