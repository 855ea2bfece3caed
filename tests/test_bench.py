"""The bench: operations as torch counts them, figures that fit each other, the network beside."""

import json
import math
from pathlib import Path

import pytest
import torch
from command import attenuator, refusal, wavediff
from tiny import generator, vocoder
from torch.utils.flop_counter import FlopCounterMode

from wavediff import bench
from wavediff.bench import AsPublished, Case
from wavediff.errors import TaskError
from wavediff.network import BandNet, NetworkConfig
from wavediff.operations import work
from wavediff.prior import PriorConfig, PriorNet
from wavediff.published import HOP, PublishedConfig, PublishedNet
from wavediff.published_sound import sample

ONE = torch.ones(1)


@pytest.mark.parametrize("mel", [0, 80])
@pytest.mark.parametrize("plain", [{}, {"mixing": 0}, {"summary": 0}])
def test_operations_are_those_that_torch_counts(plain: dict[str, int], mel: int) -> None:
    # Bands of one bin each: wider ones are filled up, and torch would count that.
    size = {"window": 64, "hop": 32, "bands": 33, "channels": 16, "layers": 3, **plain}
    network = BandNet(NetworkConfig(**size), mel).requires_grad_(False)
    rate, frames = 16_000, 50
    sound = torch.randn(1, (frames - 1) * network.hop)
    known = (torch.randn(1, mel, frames),) if mel else ()
    with FlopCounterMode(display=False) as counter:
        network(sound, sound, ONE, *known)
    counted = work(network, rate).multiply_adds * frames * network.hop / rate
    # Torch counts the embedded time too, which does not grow with the sound.
    assert counted == pytest.approx(counter.get_total_flops() / 2, rel=0.02)


def test_operations_of_the_published_network_are_those_that_torch_counts() -> None:
    network = PublishedNet(PublishedConfig(layers=3)).requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        network(torch.randn(1, 8 * HOP), torch.randn(1, 80, 8), ONE)
    counted = work(network, 22050).multiply_adds * 8 * HOP / 22050
    assert counted == pytest.approx(counter.get_total_flops() / 2, rel=0.05)


def test_the_published_network_takes_28_billion_a_second() -> None:
    """As its paper's size says: 30 layers of 64 channels at every sample."""
    assert 27e9 < work(PublishedNet(PublishedConfig()), 22050).multiply_adds < 30e9


def test_operations_of_a_prior_are_those_that_torch_counts() -> None:
    network = PriorNet(PriorConfig(layers=3), 80, 0).requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        network(torch.randn(1, 80, 50), None, ONE)
    assert work(network, 50).multiply_adds == pytest.approx(counter.get_total_flops() / 2, rel=0.02)


def test_as_published_is_the_published_way_of_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AsPublished, "samples", 4 * HOP)
    network = PublishedNet(PublishedConfig(channels=8, layers=3)).requires_grad_(False)
    torch.nn.init.normal_(network.output_projection.weight)
    mel = torch.rand(1, 80, 4)
    torch.manual_seed(5)
    made = AsPublished(network, mel).read(0, 4 * HOP)
    torch.manual_seed(5)
    draws = [torch.randn(1, 4 * HOP) for _ in range(6)]
    torch.testing.assert_close(sample(network, mel, draws.__getitem__), made, rtol=0, atol=1e-5)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ceilings and the network beside in no time."""
    monkeypatch.setattr(bench, "SIDE", 64)
    monkeypatch.setattr(bench, "COPIED", 1 << 16)
    monkeypatch.setattr(bench, "PUBLISHED_FRAMES", 1)
    monkeypatch.setattr(AsPublished, "samples", HOP)


def test_figures_fit_each_other(tmp_path: Path) -> None:
    model = attenuator(tmp_path / "model.safetensors")
    cases = [Case(1, 1, "fp32"), Case(4, 2, "bf16")]
    told: list[float] = []
    done = bench.run(model, "cpu", cases, seconds=1.0, repeats=3, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1
    assert done.published is not None
    assert [(f.steps, f.batch, f.precision) for f in done.figures] == [
        (1, 1, "fp32"),
        (4, 2, "bf16"),
    ]
    for figure in done.figures:
        assert figure.ratio == pytest.approx(done.published.work / figure.work)
        rate = figure.steps * done.per_call.multiply_adds / figure.work
        assert figure.multiply_adds == pytest.approx(rate)
        ceiling = done.ceilings.multiply_adds[figure.precision]
        assert figure.of_rate == pytest.approx(rate / ceiling)
        assert figure.first > 0
        assert figure.memory > 100e6  # torch alone takes more


def test_a_vocoder_and_a_generator_are_timed_too(tmp_path: Path) -> None:
    for model in (vocoder(tmp_path / "v.safetensors"), generator(tmp_path / "g.safetensors")):
        (figure,) = bench.run(
            model, "cpu", [Case(None, 2, "auto")], 0.5, repeats=1, published=False
        ).figures
        assert figure.work > 0
        assert math.isnan(figure.ratio)


def test_nothing_is_refused() -> None:
    for cases, seconds, repeats in (([], 1.0, 1), ([Case(1, 0, "fp32")], 1.0, 1)):
        with pytest.raises(TaskError, match="nothing to measure"):
            bench.run("denoise-16k", "cpu", cases, seconds, repeats)


def test_the_command_prints_a_table_of_80_columns_or_json(tmp_path: Path) -> None:
    model = attenuator(tmp_path / "model.safetensors")
    given = ("bench", "-m", model, "--steps", "1,2", "--seconds", "1", "--repeats", "1", "-q")
    lines = wavediff(*given).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line.split() for line in lines if line.strip()]
    assert [row[0] for row in rows[-4:]] == ["1", "2", "6*", "*"]
    facts = json.loads(wavediff(*given, "--no-published", "--json").stdout)
    assert [figure["steps"] for figure in facts["figures"]] == [1, 2]
    assert facts["published"] is None
    assert facts["figures"][0]["ratio"] is None


def test_a_list_that_is_none_is_refused() -> None:
    for words in ("1,two", "0", "-1"):
        assert "no list of numbers" in refusal("bench", f"--steps={words}")[0]
    assert "precision half is not known" in refusal("bench", "--precision", "half")[0]
