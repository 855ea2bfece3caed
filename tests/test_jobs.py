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


def test_results_in_a_folder_among_the_recordings_are_no_inputs(folder: Path) -> None:
    expected = [f"in/clean/{name}" for name in FILES]
    assert targets(["in"], "in/clean") == expected
    for name in (*FILES, "another.wav"):
        put(Path("in/clean") / name, hiss(0, 0.1))
    assert targets(["in"], "in/clean") == [expected[0], "in/clean/clean/another.wav", *expected[1:]]


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


def test_an_empty_name_is_not_the_folder_one_is_in(folder: Path) -> None:
    with pytest.raises(DataError, match="an input has no name"):
        targets([str(folder), ""])


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


MELS = {"in/m.npy": ["m"], "in/deep/n.npz": ["one", "two"], "-": ["--0", "--1"]}


@pytest.fixture
def mels(folder: Path) -> Path:
    for name in MELS.keys() - {"-"}:
        Path(name).touch()
    return folder


def places(inputs: list[str], output: str | None = None) -> dict[str, str]:
    """Where each mel or recording goes."""
    planned = jobs.plan(inputs, output, "vocoded", lambda source: MELS.get(source, []))
    return {f"{job.source} {job.part}".strip(): Path(job.target).as_posix() for job in planned}


def test_mels_become_wavs_of_their_names_and_parts(mels: Path) -> None:
    assert places(["in"]) == {
        "in/a.wav": "in/a.vocoded.wav",
        "in/deep/b.flac": "in/deep/b.vocoded.flac",
        "in/deep/er/c.ogg": "in/deep/er/c.vocoded.ogg",
        "in/m.npy": "in/m.wav",
        "in/deep/n.npz one": "in/deep/n-one.wav",
        "in/deep/n.npz two": "in/deep/n-two.wav",
    }
    assert places(["in/m.npy"], "x.flac") == {"in/m.npy": "x.flac"}
    assert places(["in/m.npy"], "-") == {"in/m.npy": "-"}
    assert list(places(["in/deep/n.npz"], "x.flac").values()) == ["x-one.flac", "x-two.flac"]
    assert list(places(["in/deep/n.npz"], "out").values()) == ["out/n-one.wav", "out/n-two.wav"]
    assert list(places(["-"], "x.wav").values()) == ["x-0.wav", "x-1.wav"]
    with pytest.raises(TaskError, match="2 mels do not fit into one pipe"):
        places(["in/deep/n.npz"], "-")
    with pytest.raises(DataError, match="no mel or audio file"):
        places(["*.mp3"])


def test_the_sound_beside_a_mel_is_no_input(mels: Path) -> None:
    put(Path("in/m.wav"), hiss(0, 0.1))
    put(Path("in/deep/n-one.wav"), hiss(0, 0.1))
    assert not {"in/m.wav", "in/deep/n-one.wav"} & places(["in"]).keys()
    with pytest.raises(TaskError, match="both go to"):
        places(["in"], "out")
    for sound in ("in/m.wav", "in/deep/n-one.wav"):
        Path(sound).unlink()
    into = places(["in"], "in/deep/out")
    put(Path(into["in/m.npy"]), hiss(0, 0.1))
    assert places(["in"], "in/deep/out") == into
    Path("only").mkdir()
    Path("only/m.npy").touch()
    with pytest.raises(DataError, match="no audio file in"):  # to denoise, a mel is nothing
        targets(["only"])


def test_inventions_are_numbered_by_label_and_seed(folder: Path) -> None:
    kick, both = {"kick": 1.0}, {"kick": 0.5, "a/b": 1.0}

    def named(*words: object, **more: bool) -> list[str]:
        found = jobs.inventions(*words, **more)  # type: ignore[arg-type]
        assert [item.number for item in found] == [*range(found[-1].number + 1)] * (
            len(found) // (found[-1].number + 1)
        )
        return [Path(item.target).as_posix() for item in found]

    assert named("out", [kick], 7, 2, "m") == ["out/kick-7-0000.wav", "out/kick-7-0001.wav"]
    assert named(None, [{}], 0, 1, "m") == ["m-0-0000.wav"]
    assert named("out", [both], 0, 1, "m") == ["out/kick0.5+a_b-0-0000.wav"]
    assert named("x.flac", [kick], 0, 1, "m") == ["x.flac"]
    assert named("-", [kick], 0, 1, "m") == ["-"]
    assert named("in", [kick, {"hat": 1.0}], 0, 1, "m", folders=True) == [
        "in/kick/kick-0-0000.wav",
        "in/hat/hat-0-0000.wav",
    ]
    for words in (("x.wav", [kick], 0, 2, "m"), ("-", [kick, {}], 0, 1, "m")):
        with pytest.raises(TaskError, match="do not fit"):
            named(*words)
    with pytest.raises(TaskError, match="both go to"):
        named("out", [{"a/b": 1.0}, {"a_b": 1.0}], 0, 1, "m")
    assert jobs.within(None, "loop.wav") == "loop.wav"
    assert jobs.within("x.wav", "loop.wav") == "x.wav"
    assert jobs.within("in", "loop.wav") == str(Path("in/loop.wav"))


def test_shares_are_the_whole_and_nothing_twice(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = jobs.plan(["in"], "out", "denoised")
    assert jobs.share(planned, None) == planned
    for count in (1, 2, 3, 5):
        parts = [jobs.share(planned, f"{n}/{count}") for n in range(1, count + 1)]
        assert sorted((job for part in parts for job in part), key=planned.index) == planned
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        monkeypatch.setenv("WORLD_SIZE", str(count))
        for rank, part in enumerate(parts):  # as torchrun tells its processes
            monkeypatch.setenv("RANK", str(rank))
            assert jobs.share(planned, None) == part
    for wrong in ("0/2", "3/2", "1", "1/0", "a/b", "-1/2", ""):
        with pytest.raises(TaskError, match="is no share"):
            jobs.share(planned, wrong)


def test_a_share_does_not_depend_on_what_is_done(folder: Path) -> None:
    before = jobs.share(jobs.plan(["in"], None, "denoised"), "1/2")
    put(Path("in/a.denoised.wav"), hiss(0, 0.1))
    assert jobs.share(jobs.plan(["in"], None, "denoised"), "1/2") == before
    left = jobs.outstanding(before, force=False, skip_existing=True)
    assert [job.source for job in left] == [job.source for job in before[1:]]
