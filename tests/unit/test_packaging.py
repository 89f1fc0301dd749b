"""What the packages say of the project is what the project says of itself; docs/admin.md can be followed."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from pcocc_runtime.cli import main as cli
from pcocc_runtime.errors import ConfigError
from pcocc_runtime.settings.tree import parse_yaml
from pcocc_runtime.system import process
from pcocc_runtime.templates import inherit
from tests.guide import parse_page

ROOT = Path(__file__).resolve().parents[2]
CONTROL, SPEC, PAGE = ((ROOT / path).read_text() for path in ("debian/control", "packaging/pcocc.spec", "docs/admin.md"))
# the names of PyPI, of Debian and of Fedora
LIBRARIES = {
    "cffi": ("python3-cffi-backend", "python3-cffi"), "dnspython": ("python3-dnspython", "python3-dns"),
    "pycdlib": ("python3-pycdlib", "python3-pycdlib"), "pyroute2": ("python3-pyroute2", "python3-pyroute2"),
    "pyyaml": ("python3-yaml", "python3-pyyaml"),
}  # fmt: skip


def test_all_have_one_version() -> None:
    texts = {
        "meson.build": r"version: '(.+)',", "pyproject.toml": r'^version = "(.+)"', "debian/changelog": r"^pcocc \((.+)\) ",
        "packaging/pcocc.spec": r"^Version: (.+)$",
    }  # fmt: skip
    found = {file: re.findall(pattern, (ROOT / file).read_text(), re.MULTILINE)[0] for file, pattern in texts.items()}
    assert len({*found.values()}) == 1, found


def test_the_packages_depend_on_the_projects_libraries() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = dict(re.findall(r"([a-z0-9]+)>=([0-9.]+)", one)[0] for one in project["dependencies"])
    assert wanted.keys() == LIBRARIES.keys()
    for name, (debian, fedora) in LIBRARIES.items():
        assert f" {debian} (>= {wanted[name]}),\n" in CONTROL and f"{fedora} >= {wanted[name]}" in SPEC
    python = project["requires-python"].removeprefix(">=")
    assert f" python3 (>= {python}),\n" in CONTROL and f"python3 >= {python}" in SPEC


def test_a_node_gets_the_programs_that_errors_name() -> None:
    """`hint: install the package NAME` of the runtime names what its package has brought."""
    hints = {
        name
        for path in (ROOT / "pcocc_runtime").rglob("*.py")
        for name in re.findall(r"install the package ([a-z0-9-]+)", path.read_text())
    } | {*process.PACKAGES.values()}
    assert {"dnsmasq-base", "iproute2", "nftables"} <= hints
    assert [name for name in hints if f"\n {name}" not in CONTROL] == []


@pytest.mark.parametrize("typed", parse_page(PAGE), ids=lambda typed: f"line {typed.line}")
def test_the_admins_page_is_right_shell_and_yaml(typed: object) -> None:
    command = typed.command  # type: ignore[attr-defined]
    done = subprocess.run(["bash", "-n"], input=command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for name, text in re.findall(r">/etc/pcocc/(\S+)\.yaml <<'EOF'\n(.*)\nEOF$", command, re.DOTALL):
        problems: list[ConfigError] = []
        tree = parse_yaml(text, "page")
        if name == "templates":
            inherit.parse_templates(tree, False, problems)
        assert problems == []
    if command.startswith("pcocc "):
        cli._parser().parse_args(shlex.split(command)[1:])


def test_the_admins_page_names_what_there_is() -> None:
    assert {*re.findall(r"`make ([a-z]+)`", PAGE)} <= {*re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)}
    assert [path for path in re.findall(r"`(packaging/\S+|docs/\S+)`", PAGE) if not (ROOT / path).exists()] == []
