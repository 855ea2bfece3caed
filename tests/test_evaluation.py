"""Evaluation: the right files are compared, and what is printed is what was measured."""

import csv
import importlib.util
import io
import json
import math
import statistics
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wavediff import evaluation
from wavediff.errors import AudioError, DataError, TaskError
from wavediff.evaluation import Evaluation, Row, evaluate, evaluate_model, pairs, score
from wavediff.metrics import METRICS, mr_stft, si_sdr

RATE = 8000
ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
PLAIN = ("si_sdr", "mr_stft")  # need no package


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def write(path: Path, audio: Tensor, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    subtype = "FLOAT" if path.suffix == ".wav" else None
    sf.write(path, audio.T.numpy(), rate, subtype=subtype)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Seven pairs in two trees, the estimate of number n with n times as much noise."""
    clean, noisy = tmp_path / "clean", tmp_path / "noisy"
    for n in range(7):
        sound = noise(1, 4000 + 100 * n, seed=n)
        write(clean / f"voice-{n % 2}" / f"take.{n}.flac", sound)
        noisier = sound + (n + 1) * 0.1 * noise(*sound.shape, seed=n + 100)
        write(noisy / f"voice-{n % 2}" / f"take.{n}.wav", noisier)
    return clean, noisy


def test_pairs_are_matched_by_path_without_extension(folders: tuple[Path, Path]) -> None:
    clean, noisy = folders
    write(clean / "alone.wav", noise(1, 100))
    write(noisy / "voice-1" / "take.0.wav", noise(1, 100))  # the clean one is in voice-0
    write(noisy / "voice-0" / "take.0.flac", noise(1, 100))
    (noisy / "notes.txt").write_text("no sound")
    matched, skipped = pairs(clean, noisy)
    assert [pair.name for pair in matched] == [
        *(f"voice-0/take.{n}" for n in (2, 4, 6)),
        *(f"voice-1/take.{n}" for n in (1, 3, 5)),
    ]
    for pair in matched:
        assert pair.reference == clean / f"{pair.name}.flac"
        assert pair.estimate == noisy / f"{pair.name}.wav"
    reasons = {str(skip.path.relative_to(clean.parent).as_posix()): skip.reason for skip in skipped}
    assert set(reasons) == {
        "clean/alone.wav",
        "noisy/voice-0/take.0.flac",
        "noisy/voice-0/take.0.wav",
        "noisy/voice-1/take.0.wav",
    }
    assert str(noisy) in reasons["clean/alone.wav"]
    assert "several" in reasons["noisy/voice-0/take.0.wav"]


def test_two_files_are_a_pair_whatever_their_names(tmp_path: Path) -> None:
    sound = noise(1, 4000)
    other = sound + 0.1 * noise(1, 4000, seed=1)
    one, two = write(tmp_path / "a.wav", sound), write(tmp_path / "b.wav", other)
    result = evaluate(one, two, PLAIN)
    assert result.mean["si_sdr"] == pytest.approx(si_sdr(sound[0], other[0]), abs=1e-9)
    with pytest.raises(DataError, match="the other is not"):
        pairs(one, tmp_path)


@pytest.mark.parametrize("other", ["elsewhere", "empty", "nowhere"])
def test_folders_without_a_pair_are_refused(folders: tuple[Path, Path], other: str) -> None:
    write(folders[0].parent / "elsewhere" / "x.wav", noise(1, 100))
    (folders[0].parent / "empty").mkdir()
    with pytest.raises(DataError) as refused:
        evaluate(folders[0], folders[0].parent / other)
    assert refused.value.hint


def test_scores_are_the_metrics_of_the_files(folders: tuple[Path, Path]) -> None:
    result = evaluate(*folders, PLAIN)
    assert len(result.rows) == 7
    for row in result.rows:
        reference = sf.read(folders[0] / f"{row.name}.flac")[0]
        estimate = sf.read(folders[1] / f"{row.name}.wav")[0]
        assert row.scores["si_sdr"] == pytest.approx(si_sdr(reference, estimate), abs=1e-6)
        assert row.scores["mr_stft"] == pytest.approx(mr_stft(reference, estimate, RATE), abs=1e-6)
        assert row.seconds == len(reference) / RATE
    values = [row.scores["si_sdr"] for row in result.rows]
    assert result.mean["si_sdr"] == pytest.approx(np.mean(values))
    assert result.spread["si_sdr"] == pytest.approx(np.std(values))
    assert result.speed is None


def test_processes_give_the_same_rows_in_the_same_order(folders: tuple[Path, Path]) -> None:
    seen: list[tuple[int, int]] = []
    result = evaluate(*folders, PLAIN, workers=2, progress=lambda *done: seen.append(done))
    assert seen == [(n, 7) for n in range(1, 8)]
    alone = evaluate(*folders, PLAIN)
    assert [row.name for row in result.rows] == [row.name for row in alone.rows]
    for row, other in zip(result.rows, alone.rows, strict=True):
        assert row.scores == pytest.approx(other.scores, rel=1e-9)


SCORES = st.floats(-100, 100) | st.just(math.nan)


def made(scores: list[tuple[float, float]], work: float | None = None) -> Evaluation:
    rows = [
        Row(f'a "{n}", ü', 1.0 + n, dict(zip(PLAIN, pair, strict=True)), work)
        for n, pair in enumerate(scores)
    ]
    return Evaluation(PLAIN, tuple(rows))


@settings(max_examples=50, deadline=None)
@given(scores=st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=12))
def test_json_and_csv_hold_the_same_numbers(scores: list[tuple[float, float]]) -> None:
    result = made(scores, work=0.1)

    def number(text: str | float | None) -> float:
        return math.nan if text in ("", None) else float(text)

    content = json.loads(result.to_json(), parse_constant=pytest.fail)
    table = list(csv.DictReader(io.StringIO(result.to_csv())))
    for parsed in (content["files"], table):
        assert [file["name"] for file in parsed] == [row.name for row in result.rows]
        for file, row in zip(parsed, result.rows, strict=True):
            assert float(file["seconds"]) == row.seconds
            assert float(file["work"]) == row.work
            np.testing.assert_equal({key: number(file[key]) for key in PLAIN}, row.scores)
    for key in PLAIN:
        summary = content["metrics"][key]
        np.testing.assert_equal(number(summary["mean"]), result.mean[key])
        np.testing.assert_equal(number(summary["spread"]), result.spread[key])
        assert summary["undefined"] == sum(math.isnan(row.scores[key]) for row in result.rows)


@settings(max_examples=50, deadline=None)
@given(scores=st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=12))
def test_the_worst_five_are_the_worst_and_nan_is_left_out(
    scores: list[tuple[float, float]],
) -> None:
    result = made(scores)
    for key in PLAIN:
        defined = [row.scores[key] for row in result.rows if not math.isnan(row.scores[key])]
        worst_first = sorted(defined, reverse=not METRICS[key].higher_is_better)
        assert [row.scores[key] for row in result.worst(key)] == worst_first[:5]
        if defined:
            assert result.mean[key] == pytest.approx(statistics.fmean(defined))
        else:
            assert math.isnan(result.mean[key])


def test_the_table_says_the_means_the_worst_and_what_is_not_there() -> None:
    result = made([(1.0, 0.5), (math.nan, 0.25), (2.0, math.nan)], work=0.5)
    text = "\n".join(result.table())
    assert "SI-SDR dB" in text
    assert "1.50" in text  # the mean of 1 and 2
    assert "0.375" in text
    assert text.index('1.00  a "0"') < text.index('2.00  a "2"')
    assert text.count("not defined for 1 files") == 2
    assert "0.2500 (median of the files), 0.2500 (all together)" in text


def test_a_broken_file_is_skipped_with_its_reason(folders: tuple[Path, Path]) -> None:
    clean, noisy = folders
    (noisy / "voice-0" / "take.2.wav").write_text("this is text")
    (clean / "voice-0" / "take.4.flac").write_bytes(b"")
    result = evaluate(clean, noisy, PLAIN)
    assert len(result.rows) == 5
    reasons = {skip.path.name: skip.reason for skip in result.skipped}
    assert "text" in reasons["take.2.wav"]
    assert "empty" in reasons["take.4.wav"]
    assert str(clean / "voice-0" / "take.4.flac") in reasons["take.4.wav"]
    assert "take.2.wav" in "\n".join(result.table())
    assert len(json.loads(result.to_json())["skipped"]) == 2


@pytest.mark.parametrize(("extra", "fits"), [(0.05, True), (-0.05, True), (0.06, False)])
def test_lengths_may_differ_by_50_ms(tmp_path: Path, extra: float, fits: bool) -> None:
    sound = noise(1, 4000)
    longer = torch.cat((sound, noise(1, 800, seed=3)), 1)[:, : 4000 + round(extra * RATE)]
    one, two = write(tmp_path / "a.wav", sound), write(tmp_path / "b.wav", longer)
    if fits:
        assert evaluate(one, two, ["si_sdr"]).mean["si_sdr"] == 100
    else:
        with pytest.raises(DataError, match=r"0\.060 s longer than its reference"):
            evaluate(one, two, ["si_sdr"])


def test_each_channel_is_scored_and_the_mean_taken() -> None:
    reference, estimate = noise(2, 4000), noise(2, 4000) + 0.1 * noise(2, 4000, seed=9)
    estimate[1] += noise(4000, seed=10)
    both = score(reference, estimate, RATE, ["si_sdr"])["si_sdr"]
    each = [si_sdr(reference[c], estimate[c]) for c in (0, 1)]
    assert both == pytest.approx(sum(each) / 2)
    assert abs(each[0] - each[1]) > 5
    reference[0] = 0  # a silent channel does not spoil the other
    assert score(reference, estimate, RATE, ["si_sdr"])["si_sdr"] == pytest.approx(each[1])
    with pytest.raises(DataError, match="channels"):
        score(reference, estimate[:1], RATE, ["si_sdr"])


def test_an_estimate_at_another_rate_is_resampled(tmp_path: Path) -> None:
    t = torch.arange(0, 1, 1 / 48000)[None]
    tone = 0.3 * torch.sin(2 * math.pi * 440 * t) * torch.sin(math.pi * t)
    one, two = write(tmp_path / "a.wav", tone[:, ::6]), write(tmp_path / "b.wav", tone, 48000)
    assert evaluate(one, two, ["si_sdr"]).mean["si_sdr"] > 60


def test_metrics_that_are_not_there_are_refused(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TaskError, match="no metric is called snr") as refused:
        evaluate(*folders, ["snr"])
    assert "si_sdr" in refused.value.hint
    monkeypatch.setattr(evaluation, "available", lambda: PLAIN)
    with pytest.raises(TaskError, match="package pesq") as refused:
        evaluate(*folders, ["pesq"])
    assert "pip install" in refused.value.hint
    result = evaluate(*folders)
    assert result.metrics == PLAIN
    assert result.missing == ("pesq", "estoi")
    assert "PESQ-WB left out" in "\n".join(result.table())


def test_a_model_is_scored_as_its_saved_files_are(folders: tuple[Path, Path]) -> None:
    clean, noisy = folders
    saved = clean.parent / "out"

    def halve(audio: Tensor, rate: int) -> Tensor:
        assert rate == RATE
        return 0.5 * audio + 0.001

    result = evaluate_model(halve, noisy, clean, PLAIN, save=saved)
    again = evaluate(clean, saved, PLAIN)
    assert [row.name for row in result.rows] == [row.name for row in again.rows]
    for row, other in zip(result.rows, again.rows, strict=True):
        assert row.scores == pytest.approx(other.scores, abs=1e-9)
    assert result.speed is not None
    assert 0 < result.speed.total < 1


def test_the_real_time_factor_is_work_over_sound(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(100))  # every look at the clock is a second later
    monkeypatch.setattr(evaluation.time, "perf_counter", lambda: float(next(clock)))
    result = evaluate_model(lambda audio, rate: audio, folders[1], folders[0], ["si_sdr"])
    seconds = [row.seconds for row in result.rows]
    assert result.speed is not None
    assert result.speed.total == pytest.approx(7 / sum(seconds))
    assert result.speed.median == pytest.approx(1 / statistics.median(seconds))


def test_what_a_model_refuses_is_skipped_and_what_stops_it_stops(
    folders: tuple[Path, Path],
) -> None:
    def fussy(audio: Tensor, rate: int) -> Tensor:
        if audio.shape[1] == 4000:
            raise AudioError("too short for me")
        return audio

    result = evaluate_model(fussy, folders[1], folders[0], PLAIN)
    assert [skip.reason for skip in result.skipped] == ["too short for me"]
    assert len(result.rows) == 6

    def unable(audio: Tensor, rate: int) -> Tensor:
        raise TaskError("no steps")

    with pytest.raises(TaskError, match="no steps"):
        evaluate_model(unable, folders[1], folders[0], PLAIN)
    (folders[0].parent / "occupied").write_text("a file")
    with pytest.raises(AudioError, match="cannot be made"):
        evaluate_model(fussy, folders[1], folders[0], PLAIN, save=folders[0].parent / "occupied")


@pytest.fixture(scope="module")
def peers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("peers", ROOT / "benchmarks" / "peers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_peers_scores_the_untouched_and_leaves_out_what_is_missing(
    peers: ModuleType,
    folders: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clean, noisy = folders
    monkeypatch.setattr(evaluation, "available", lambda: PLAIN)
    scores = clean.parent / "scores.json"
    words = f"peers.py {noisy} {clean.parent / 'out'} --systems gtcrn --weights {clean}"
    monkeypatch.setattr(sys, "argv", [*words.split(), "--clean", str(clean), "--json", str(scores)])
    peers.main()
    printed = capsys.readouterr()
    assert "gtcrn left out" in printed.err
    expected = evaluate(clean, noisy, PLAIN).mean
    content = json.loads(scores.read_text())
    assert list(content) == ["untouched"]
    assert content["untouched"]["metrics"]["si_sdr"]["mean"] == pytest.approx(expected["si_sdr"])
    assert f"{expected['mr_stft']:.3f}" in printed.out


@pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed"
)
@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared is not here")
def test_peers_gtcrn_gives_the_published_sound(peers: ModuleType) -> None:
    vectors = np.load(SHARED / "reference" / "gtcrn-vectors.npz")
    denoise = peers.gtcrn(SHARED / "reference")
    denoised = denoise(torch.from_numpy(vectors["noisy"])[None].float(), 16000)
    np.testing.assert_allclose(denoised[0].numpy(), vectors["denoised"], atol=1e-4)


@pytest.mark.skipif(
    importlib.util.find_spec("pyrnnoise") is None, reason="pyrnnoise is not installed"
)
@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared is not here")
def test_peers_rnnoise_comes_without_its_delay(peers: ModuleType) -> None:
    clip = sorted((SHARED / "audio" / "dev" / "denoise" / "clean").glob("*.flac"))[0]
    speech = torch.from_numpy(sf.read(clip, dtype="float32")[0])
    denoised = peers.rnnoise(SHARED)(speech[None], 16000)[0]
    assert denoised.shape == speech.shape
    size = 2 * len(speech)
    spectrum = torch.fft.rfft(denoised, size) * torch.fft.rfft(speech, size).conj()
    assert int(torch.fft.irfft(spectrum).argmax()) == 0
