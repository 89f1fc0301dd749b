"""The project, built and installed once for all tests of this directory."""

from pathlib import Path

import pytest

from tests.spank.building import ROOT, run


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prefix it is installed under, with a program that stands for the client tools: `harness`."""
    build, prefix = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("prefix")
    run("meson", "setup", str(build), f"--prefix={prefix}")
    run("meson", "install", "-C", str(build))
    harness = [str(ROOT / "tests/spank/harness.c"), str(ROOT / "spank/embed.c")]
    run("cc", "-D_GNU_SOURCE", f"-I{build}", "-o", str(prefix / "harness"), *harness, "-ldl")
    return prefix
