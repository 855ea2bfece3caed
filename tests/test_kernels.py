"""Fast twins for cards: equal to the plain network, chosen where they run, left alone elsewhere."""

import contextlib
import copy
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fused_here import CASES, apart, case, noise
from torch import Tensor

from wavediff.kernels import choice, describe, fast, graph
from wavediff.network import BandNet, NetworkConfig
from wavediff.prior import PriorConfig, PriorNet

ROOT = Path(__file__).resolve().parents[1]
CPU, CARD = torch.device("cpu"), torch.device("cuda")
TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not TRITON, reason="Triton is not installed")
needs_card = pytest.mark.skipif(
    not torch.cuda.is_available() or bool(choice.unfit(CARD)), reason="no card with Triton is here"
)
CONSUMER = 99 * 1024  # bytes of shared memory that a program can have on the smallest card meant


@pytest.fixture(scope="module")
def interpreted() -> dict[str, float]:
    """By how much each case differs; Triton has to be told before it is imported."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "tests" / "fused_here.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@needs_triton
@pytest.mark.parametrize("name", [*CASES, "network"])
def test_what_is_fused_is_the_plain_block(interpreted: dict[str, float], name: str) -> None:
    assert interpreted[name] < 1e-5


@needs_triton
def test_the_kernels_compile_for_cards_and_fit_into_their_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interpreter knows nothing of types that a loop may not change, nor of shared memory."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from wavediff.kernels.block import TURNS, WARPS
    from wavediff.kernels.convolution import convolve
    from wavediff.kernels.mixing import mix

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    sizes = {"CHANNELS": 64, "PADDED": 64, "MIXING": 8}
    first, second = {**sizes, "TURNS": TURNS}, {**sizes, "GROUP": 4, "MIXED": 192}
    for kernel, constants, capability in (
        (convolve, first, 90),
        (convolve, first, 80),
        (mix, second, 90),
    ):
        names = [parameter.name for parameter in kernel.params]
        whole = ("tiles", "bands", "batch", "frames", "dilation")
        types = {n: "i32" if n in whole else "*bf16" for n in names}
        types |= dict.fromkeys(constants, "constexpr")
        places = {(names.index(name),): value for name, value in constants.items()}
        tensors = (n for n, name in enumerate(names) if types[name] == "*bf16")
        aligned = {(n,): [["tt.divisibility", 16]] for n in tensors}
        made = compile(
            ASTSource(kernel, types, places, aligned),
            target=GPUTarget("cuda", capability, 32),
            options={"num_warps": WARPS, "num_stages": 1},
        )
        assert made.metadata.shared <= CONSUMER
        assert ("wgmma" if capability == 90 else "mma.sync") in made.asm["ptx"]


def tiny(seed: int = 0) -> BandNet:
    net = BandNet(NetworkConfig(window=64, hop=32, bands=4, channels=8, layers=2, mixing=2))
    for n, parameter in enumerate(net.parameters()):
        torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(n + seed))
    return net.requires_grad_(False)


def test_without_a_card_nothing_is_put_in_the_way() -> None:
    assert fast(tiny()) is None
    assert fast(PriorNet(PriorConfig(channels=16, layers=1), 8, 16)) is None
    assert describe(CPU) == "plain PyTorch: the kernels are for NVIDIA cards, the device is cpu"


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As if a card that has all it takes were here."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Card")
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(choice, "trial", lambda device: 0.003)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "3.6.0")
    monkeypatch.setattr(choice, "unfit", choice.unfit.__wrapped__)  # without what it remembers
    return monkeypatch


def test_a_card_is_used_and_named(card: pytest.MonkeyPatch) -> None:
    assert describe(CARD) == "blocks fused by Triton 3.6.0 in bf16, CUDA graphs, on Card"


def broken(device: torch.device) -> float:
    raise RuntimeError("Failed to find C compiler")


@pytest.mark.parametrize(
    ("where", "name", "value", "reason"),
    [
        (torch.version, "cuda", None, "for NVIDIA cards"),
        (torch.cuda, "get_device_capability", lambda device: (7, 5), "no tensor cores for bf16"),
        (importlib.util, "find_spec", lambda name: None, "Triton is not installed"),
        (choice, "trial", broken, "RuntimeError: Failed to find C compiler"),
        (choice, "trial", lambda device: 0.5, "wrong here, by 50%"),
        (choice, "trial", lambda device: float("nan"), "wrong here"),
    ],
)
def test_what_is_missing_is_said(
    card: pytest.MonkeyPatch, where: Any, name: str, value: Any, reason: str
) -> None:
    card.setattr(where, name, value)
    assert describe(CARD).startswith("plain PyTorch: ")
    assert reason in describe(CARD)


@needs_triton
def test_a_gradient_goes_through_the_plain_blocks() -> None:
    from wavediff.kernels.block import FusedBlocks

    net, x = tiny(), noise(1, 300).requires_grad_()
    twin = copy.deepcopy(net)
    twin.blocks = FusedBlocks(list(twin.blocks))
    gradients = [
        torch.autograd.grad(one(x, noise(1, 300), torch.ones(1)).square().sum(), x)[0]
        for one in (net, twin)
    ]
    assert gradients[0].abs().max() > 0
    assert torch.equal(*gradients)


class Recorder:
    """Stands in for a recording: says that it was made, and what it is called with."""

    made = 0
    able = True

    def __init__(self, call: graph.Call, given: tuple[Tensor | None, ...]) -> None:
        type(self).made += 1
        if not self.able:
            raise RuntimeError("it waits for the card")
        self.call = call

    def __call__(self, *given: Tensor | None) -> Tensor:
        return self.call(*given) + 100


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    class Fresh(Recorder):
        pass

    monkeypatch.setattr(graph, "Recording", Fresh)
    monkeypatch.setattr(graph, "recordable", lambda tensors: True)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    return Fresh


def test_shapes_are_recorded_when_they_come_again(recorder: type[Recorder]) -> None:
    call = graph.Graphed(lambda x, y: 2 * x)
    answers = [float(call(n * torch.ones(1), None)) for n in range(4)]
    assert answers == [0, 102, 104, 106]
    assert float(call(torch.ones(1, 1), None)) == 2  # of another shape
    assert float(call(torch.ones(1), torch.ones(1))) == 2  # of another kind
    assert float(call(torch.ones(1), None)) == 102
    assert recorder.made == 1


def test_what_cannot_be_recorded_is_tried_once(recorder: type[Recorder]) -> None:
    recorder.able = False
    call = graph.Graphed(lambda x: 2 * x)
    assert [float(call(torch.ones(1))) for _ in range(5)] == [2] * 5
    assert recorder.made == 1


def test_only_so_many_recordings_are_kept(recorder: type[Recorder]) -> None:
    call = graph.Graphed(lambda x: x.sum())
    for samples in range(1, graph.KEPT + 2):
        for _ in range(2):
            call(torch.zeros(samples))
    assert recorder.made == graph.KEPT + 1
    assert float(call(torch.zeros(graph.KEPT + 1))) == 100
    assert float(call(torch.zeros(1))) == 0  # the oldest is forgotten


def test_off_a_card_every_call_is_the_function_itself() -> None:
    calls = []
    call = graph.Graphed(lambda x: calls.append(0) or 3 * x)
    x = torch.ones(2, requires_grad=True)
    for _ in range(3):
        (gradient,) = torch.autograd.grad(call(x).sum(), x)
        assert gradient.tolist() == [3, 3]
    assert len(calls) == 3


def test_the_benchmark_runs_from_end_to_end(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("gpu", ROOT / "benchmarks" / "gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu"] = module  # where its dataclasses look their types up
    spec.loader.exec_module(module)
    path = tmp_path / "figures.jsonl"
    module.main(["-d", "cpu", "--tiny", "-o", str(path)])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line for line in lines if "error" in line] == []
    assert {line["part"] for line in lines} == {"machine", *module.PARTS}
    assert all(line["seconds"] > 0 for line in lines if "seconds" in line)


@needs_card
@torch.inference_mode()
@pytest.mark.parametrize("name", CASES)
def test_on_a_card_in_bf16_it_is_as_near_as_the_plain_block_in_bf16(name: str) -> None:
    from wavediff.kernels.block import FusedBlocks

    block, h, time = (part.to(CARD) for part in case(name))
    exact = block(h, time)
    fused = FusedBlocks([block])(h, time)
    halves = copy.deepcopy(block).bfloat16()
    plain = halves(h.bfloat16(), time.bfloat16()).float()
    assert float((fused - exact).norm()) < 1.2 * float((plain - exact).norm())


@needs_card
@torch.inference_mode()
@pytest.mark.parametrize("turns", [1, 8])
def test_on_a_card_many_tiles_are_as_few(turns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a program has one tile or several, an item is what it is alone."""
    from wavediff.kernels import block as module

    monkeypatch.setattr(module, "TURNS", turns)
    monkeypatch.setattr(module, "PROGRAMS", 0)
    block, h, time = (part.to(CARD) for part in case("48 channels, a group of bands begun"))
    fused = module.FusedBlocks([block])
    together = fused(h, time)
    for item in range(2):
        one = slice(item, item + 1)
        assert torch.equal(fused(h[:, one], time[one]), together[:, one])


@needs_card
@torch.inference_mode()
def test_on_a_card_a_recording_answers_as_the_network_does() -> None:
    net = tiny().to(CARD)
    twin = fast(net)
    assert twin is not None
    for samples in (640, 1001):
        for seed in range(4):
            x, y = noise(2, samples, seed=seed).to(CARD), noise(2, samples, seed=9).to(CARD)
            time = torch.tensor([1.0, 0.5], device=CARD)
            assert apart(twin(x, y, time), net(x, y, time)) < 0.03


@needs_card
def test_on_a_card_what_waits_for_it_is_not_recorded() -> None:
    call = graph.Graphed(lambda x: x * float(x.sum()))
    for n in range(4):
        assert float(call(torch.full((1,), float(n), device=CARD))) == n * n
