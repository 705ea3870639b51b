"""The house keeps its own rules: what is listed, what may import what, how large a file is, what the docs promise."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from radloop.apps.grammar import build_parser

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ROOMS = sorted(CONFIG["tool"]["setuptools"]["package-dir"].values())
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
# read before any test runs: CPython 3.11 may fail to parse while another thread, such as a server's, parses too
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
LONGEST = 400
# the terminal of the commands; everybody else logs
WRITES_TO_STDOUT = {"apps/terminal.py", "sample_studies/make.py"}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_package_is_listed() -> None:
    setuptools = CONFIG["tool"]["setuptools"]
    import_name = {folder: name for name, folder in setuptools["package-dir"].items()}
    found = {
        ".".join([import_name[part.parts[0]], *part.parts[1:]])
        for room in ROOMS
        for part in (init.parent.relative_to(ROOT) for init in (ROOT / room).rglob("__init__.py"))
    }
    beside = {init.parent.name for init in ROOT.glob("*/__init__.py")} - set(ROOMS)
    assert not beside, "a package that no wheel would have: list it in pyproject.toml"
    assert found == set(setuptools["packages"])


def test_every_room_is_a_top_level_folder_of_its_name() -> None:
    for name, folder in CONFIG["tool"]["setuptools"]["package-dir"].items():
        assert name == f"radloop.{folder}"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_that_it_is_typed(room: str) -> None:
    assert (ROOT / room / "py.typed").is_file()


def test_types_and_layers_look_at_every_room() -> None:
    names = {f"radloop.{room}" for room in ROOMS}
    assert set(CONFIG["tool"]["mypy"]["packages"]) == names
    assert set(CONFIG["tool"]["importlinter"]["root_packages"]) == names
    assert set(CONFIG["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]) >= {
        room for room in ROOMS if room != "sample_studies"
    }


def test_tests_are_no_package() -> None:
    # monailabel's wheel installs a top-level package `tests`
    assert not list((ROOT / "tests").rglob("__init__.py"))
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names)), "two test files of one name"


def test_imports_go_one_way() -> None:
    lint = shutil.which("lint-imports", path=str(Path(sys.executable).parent)) or shutil.which("lint-imports")
    if lint is None:
        pytest.skip("import-linter is not installed; pip install -e '.[dev]'")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_layers_would_notice(tmp_path: Path) -> None:
    """The contract itself: every room is in the layers or named beside them."""
    layers = CONFIG["tool"]["importlinter"]["contracts"][0]["layers"]
    placed = {name.strip() for layer in layers for name in layer.split("|")}
    assert placed | {"radloop.sample_studies"} == {f"radloop.{room}" for room in ROOMS}


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_file_is_short_enough(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_library_code_is_quiet_and_checks_without_assert(path: Path) -> None:
    for node in ast.walk(TREES[path]):
        where = f"{_name(path)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"print", "eval", "exec", "exit", "quit"}, where
        if isinstance(node, ast.Assert):
            pytest.fail(f"{where}: assert is no validation; raise an error of radloop.recipes.errors")
        if isinstance(node, ast.Attribute) and node.attr == "stdout" and isinstance(node.value, ast.Name):
            allowed = node.value.id != "sys" or _name(path) in WRITES_TO_STDOUT | {"apps/cli.py"}
            assert allowed, f"{where}: say it through radloop.apps.terminal"


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_own_rooms_are_imported_by_their_full_name(path: Path) -> None:
    for node in ast.walk(TREES[path]):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{_name(path)}:{node.lineno}: no relative imports"
            names = [node.module or ""]
        for name in names:
            assert name.split(".")[0] not in ROOMS, f"{_name(path)}:{node.lineno}: write radloop.{name}"


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_module_says_what_it_is(path: Path) -> None:
    if "migrations" not in path.parts and path.name != "__init__.py":
        assert ast.get_docstring(TREES[path]), f"{_name(path)} has no docstring"


def test_commands_in_the_docs_exist() -> None:
    parser = build_parser()
    lines = [
        (page, line)
        for page in PAGES
        for block in re.findall(r"```(?:bash|sh|console)\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
        for line in re.findall(r"(?:^|[ /])radloop ([a-z][^\n#&|]*)", block.replace("\\\n", " "), re.M)
    ]
    assert len(lines) >= 8, "the README shows the commands"
    for page, line in lines:
        try:
            parser.parse_args(line.split())
        except SystemExit:
            pytest.fail(f"{page.name}: radloop {line}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_in_the_docs_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_direct_dependencies_have_a_floor_and_a_known_good_version() -> None:
    pinned = {
        re.split(r"==", line)[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    extras = CONFIG["project"]["optional-dependencies"]
    for requirement in [*CONFIG["project"]["dependencies"], *extras["test"], *extras["dev"], *extras["postgres"]]:
        name = re.match(r"[A-Za-z0-9_.-]+", requirement)
        assert name is not None
        if name.group() == "radloop":
            continue
        assert ">=" in requirement, f"{requirement} has no floor"
        assert name.group().lower().replace("_", "-") in pinned, f"{name.group()} is not in constraints.txt"


def test_imported_distributions_are_declared() -> None:
    """What our code imports directly is a dependency of ours, not somebody else's. (pydantic and its core are one.)"""
    from importlib.metadata import packages_distributions

    owners = packages_distributions()
    declared = {
        re.split(r"[<>=;\[ ]", requirement)[0].lower().replace("_", "-")
        for requirement in CONFIG["project"]["dependencies"]
    }
    for path in SOURCES:
        for node in ast.walk(TREES[path]):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for top in {name.split(".")[0] for name in names} - {
                "radloop",
                *sys.stdlib_module_names,
                "tomli",
                "tomllib",
                "pydantic_core",
            }:
                # Python 3.10 does not tell the owner of a wheel without top_level.txt
                known = {owner.lower().replace("_", "-") for owner in owners.get(top, [top])}
                known |= {top} if any(owner.startswith(f"{top}-") for owner in known) else set()  # itk is a bundle
                assert known & declared, f"{_name(path)} imports {top}, which no dependency declares"
