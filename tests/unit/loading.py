"""Modules of ours, and which of them a process has loaded."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / "pcocc_runtime"
MODULES = {
    ".".join(path.relative_to(RUNTIME).with_suffix("").parts): path
    for path in RUNTIME.rglob("*.py")
    if path.stem != "__init__"
}


def loaded(code: str) -> list[str]:
    """Return the modules of ours that a fresh interpreter has loaded after some code."""
    tell = "import sys; print(*(name for name in sys.modules if name.startswith('pcocc_runtime.')))"
    argv = [sys.executable, "-c", f"{code}\n{tell}"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    names = [name.removeprefix("pcocc_runtime.") for name in done.stdout.split()]
    return sorted(name for name in names if name in MODULES)


def within(verb: str) -> str:
    """Return code that imports what root's helper does until it is in a verb's functions, and all that these import."""
    tree = ast.parse(MODULES["node.main"].read_text())
    bodies = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith(f"_{verb}")
    ]
    assert bodies
    local = [
        ast.unparse(node)
        for body in bodies
        for node in ast.walk(body)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    return "\n".join(["import pcocc_runtime.node.main", *local])
