"""Reports: what is on the page is what is in the files, and the page works in a browser."""

import base64
import html as entities
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest
import soundfile as sf
import tiny
import torch
from command import attenuator, refusal, wavediff
from corpus import RATE, hiss, put, voice

from wavediff import report as reports
from wavediff.audio import ArraySource, read
from wavediff.errors import DataError, TaskError
from wavediff.evaluation import evaluate
from wavediff.exhibit import SHADES, Walked, flac, picture
from wavediff.model import load
from wavediff.plot import RANGE_DB, Drawn, spectrogram
from wavediff.report import Report, Request
from wavediff.tasks import DenoiseSettings
from wavediff.vocoding import VocodeSettings

NAMES = ("a", "b", "c")
SECONDS = 1.0


@pytest.fixture(autouse=True)
def few_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that need no package and no time."""
    monkeypatch.setattr("wavediff.report.available", lambda: ("si_sdr", "mr_stft"))


def folders(root: Path, names: tuple[str, ...] = NAMES) -> Path:
    """clean/, noisy/ and ours/, with recordings of these names."""
    for n, name in enumerate(names):
        clean, noise = voice(n, SECONDS), hiss(n, SECONDS)
        for folder, level in (("clean", 0.0), ("noisy", 1.0), ("ours", 0.2)):
            put(root / folder / f"{name}.wav", clean + level * noise)
    return root


def request(root: Path, **settings: Any) -> Request:
    return Request(**{"reference": root / "clean", "systems": {"ours": root / "ours"}, **settings})


def script(page: str, name: str) -> str:
    """The text of a script element."""
    found = re.search(rf'<script[^>]* id="{name}">(.*?)</script>', page, re.DOTALL)
    assert found is not None, name
    return found[1]


def data(page: str) -> list[dict[str, Any]]:
    recordings: list[dict[str, Any]] = json.loads(script(page, "data"))["recordings"]
    return recordings


def sound(page: str, recording: int, number: int) -> torch.Tensor:
    """A sound of the page, (channels, samples)."""
    content = base64.b64decode(script(page, f"sound-{recording}-{number}"))
    return torch.from_numpy(sf.read(io.BytesIO(content), dtype="float32", always_2d=True)[0].T)


def words(page: str) -> str:
    """What can be read on it."""
    body = re.sub(r"<(script|style).*?</\1>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", entities.unescape(re.sub(r"<[^>]*>", " ", body)))


def test_the_sounds_of_the_page_are_those_of_the_files(tmp_path: Path) -> None:
    root = folders(tmp_path)
    made = reports.build(request(root, noisy=root / "noisy"))
    found = data(made.html)
    assert [each["name"] for each in found] == list(NAMES)
    assert found[0]["labels"] == ["reference", "noisy", "ours"]
    for n, name in enumerate(NAMES):
        for m, folder in enumerate(("clean", "noisy", "ours")):
            expected, _ = read(root / folder / f"{name}.wav")  # 16 bits
            assert torch.equal(sound(made.html, n, m), expected)
    assert made.shown == 3
    assert not made.left_out


def test_the_figures_are_those_of_evaluate(tmp_path: Path) -> None:
    root = folders(tmp_path)
    text = words(reports.build(request(root, noisy=root / "noisy", most=1)).html)
    expected = evaluate(root / "clean", root / "ours", ("si_sdr", "mr_stft"))
    scores = sorted(row.scores["si_sdr"] for row in expected.rows)
    assert f"ours {expected.mean['si_sdr']:.2f} {scores[1]:.2f}" in text
    assert f"{expected.mean['mr_stft']:.3f}" in text
    assert "3 recordings, " in text
    assert "1 of 3 are shown; the figures are of all" in text
    assert "PESQ-WB and ESTOI left out" in text
    assert "ours is ahead" in text


def test_only_what_all_have_is_shown_and_the_rest_is_said(tmp_path: Path) -> None:
    root = folders(tmp_path)
    (root / "ours" / "b.wav").unlink()
    put(root / "ours" / "c.wav", voice(0, 2.0))
    put(root / "ours" / "extra.wav", voice(0, 1.0))
    made = reports.build(request(root, noisy=root / "noisy"))
    assert [each["name"] for each in data(made.html)] == ["a"]
    reasons = {skip.path.stem: skip.reason for skip in made.left_out}
    assert set(reasons) == {"b", "c", "extra"}
    assert "longer than its reference" in reasons["c"]
    for name in ("b", "c", "extra"):
        assert re.search(rf"\b{name}\b[^:]*: ", words(made.html))
    (root / "ours" / "a.wav").unlink()
    with pytest.raises(DataError, match="no recording can be shown"):
        reports.build(request(root))


def test_a_recording_that_is_too_long_is_left_out(tmp_path: Path) -> None:
    root = folders(tmp_path, ("a",))
    for folder in ("clean", "ours"):
        put(root / folder / "long.wav", np.full(61 * RATE, 0.1, np.float32))
    made = reports.build(request(root))
    assert made.shown == 1
    assert "at most 60 s" in made.left_out[0].reason


def test_names_cannot_become_code(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>\"'&"
    close = "</script><script>alert(2)</script>"
    root = folders(tmp_path, (evil,))
    made = reports.build(request(root, systems={close: root / "ours"}, title=close))
    assert "<img src=x" not in made.html
    assert "alert(2)</script>" not in made.html
    assert data(made.html)[0]["name"] == evil
    assert data(made.html)[0]["labels"] == ["reference", close]
    assert close in words(made.html)


def test_the_page_asks_for_nothing_outside_of_itself(tmp_path: Path) -> None:
    root = folders(tmp_path, ("a",))
    page = reports.build(request(root)).html
    assert "default-src 'none'" in page
    assert {link[:5] for link in re.findall(r'(?:src|href)="([^"]*)"', page)} == {"data:"}
    assert not re.search(r"url\(|@import|https?://", page)


def test_the_path_of_a_model_is_there_step_by_step(tmp_path: Path) -> None:
    root = folders(tmp_path, ("a",))
    model = load(attenuator(tmp_path / "m.safetensors"), "cpu")
    walked = Walked(model, 2)
    page = reports.build(request(root, noisy=root / "noisy", walked=walked)).html
    (found,) = data(page)
    assert found["labels"] == ["reference", "noisy", "ours", walked.name, "guess 1"]
    assert found["shown"] == 4
    assert [stop["sound"] for stop in found["path"]] == [1, 4, 3]
    assert found["path"][1]["text"].startswith("guess 1 of 2, at t = 1.00, ")
    noisy, rate = read(root / "noisy" / "a.wav")
    last = model.denoise(noisy, rate, DenoiseSettings(steps=2))
    assert (sound(page, 0, 3) - last).abs().max() < 2**-15
    assert (sound(page, 0, 4) - sound(page, 0, 3)).abs().max() > 1e-3


def test_a_vocoder_starts_from_the_reference_and_guessed_phases(tmp_path: Path) -> None:
    root = folders(tmp_path, ("a",))
    model = load(tiny.vocoder(tmp_path / "m.safetensors", "narrow8k"), "cpu")
    walked = Walked(model, 2)
    page = reports.build(request(root, systems={}, walked=walked)).html
    (found,) = data(page)
    assert found["labels"] == ["reference", walked.name, "start", "guess 1"]
    assert [stop["sound"] for stop in found["path"]] == [2, 3, 1]
    made = model.resynthesise(*read(root / "clean" / "a.wav"), VocodeSettings(2))
    assert (sound(page, 0, 1) - made).abs().max() < 2**-15


def test_pictures_share_colours_and_scales() -> None:
    from PIL import Image

    tone = torch.sin(2 * math.pi * 1000 * torch.arange(RATE) / RATE)[None]
    drawn = Drawn(spectrogram(ArraySource(0.1 * tone, RATE)), 1.0, RATE / 2000)
    image = Image.open(io.BytesIO(picture(drawn, -20.0, 8.0)))  # twice as high as it has content
    levels = np.asarray(image).astype(float)
    rows = levels.mean(1)
    assert len(rows) - 1 - rows.argmax() == pytest.approx(len(rows) / 8, abs=2)
    assert levels.max() <= SHADES - 1
    louder = np.asarray(Image.open(io.BytesIO(picture(drawn, 0.0, 8.0)))).astype(float)
    step = 20 / RANGE_DB * (SHADES - 1)  # the same sound where 20 dB more are the loudest colour
    assert levels.max() - louder.max() == pytest.approx(step, abs=1)
    assert rows[: len(rows) // 2 - 1].max() == 0


def test_loud_samples_are_limited_and_others_kept() -> None:
    given = torch.tensor([[0.0, 2.0, -2.0, 0.5, -(2.0**-15)]])
    heard, rate = sf.read(io.BytesIO(flac(given, 44100)), dtype="float32")
    assert heard.tolist() == [0.0, 1 - 2**-15, -1.0, 0.5, -(2**-15)]
    assert rate == 44100


def test_a_page_of_figures_alone(tmp_path: Path) -> None:
    root = folders(tmp_path)
    result = evaluate(root / "clean", root / "ours", ("si_sdr",))
    (tmp_path / "a.json").write_text(result.to_json(), "utf-8")
    page = tmp_path / "a.html"
    wavediff("report", "--figures", f"theirs={tmp_path / 'a.json'}", "-o", page)
    text = words(page.read_text("utf-8"))
    assert f"theirs {result.mean['si_sdr']:.2f}" in text
    assert "Blind test" not in text
    (tmp_path / "b.json").write_text('{"metrics": 3}', "utf-8")
    message, hint = refusal("report", "--figures", f"b={tmp_path / 'b.json'}", "-o", page, "-f")
    assert "does not hold the figures" in message
    assert "--json" in hint


def test_the_command_says_what_it_made_and_overwrites_nothing(tmp_path: Path) -> None:
    root = folders(tmp_path)
    (root / "ours" / "b.wav").unlink()
    page = tmp_path / "pages" / "a.html"
    given = ["report", root / "clean", f"ours={root / 'ours'}", "-o", page]
    result = wavediff(*given, "--json")
    facts = json.loads(result.stdout)
    assert facts["recordings"] == 2
    assert facts["bytes"] == page.stat().st_size
    assert len(facts["left_out"]) == 1
    assert "exists" in refusal(*given)[0]
    wavediff(*given, "-f")


def test_a_large_page_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folders(tmp_path, ("a",))
    monkeypatch.setattr("wavediff.report.LARGE", 1000)
    given = ["report", root / "clean", f"ours={root / 'ours'}", "-o", tmp_path / "a.html"]
    assert "--most N shows fewer" in wavediff(*given).stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "nothing to report"),
        (["clean"], "nothing beside the reference"),
        (["clean", "ours"], "names no system"),
        (["clean", "a=ours", "a=noisy"], "two systems"),
        (["clean", "reference=ours"], "two systems"),
        (["clean", "-m", "m.safetensors"], "nothing to denoise"),
        (["clean", "ours=nowhere"], "is not there"),
    ],
)
def test_what_cannot_be_reported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], said: str
) -> None:
    monkeypatch.chdir(folders(tmp_path, ("a",)))
    attenuator(tmp_path / "m.safetensors")
    assert said in refusal("report", *given)[0]
    assert not (tmp_path / "report.html").exists()


def test_without_jinja_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("wavediff.report.import_module", missing)
    with pytest.raises(TaskError) as caught:
        reports.build(request(folders(tmp_path, ("a",))))
    assert "wavediff[report]" in caught.value.hint


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two recordings with the path of a model."""
    root = folders(tmp_path_factory.mktemp("page"), ("a", "b" * 60))
    model = load(attenuator(root / "m.safetensors"), "cpu")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("wavediff.report.available", lambda: ("si_sdr", "mr_stft"))
        made: Report = reports.build(request(root, noisy=root / "noisy", walked=Walked(model, 2)))
    file = root / "page.html"
    file.write_text(made.html, "utf-8")
    return file


