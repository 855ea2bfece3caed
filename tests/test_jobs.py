"""Which inputs go to which outputs."""

from pathlib import Path

import pytest
from corpus import hiss, put

from wavediff import jobs
from wavediff.errors import DataError, TaskError

FILES = ("a.wav", "deep/b.flac", "deep/er/c.ogg")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        put(Path("in") / name, hiss(0, 0.1))
    Path("in/notes.txt").write_text("no sound")
    return tmp_path


def targets(inputs: list[str], output: str | None = None) -> list[str]:
    return [Path(job.target).as_posix() for job in jobs.plan(inputs, output, "denoised")]


def test_results_go_beside_or_into_a_folder_with_the_same_tree(folder: Path) -> None:
    beside = ["in/a.denoised.wav", "in/deep/b.denoised.flac", "in/deep/er/c.denoised.ogg"]
    within = [f"out/{name}" for name in FILES]
    assert targets(["in"]) == beside
    assert targets(["in"], "out") == within
    assert targets(["in/**/*"], "out") == within
    assert targets(["in/deep/*.flac", "in/a.wav"], "out") == ["out/b.flac", "out/a.wav"]
    assert targets(["*/deep/*.flac"], "out") == ["out/in/deep/b.flac"]
    assert targets(["in", "in/a.wav", "./in/deep/../a.wav"], "out") == within  # each once


def test_one_file_goes_to_exactly_the_output(folder: Path) -> None:
    assert targets(["in/a.wav"], "x.flac") == ["x.flac"]
    assert targets(["in/a.wav"], "in/deep") == ["in/deep/a.wav"]
    assert targets(["in/a.wav"], "new/") == ["new/a.wav"]
    assert targets(["in/a.wav"], "-") == ["-"]
    assert targets(["-"]) == ["-"]
    assert targets(["-"], "x.wav") == ["x.wav"]
    assert targets(["missing.w64"]) == ["missing.denoised.wav"]  # an error of that file, later


def test_results_of_earlier_runs_are_no_inputs(folder: Path) -> None:
    for name in ("a.denoised.wav", "lonely.denoised.wav"):
        put(Path("in") / name, hiss(0, 0.1))
    files = [str(path) for path in sorted(Path("in").glob("*.wav"))]  # as a shell expands *.wav
    assert targets(files) == ["in/a.denoised.wav", "in/lonely.denoised.denoised.wav"]


def test_what_cannot_be_is_refused(folder: Path) -> None:
    for inputs, output in (
        (["in"], "-"),
        (["in"], "out.wav"),
        (["in", "-"], "out"),
        (["in/a.wav", "in/deep"], "in/a.wav"),
    ):
        with pytest.raises(TaskError):
            targets(inputs, output)
    put(Path("two/a.wav"), hiss(0, 0.1))
    with pytest.raises(TaskError, match="both go to"):
        targets(["in", "two"], "out")
    with pytest.raises(DataError, match="no audio file matches"):
        targets(["in/*.mp3"])


def test_existing_results_need_a_word(folder: Path) -> None:
    planned = jobs.plan(["in"], "out", "denoised")
    assert jobs.outstanding(planned, False, False) == planned
    put(Path("out/a.wav"), hiss(0, 0.1))
    with pytest.raises(TaskError, match=r"a\.wav exists"):
        jobs.outstanding(planned, False, False)
    assert jobs.outstanding(planned, False, True) == planned[1:]
    assert jobs.outstanding(planned, True, False) == planned
    Path("out/deep").mkdir()
    Path("out/deep/b.png").touch()
    with pytest.raises(TaskError, match="and 1 more"):
        jobs.outstanding(planned, False, False, pictures=True)
    onto_itself = jobs.plan(["in/a.wav"], "in/a.wav", "denoised")
    with pytest.raises(TaskError, match="overwritten by its result"):
        jobs.outstanding(onto_itself, False, False)
