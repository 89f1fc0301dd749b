"""The guide without a cluster: its boxes can be read, are valid shell and YAML, and name things that exist."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from pcocc_runtime.cli import main as cli
from pcocc_runtime.documents import wire_steps
from pcocc_runtime.errors import ConfigError
from pcocc_runtime.settings.tree import parse_yaml
from pcocc_runtime.templates import inherit
from tests.guide import GUIDE, Typed, find_difference, parse_page

PAGES = sorted(path for path in GUIDE.glob("*.md") if path.name != "README.md")
OPTIONS = {value for name, value in vars(wire_steps).items() if name.startswith("OPTION_")}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_page_is_right_shell_and_yaml(page: Path) -> None:
    found = parse_page(page.read_text())
    assert len(found) >= 6
    for typed in found:
        done = subprocess.run(
            ["bash", "-n"], input=typed.command, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), typed
        assert set(re.findall(r"--(pcocc-[a-z-]+)", typed.command)) <= OPTIONS, typed
        for name, text in re.findall(r">(\S+)\.yaml <<'EOF'\n(.*)\nEOF$", typed.command, re.DOTALL):
            problems: list[ConfigError] = []
            tree = parse_yaml(text, "page")
            if name.endswith("templates"):
                inherit.parse_templates(tree, False, problems)
            assert problems == [], typed
        if typed.command.startswith("pcocc "):
            cli._parser().parse_args(shlex.split(typed.command)[1:])


def test_every_page_is_in_the_contents() -> None:
    listed = re.findall(r"\]\(([a-z-]+\.md)\)", (GUIDE / "README.md").read_text())
    assert listed == ["first-vm.md", "cloud-config.md", "directories.md", "steps.md", "day.md", "checkpoint.md"] and {
        page.name for page in PAGES
    } == set(listed)


PAGE = """text
```console
$ cat >x <<'EOF'
> a:
>
>   b
> EOF
$ echo 1
1
# id -u
0
```
```sh
not typed
```
"""


def test_boxes_become_commands() -> None:
    assert parse_page(PAGE) == [
        Typed("cat >x <<'EOF'\na:\n\n  b\nEOF", (), 3),
        Typed("echo 1", ("1",), 8),
        Typed("id -u", ("0",), 10, True),
    ]
    with pytest.raises(ValueError, match="line 2: a box begins"):
        parse_page("```console\nx\n```\n")


@pytest.mark.parametrize(
    ("expected", "said", "right"),
    [
        (["a", "b"], "a\nb\n", True),
        (["a"], "a\nb\n", False),
        (["a", "b"], "a\n", False),
        (["b", "a"], "a\nb\n", False),
        (["0: a", "1: b"], "1: b\n0: a\n", True),
        (["0: a", "1: b"], "1: a\n0: b\n", False),
        (["==", "0: a", "1: b", "=="], "==\n1: b\n0: a\n==\n", True),
        (["0: a", "==", "1: b"], "1: b\n==\n0: a\n", False),
        (["a", "...", "d"], "a\nb\nc\nd\n", True),
        (["a", "..."], "a\nb\n", True),
        (["...", "a"], "b\n", False),
        (["job ... done"], "job 17 done\n", True),
        (["job ... done"], "job 17 lost\n", False),
        (["A  B", "", "1  2"], "A    B\n1    2\n", True),
        (["pcocc: booting 1 VM", "x"], "x\n", True),
        ([], "", True),
        ([], "x\n", False),
    ],
)
def test_what_is_said_is_compared(expected: list[str], said: str, right: bool) -> None:
    assert (find_difference(expected, said) is None) == right
