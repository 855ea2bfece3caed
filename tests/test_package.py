"""The package as pip installs it: what is in the wheel, and that it works from there alone."""

import os
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {"wavediff": "wavediff", "cli": "wavediff/cli", "recipes": "wavediff/recipes"}
BUILD = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
KINDS = {".py", ".toml", ".safetensors", ".typed", ".html"}
USE = """
import importlib.util, sys
from pathlib import Path
import wavediff, wavediff.cli, wavediff.recipes, wavediff.models
from wavediff.cli.main import app
from wavediff import model, recipe
here = Path(sys.argv[1])
assert all(here in Path(m.__file__).parents
           for m in (wavediff, wavediff.cli, wavediff.recipes, wavediff.models)), wavediff
assert importlib.util.find_spec("cli") is None and importlib.util.find_spec("recipes") is None
for name in recipe.names():
    recipe.load(name)
print(*recipe.names(), *model.names(), sep="\\n")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as pip builds it, from a copy: a folder build/ of earlier days must not leak in."""
    copy = tmp_path_factory.mktemp("build")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in SOURCES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    result = subprocess.run([sys.executable, "-c", BUILD], cwd=copy, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return next((copy / "dist").glob("*.whl"))


def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    expected = {
        f"{target}/{path.relative_to(ROOT / source).as_posix()}"
        for source, target in SOURCES.items()
        for path in (ROOT / source).rglob("*")
        if path.suffix in KINDS and path.parent.name[0] != "."
    }
    found = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in found if ".dist-info/" not in name} == expected
    assert any(name.endswith("LICENSE") for name in found)


def test_the_wheel_gives_one_command_and_one_module(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    facts = {Path(name).name: name for name in archive.namelist() if ".dist-info/" in name}
    assert archive.read(facts["top_level.txt"]).decode().split() == ["wavediff"]
    commands = ConfigParser()
    commands.read_string(archive.read(facts["entry_points.txt"]).decode())
    assert dict(commands["console_scripts"]) == {"wavediff": "wavediff.cli.main:run"}


def test_what_is_in_the_wheel_works_alone(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    result = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path / "site")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    recipes = [path.stem for path in (ROOT / "recipes").glob("*.toml")]
    models = [path.stem for path in (ROOT / "wavediff" / "models").glob("*.safetensors")]
    assert result.stdout.split() == sorted(recipes) + sorted(models)