@pytest.mark.skipif(browser.PROGRAM is None, reason="no chromium is installed")
def test_the_page_works_in_a_browser(page: Path) -> None:
    with browser.Browser() as tab:
        for width in (390, 1280):
            tab.open(page, width, dark=width == 390)
            root = "document.documentElement"
            assert tab.run(f"{root}.scrollWidth") <= tab.run(f"{root}.clientWidth")
        _plays_and_switches(tab)
        _walks_the_path(tab)
        _keeps_score(tab)
        assert tab.errors == []


def _heard(tab: browser.Browser, number: int) -> None:
    """Wait until of all sounds only that one has a gain."""
    tab.wait(
        "player.voices.length > 0 && player.voices.every("
        f"({{gain}}, n) => Math.abs(gain.gain.value - (n === {number} ? loudness(n) : 0)) < 1e-6)"
    )


def _plays_and_switches(tab: browser.Browser) -> None:
    tab.press("l")  # a loop, so that it lasts
    tab.press(" ")
    tab.wait("player.playing && position() > 0")
    assert tab.run("context.state") == "running"
    _heard(tab, 0)
    assert tab.run("loudness(0)") == 1  # as it is
    tab.press("2")
    _heard(tab, 1)
    assert tab.run("document.querySelector('[data-sound=\"1\"] button').ariaPressed") == "true"
    assert tab.run("player.playing")
    tab.run("cards[0].querySelector('.play').click()")
    assert not tab.run("player.playing")
    tab.run("seek(0.2)")
    tab.press("ArrowRight")
    assert tab.run("Number(cards[0].querySelector('.seek').value)") == pytest.approx(1, abs=0.02)
    box = "cards[1].querySelector('[data-sound=\"2\"] .view')"
    tab.run(
        f"{{const r = {box}.getBoundingClientRect(); {box}.dispatchEvent(new MouseEvent("
        "'click', {bubbles: true, clientX: r.left + r.width / 4})); true}"
    )
    assert tab.run("[player.card, player.sound]") == [1, 2]
    assert tab.run("position()") == pytest.approx(0.25, abs=0.02)


