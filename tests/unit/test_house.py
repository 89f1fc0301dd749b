"""The house rules: who may import whom, and how long things may be."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / "pcocc_runtime"
MODULES = sorted(RUNTIME.rglob("*.py"))
VERBS = {
    "node", "fabric", "walls", "launch", "vmfiles", "keeper", "attach", "boot", "client", "cli", "cli_image", "cli_network", "cli_progress",
    "config", "freeze", "storage", "userdata", "sitecheck", "images", "imageimport", "imageexport", "imagegc", "imageverify", "netinfo",
    "netview", "ps", "cli_ps", "layercache", "cacheservice", "imagecache", "save", "savemoment", "drivesave", "saverun", "saveguard", "cli_save",
    "cli_streams",
}  # fmt: skip
DANGEROUS = {
    "pyroute2": "system/netlink.py",
    "pycdlib": "system/iso.py",
    "dns": "system/resolver.py",
    "subprocess": "system/",
    "socket": "",
}
PURE = {"os", "socket", "subprocess", "time", "random", "select", "selectors", "ctypes", "shutil", "tempfile"}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return found


def is_core(path: Path) -> bool:
    return path.parent == RUNTIME and path.stem not in VERBS and path.stem != "__init__"


@pytest.mark.parametrize("path", [path for path in MODULES if is_core(path)], ids=lambda path: path.stem)
def test_the_core_touches_nothing(path: Path) -> None:
    names = imports(path)
    assert not {name.partition(".")[0] for name in names} & PURE
    assert not any(name.startswith("pcocc_runtime.system") for name in names)


@pytest.mark.parametrize("path", sorted((RUNTIME / "system").glob("*.py")), ids=lambda path: path.stem)
def test_adapters_call_no_verb(path: Path) -> None:
    names = {name.split(".")[1] for name in imports(path) if name.startswith("pcocc_runtime.")}
    assert not names & VERBS


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(RUNTIME)))
def test_dangerous_libraries_have_one_door(path: Path) -> None:
    for name in {name.partition(".")[0] for name in imports(path)}:
        door = DANGEROUS.get(name, "")
        assert str(path.relative_to(RUNTIME)).startswith(door), f"{name} is imported by {path}"


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
