"""Linters are tests, and so is what Python says when it reads all of it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"  # each release's own, where tests/release runs this


@pytest.mark.thorough
@pytest.mark.parametrize("argv", [["ruff", "check", "."], ["mypy", f"--python-version={_PYTHON}"]], ids=["ruff", "mypy"])
def test_the_tree_is_clean(argv: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *argv], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.thorough
def test_no_module_of_ours_is_warned_of(tmp_path: Path) -> None:
    """Compiled and imported anew, where each warning, such as one of what a later Python will refuse, is an error."""
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sorted((ROOT / "pcocc_runtime").rglob("*.py"))]
    code = f"import importlib, sys; sys.path.insert(0, {str(ROOT)!r}); [importlib.import_module(one) for one in sys.argv[1:]]"
    argv = [sys.executable, "-I", "-X", f"pycache_prefix={tmp_path}", "-W", "error", "-c", code, *modules]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