def _walks_the_path(tab: browser.Browser) -> None:
    tab.run("{const s = cards[0].querySelector('.steps'); s.value = 1; s.oninput(); toggle()}")
    assert tab.run("player.sound") == 4
    _heard(tab, 4)
    assert tab.run("cards[0].querySelector('output').textContent").startswith("guess 1 of 2")
    assert tab.run("cards[0].querySelector('.stop').src === find('picture-0-4').textContent")
    tab.run("toggle()")


def _keeps_score(tab: browser.Browser) -> None:
    for trials in range(1, 31):
        tails = [
            sum(math.comb(trials, k) for k in range(right, trials + 1)) / 2**trials
            for right in range(trials + 1)
        ]
        found = tab.run(f"Array.from({{length: {trials + 1}}}, (_, n) => chance(n, {trials}))")
        assert found == pytest.approx(tails, rel=1e-9)
    fewest = {4: 5, 5: 5, 8: 7, 10: 9, 12: 10, 16: 12, 20: 15}  # 5: 4 trials cannot be enough
    assert {n: tab.run(f"needed({n})") for n in fewest} == fewest
    tab.run("{find('blind-trials').value = '5'; find('blind-start').click()}")
    for number in range(5):
        tab.press("x")
        x = tab.run("blind.x")
        _heard(tab, x)
        gains = tab.run("[blind.a, blind.b].map(loudness)")
        levels = tab.run("[blind.a, blind.b].map((n) => player.voices[n].level)")
        assert max(gains) == 1
        assert gains[0] * levels[0] == pytest.approx(gains[1] * levels[1])
        assert tab.run("document.querySelectorAll('[data-on]').length") == 0  # X stays hidden
        right = number != 2
        tab.press("1" if (x == tab.run("blind.a")) == right else "2")
    assert tab.run("find('score').textContent") == "4 of 5 right, p = 0.188"
    assert "Not significant" in tab.run("find('verdict').textContent")
    tab.run("find('blind-start').click()")
    for _ in range(5):
        tab.run("say(blind.x === blind.a ? 'a' : 'b')")
    assert tab.run("find('score').textContent") == "5 of 5 right, p = 0.031"
    assert tab.run("find('verdict').textContent").startswith("Significant")
    tab.run("say('a')")
    assert tab.run("blind.done") == 5  # not one more than was decided
