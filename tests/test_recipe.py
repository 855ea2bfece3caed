"""Recipes: what is understood reads back the same, everything else is refused in words."""

import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from wavediff import recipe as recipes
from wavediff.errors import RecipeError
from wavediff.recipe import Recipe

KEYS = recipes.keys()
ROOT = Path(__file__).resolve().parents[1]


def refusal(call: Any, *arguments: Any) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        call(*arguments)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def attempt(call: Any, *arguments: Any) -> Recipe | RecipeError:
    """A recipe or its refusal; any other error fails the test."""
    try:
        return call(*arguments)
    except RecipeError as error:
        return error


def from_text(text: str, folder: Path) -> Recipe:
    path = folder / "mine.toml"
    path.write_text(text, "utf-8")
    return recipes.load(path)


TYPOS = [  # as written, what is meant
    ("training.bach", "training.batch"),
    ("training.learning_rat", "training.learning_rate"),
    ("training.learningRate", "training.learning_rate"),
    ("trainning.batch", "training.batch"),
    ("mixture.batch", "training.batch"),  # the right name in the wrong section
    ("batch", "training.batch"),
    ("data.snr", "mixture.snr"),
    ("network.chanels", "network.channels"),
    ("path.at_strat", "path.at_start"),
    ("ratee", "rate"),
    ("data.validation_noise", "data.validation_noisy"),
]


@pytest.mark.parametrize(("typo", "meant"), TYPOS)
def test_overrides_name_the_nearest_setting(typo: str, meant: str) -> None:
    error = refusal(recipes.load, "denoise-tiny", [f"{typo}=1"])
    assert typo in error.message
    assert error.hint == f"did you mean {meant}?"


@pytest.mark.parametrize(("typo", "meant"), TYPOS)
def test_files_name_the_nearest_setting(typo: str, meant: str, tmp_path: Path) -> None:
    error = refusal(from_text, f"{typo} = 1\n", tmp_path)
    assert "mine.toml" in error.message
    if typo.startswith("trainning"):  # of an unknown section only the section is judged
        meant = "training"
    assert error.hint == f"did you mean {meant}?"


REFUSED = [
    ("training.batch", "0"),
    ("training.batch", "1.5"),
    ("training.batch", '"many"'),
    ("training.batch", "nan"),
    ("training.batch", "[8]"),
    ("training.crop", "-1"),
    ("training.crop", "0.001"),
    ("training.crop", "inf"),
    ("training.ema", "1.0"),
    ("training.precision", '"fp8"'),
    ("training.seed", "-1"),
    ("training.seed", "99999999999999999999"),
    ("training.max_minutes", "0"),
    ("rate", "100"),
    ("rate", '"16k"'),
    ("task", '"vocode"'),
    ("mixture.snr", "[20, -5]"),
    ("mixture.snr", "[1]"),
    ("mixture.snr", "[nan, 1]"),
    ("mixture.room", "1.5"),
    ("mixture.speed", "0.5"),
    ("loss.windows", "[255]"),
    ("loss.windows", "[0]"),
    ("path.at_start", "2"),
    ("data.balance", "-0.1"),
    ("data.sounds", "[1]"),
    ("data.sounds", '[""]'),
    ("data.rooms", '""'),
    ("data.noisy", '"noisy"'),  # without its other side
    ("data.validation_clean", '"clean"'),
    ("network.hop", "300"),
    ("network.bands", "1000"),
    ("training", "8"),
]


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_wrong_types_and_ranges_are_refused_by_name(key: str, value: str, tmp_path: Path) -> None:
    error = refusal(from_text, f"{key} = {value}\n", tmp_path)
    assert "mine.toml" in error.message
    assert key.partition(".")[0] in error.message


SET = [
    ("training.batch=8", "training", "batch", 8),
    (" training.batch = 8 ", "training", "batch", 8),
    ("training.learning_rate=2e-3", "training", "learning_rate", 2e-3),
    ("training.learning_rate=1", "training", "learning_rate", 1.0),
    ("training.precision=fp16", "training", "precision", "fp16"),
    ('training.precision="fp16"', "training", "precision", "fp16"),
    ("mixture.snr=[-10, 5.5]", "mixture", "snr", (-10.0, 5.5)),
    ("loss.windows=[64,128]", "loss", "windows", (64, 128)),
    ("data.rooms=/home/me/my rooms", "data", "rooms", Path("/home/me/my rooms")),
    ("data.rooms=C:\\new\\rooms", "data", "rooms", Path("C:\\new\\rooms")),
    ("data.rooms=a=b", "data", "rooms", Path("a=b")),
    ("data.rooms=2026-01-31", "data", "rooms", Path("2026-01-31")),
    ("data.sounds=speech", "data", "sounds", (Path("speech"),)),
    ('data.sounds=["a", "b c"]', "data", "sounds", (Path("a"), Path("b c"))),
    ("training.max_minutes=0.5", "training", "max_minutes", 0.5),
    ("training.steps=", "training", "steps", 100_000),  # back to the default
]


@pytest.mark.parametrize(("override", "section", "name", "value"), SET)
def test_set_reads_numbers_words_paths_and_lists(
    override: str, section: str, name: str, value: object
) -> None:
    found = getattr(getattr(recipes.load("denoise-tiny", [override]), section), name)
    assert found == value
    assert type(found) is type(value)


def test_set_changes_nothing_else_and_the_last_one_wins() -> None:
    plain = recipes.load("denoise-tiny")
    changed = recipes.load("denoise-tiny", ["training.batch=3", "rate=8000", "training.batch=5"])
    training = plain.training.model_copy(update={"batch": 5})
    assert changed == plain.model_copy(update={"rate": 8000, "training": training})


