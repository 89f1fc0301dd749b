"""Builds the project for tests, and runs programs on the result."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(*argv: str, **options: object) -> str:
    """Run a program in the source tree and return what it wrote; it must succeed."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{argv}\n{done.stdout}{done.stderr}"
    return str(done.stdout)
