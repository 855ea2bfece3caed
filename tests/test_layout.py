"""The house: what may know of what, and how every module is kept."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = {
    ".".join(file.relative_to(ROOT / "wavediff").with_suffix("").parts): file
    for file in sorted((ROOT / "wavediff").rglob("*.py"))
    if file.name != "__init__.py"
}
TREES = {name: ast.parse(file.read_text("utf-8")) for name, file in MODULES.items()}

# Modules import those of their own floor, without circles, and of the floors above; none below.
HOUSE = {
    "what sound is": "errors audio resample writer transform noise level fullband background",
    "what a mel is": "mel phase melfile melguess",
    "how it is judged": "metrics",
    "one denoiser, sampled exactly": "network upper packed prepared stack prior path denoiser "
    "samplers render spin kernels.mixing kernels.convolution kernels.block kernels.graph "
    "kernels.choice",
    "around the denoiser": "vocoding generating published published_sound operations",
    "what it learns from": "data degrade mixtures intelligibility disturbance losses "
    "labelled crops",
    "what is trained for what": "recipe checkpoint published_import tasks model card",
    "how it is trained": "shares batches objective optimizers trainer validation logs "
    "training plan",
    "who judges what is invented": "lessons classifier likeness",
    "what is done with files": "loop given jobs files crew evaluation survey plot",
    "what is shown of it": "trace film exhibit report",
    "how fast it is": "bench",
}
FLOOR = {
    module: floor for floor, modules in enumerate(HOUSE.values()) for module in modules.split()
}
OF_THE_COMMAND_LINE = {"typer", "rich", "click"}
ONLY_WHERE_USED = {
    "matplotlib",
    "librosa",
    "tensorboard",
    "pesq",
    "pystoi",
    "jinja2",
    "onnxruntime",
}
FOREIGN = ["audio.ForwardFile.seekable"]  # a method of soundfile's, explained by its class
LONGEST = 400  # lines
NOUNLESS = {"utils", "util", "helpers", "helper", "common", "base", "misc", "tools", "core"}


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules that a piece of code imports, by their full names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            if node.module == "wavediff":
                yield from (f"wavediff.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


def at_module_level(node: ast.AST) -> Iterator[str]:
    """The same, without what is imported inside of functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield from imported(child)
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from at_module_level(child)


def inside(name: str) -> set[str]:
    """The modules of the library that a module imports anywhere."""
    return {
        module.removeprefix("wavediff.")
        for module in imported(TREES[name])
        if module.removeprefix("wavediff.") in MODULES
    }


def test_every_module_has_its_place_in_the_house() -> None:
    assert set(MODULES) == set(FLOOR)


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_up_the_house(name: str) -> None:
    below = [other for other in inside(name) if FLOOR.get(other, 99) > FLOOR.get(name, -1)]
    assert not below, f"{name} imports from below"


def test_no_imports_go_in_circles() -> None:
    graph = {name: inside(name) for name in MODULES}
    list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("name", MODULES)
def test_the_library_knows_no_command_line(name: str) -> None:
    packages = {module.partition(".")[0] for module in imported(TREES[name])}
    assert not packages & OF_THE_COMMAND_LINE
    assert not {m for m in imported(TREES[name]) if m.startswith(("wavediff.cli", "cli"))}


@pytest.mark.parametrize("name", MODULES)
def test_what_few_need_is_imported_where_it_is_used(name: str) -> None:
    parts = {part for module in at_module_level(TREES[name]) for part in module.split(".")}
    assert not parts & ONLY_WHERE_USED


@pytest.mark.parametrize("name", MODULES)
def test_modules_leave_the_private_parts_of_others_alone(name: str) -> None:
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wavediff"):
            assert not [alias.name for alias in node.names if alias.name.startswith("_")]


def test_the_package_is_imported_without_torch() -> None:
    """Else `wavediff --help` would take seconds."""
    code = "import wavediff, sys; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def documented(name: str) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """Public functions, classes and methods of a module, with their names."""
    for node in TREES[name].body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        yield f"{name}.{node.name}", node
        for method in node.body if isinstance(node, ast.ClassDef) else []:
            if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                yield f"{name}.{node.name}.{method.name}", method


def test_everything_public_says_what_it_is() -> None:
    """But for properties, whose name is a noun, and methods that a protocol explains."""
    told, silent = set[str](), list[str]()
    for name in MODULES:
        assert ast.get_docstring(TREES[name]), f"{name} has no docstring"
        for path, node in documented(name):
            method = path.rpartition(".")[2]
            if ast.get_docstring(node):
                told.add(method)
            elif not any(ast.unparse(d) == "property" for d in node.decorator_list):
                silent.append(path)
    assert [path for path in silent if path.rpartition(".")[2] not in told] == FOREIGN


@pytest.mark.parametrize("name", MODULES)
def test_every_function_is_typed(name: str) -> None:
    untyped = []
    for node in ast.walk(TREES[name]):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        if every and every[0].arg in ("self", "cls"):
            every = every[1:]
        every += [arg for arg in (node.args.vararg, node.args.kwarg) if arg]
        if any(arg.annotation is None for arg in every):
            untyped.append(node.name)
        if node.returns is None and node.name != "__init__":
            untyped.append(node.name)
    assert not untyped


@pytest.mark.parametrize("folder", ["wavediff", "cli"])
def test_one_noun_one_file_of_readable_length(folder: str) -> None:
    for file in (ROOT / folder).rglob("*.py"):
        assert file.stem not in NOUNLESS, file
        assert len(file.read_text("utf-8").splitlines()) <= LONGEST, file