@pytest.mark.parametrize("override", ["training.batch", "", "=", "=8", "training=8", "a.b.c.d=1"])
def test_set_refuses_what_is_no_setting(override: str) -> None:
    refusal(recipes.load, "denoise-tiny", [override])


def test_an_unknown_name_lists_the_recipes() -> None:
    assert "denoise-tiny" in refusal(recipes.load, "denoise-huge").hint
    assert "nowhere.toml" in refusal(recipes.load, "nowhere.toml").message


def test_files_of_other_editors_are_read(tmp_path: Path) -> None:
    path = tmp_path / "notepad.toml"
    path.write_bytes(b"\xef\xbb\xbfrate = 8000\r\n[training]\r\nbatch = 3\r\n")
    found = recipes.load(path)
    assert (found.rate, found.training.batch) == (8000, 3)


@pytest.mark.parametrize(
    "text",
    ["v = " + "[" * 5000, "rate = " + "9" * 5000, "rate = 16000\nrate = 1", "a.b = 1\na = 2"],
)
def test_hostile_files_are_refused(text: str, tmp_path: Path) -> None:
    refusal(from_text, text, tmp_path)


def test_hostile_json_is_refused() -> None:
    for text in ("", "[]", "3", "[" * 100_000, "9" * 5000, '{"rate": 1e999}', '{"rate": NaN}'):
        assert "it.safetensors" in refusal(recipes.from_json, text, "it.safetensors").message


SCALARS = (
    st.integers()
    | st.floats()
    | st.booleans()
    | st.text(max_size=8)
    | st.sampled_from(["fp32", "denoise", "bridge", "", "nan"])
)
VALUES = SCALARS | st.lists(SCALARS, max_size=3)
SECTIONS = [name for name in Recipe.model_fields if name not in ("task", "rate", "mel")]


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from([*KEYS, *SECTIONS, "x", "data.x"]), VALUES))
def test_any_values_give_a_recipe_or_a_refusal(values: dict[str, Any]) -> None:
    table: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        inner = table.setdefault(section, {}) if section else table
        if isinstance(inner, dict):
            inner[name] = value
    found = attempt(recipes.parse, table, "it")
    if isinstance(found, RecipeError):
        assert found.message.startswith("it: ")
        assert "\n" not in found.message
    else:
        assert recipes.from_json(found.to_json(), "it") == found
        assert recipes.parse(tomllib.loads(recipes.to_toml(found)), "it") == found


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_give_a_recipe_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(raw)
    found = attempt(recipes.load, path)
    assert isinstance(found, Recipe) or str(path) in found.message


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KEYS), st.text(max_size=12))
def test_any_override_gives_a_recipe_or_a_refusal(key: str, value: str) -> None:
    found = attempt(recipes.load, "denoise-tiny", [f"{key}={value}"])
    assert isinstance(found, Recipe) or "\n" not in found.message


FOLDERS = st.text(min_size=1, max_size=6).filter(lambda name: "\0" not in name)
NUMBERS = st.floats(1e-12, 1e12)


@settings(max_examples=60, deadline=None)
@given(st.lists(FOLDERS, max_size=3), FOLDERS | st.none(), NUMBERS, st.integers(0, 2**63 - 1))
def test_toml_and_json_read_back_equal(
    speech: list[str], rooms: str | None, rate: float, seed: int
) -> None:
    made = recipes.parse(
        {
            "data": {"sounds": speech, "rooms": rooms},
            "training": {"learning_rate": rate, "seed": seed},
        },
        "it",
    )
    assert recipes.parse(tomllib.loads(recipes.to_toml(made)), "it") == made
    assert recipes.from_json(made.to_json(), "it") == made


def test_a_path_that_is_no_text_is_refused() -> None:
    with pytest.raises(ValidationError, match="UTF-8"):
        Recipe.model_validate({"data": {"rooms": Path("rooms\udcff")}})


@pytest.mark.parametrize("name", ["denoise-16k", "vocode-22k", "drums-44k", "diffwave-22k"])
def test_toml_shows_every_setting_of_the_task_and_says_what_it_is(name: str) -> None:
    recipe = recipes.load(name)
    lines = recipes.to_toml(recipe).splitlines()
    sections = ("", *recipe.sections())
    mine = [key for key in KEYS if key.rpartition(".")[0] in sections]
    for key in mine:
        last = key.rpartition(".")[2]
        line = next(line for line in lines if line.startswith((f"{last} =", f"# {last} is not")))
        assert len(line.rpartition("  # ")[2]) > 5
    assert len([line for line in lines if "  # " in line]) == len(mine)


def test_a_setting_that_the_task_does_not_have_is_refused(tmp_path: Path) -> None:
    error = refusal(from_text, "vocode.steps = 4\n", tmp_path)
    assert "the task denoise has no section vocode" in error.message


@pytest.mark.parametrize("name", sorted(path.stem for path in ROOT.glob("recipes/*.toml")))
def test_shipped_recipes_load_and_say_what_they_are_for(name: str) -> None:
    assert name in recipes.names()
    text = resources.files("wavediff.recipes").joinpath(f"{name}.toml").read_text("utf-8")
    heading = text.partition("\n\n")[0]
    assert name in heading
    assert all(f"# {word} " in text for word in ("For", "Data", "Machine", "Time"))
    found = recipes.load(name)
    for section, given_ in tomllib.loads(text).items():
        part = getattr(found, section)
        if isinstance(part, BaseModel):
            assert json.loads(part.model_dump_json(include=set(given_))) == given_
        else:
            assert part == given_


def test_recipes_cannot_be_changed() -> None:
    made = Recipe()
    with pytest.raises(ValidationError):
        made.training.batch = 3
