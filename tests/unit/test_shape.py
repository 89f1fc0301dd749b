"""The shape of the tests: each stands alone, and unit tests stand in the room of what they test."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
FILES = sorted(TESTS.rglob("*.py"))


def read_imports(path: Path) -> Iterator[str]:
    """Yield the full name of every module, and of every name, that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = path.relative_to(ROOT).with_suffix("").parts[: -node.level]
                base = ".".join([*here, *([base] if base else [])])
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_file_imports_from_a_test_file(path: Path) -> None:
    """What tests share is in modules of its own, or a fixture of conftest.py: else one file's tests change with another's."""
    tests = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in FILES
        if file.name.startswith(("test_", "conftest"))
    }
    assert tests.isdisjoint(read_imports(path))


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.name.startswith("test_")], ids=lambda path: str(path.relative_to(TESTS))
)
def test_no_test_leaves_anything_for_another(path: Path) -> None:
    """A test that sets a global name, or calls another test, is right only in one order."""
    tree = ast.parse(path.read_text())
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Global), f"line {node.lineno}"
        assert not (isinstance(node, ast.Name) and node.id in names), f"line {node.lineno}"


def test_unit_tests_stand_in_the_rooms_of_the_runtime() -> None:
    rooms = {path.parent.name for path in (ROOT / "pcocc_runtime").glob("*/__init__.py")}
    assert {path.parent.name for path in (TESTS / "unit").glob("*/__init__.py")} <= rooms
