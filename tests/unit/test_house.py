"""The house rules: who may import whom, and how long things may be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / "pcocc_runtime"
MODULES = sorted(RUNTIME.rglob("*.py"))
DOORS = {"pyroute2": "networks/netlink.py", "pycdlib": "vm/iso.py", "dns": "observe/resolver.py"}  # one importer each


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(RUNTIME)))
def test_dangerous_libraries_have_one_door(path: Path) -> None:
    for name in {name.partition(".")[0] for name in imports(path)}:
        door = DOORS.get(name, "")
        assert str(path.relative_to(RUNTIME)).startswith(door), f"{name} is imported by {path}"


@pytest.mark.parametrize("module", ["keeper.main", "steps.main"])
def test_what_every_vm_and_step_waits_for_imports_little(module: str) -> None:
    """Half of the time that one of them takes to start; see documents/record.py."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import pcocc_runtime.{module}; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-IS", "-c", program], text=True).split()
    assert f"pcocc_runtime.{module}" in loaded
    assert not {"contextlib", "dataclasses", "inspect", "ipaddress", "pathlib", "subprocess", "typing"} & {*loaded}


def sources() -> list[Path]:
    found: list[Path] = []
    for pattern in ("pcocc_runtime/**/*.py", "tests/**/*.py", "spank/*", "job_submit/*.lua"):
        found += ROOT.glob(pattern)
    return sorted(path for path in found if path.is_file())


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_sizes(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is too long"
