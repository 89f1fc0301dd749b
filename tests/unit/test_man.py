"""The man pages say what the code says: every option, variable, command and setting, and none that does not exist.

Their convention: a setting of a file, or a command, begins with `.It Cm`, an option with `.It Fl`, a variable with `.It Ev`.
"""

import argparse
import ast
import dataclasses
import re
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from pcocc_runtime.cli import main as cli
from pcocc_runtime.documents import wire, wire_steps
from pcocc_runtime.networks.kinds import TUNNEL_OVERHEAD, EthernetNetwork
from pcocc_runtime.site.site import Site
from pcocc_runtime.templates.settings import SETTINGS
from tests.unit.man_pages import PLACES, TEMPLATES, find_problems, known_settings, read_items, read_settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path.name for path in (ROOT / "docs/man").iterdir())
OPTIONS = {value for name, value in vars(wire_steps).items() if name.startswith("OPTION_")}
VARIABLES = {value for name, value in vars(wire_steps).items() if name.startswith("VAR_")}
@pytest.mark.parametrize("place", PLACES)
def test_a_page_has_every_setting_and_no_other(place: str, tmp_path: Path) -> None:
    assert set(read_settings(place)) == known_settings(tmp_path, place)


@pytest.mark.parametrize("place", PLACES)
def test_a_page_says_the_ranges_and_choices(place: str, tmp_path: Path) -> None:
    for name, body in read_settings(place).items():
        told = " ".join(problem.message for problem in find_problems(tmp_path, place, name, "-1"))
        if numbers := re.search(r"not between (\d+) and (\d+)", told):
            assert f"{numbers[1]} to {numbers[2]}" in body.replace("\n", " "), name
        words = re.search(r"expected one of (.*), found", told)
        for word in words[1].split(", ") if words else []:
            assert re.search(rf"(?<![\w-]){word}(?![\w-])", body), (name, word)


def test_every_setting_of_the_code_has_its_place(tmp_path: Path) -> None:
    known = set().union(*(known_settings(tmp_path, place) for place in PLACES))
    calls = [node for path in (ROOT / "pcocc_runtime").rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Setting")]  # fmt: skip
    literals = {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)}
    assert len(literals) > 30 and literals <= known


@pytest.mark.parametrize("page", [name for name in PAGES if name.endswith(".5")])
def test_every_setting_of_a_page_stands_in_a_place(page: str) -> None:
    headings = {heading for where, headings, _file, _text in PLACES.values() if where == page for heading in headings}
    assert {heading for heading, _item, _body in read_items(page, "Cm")} == headings


def defaults() -> Iterator[tuple[str, str, object]]:
    for field in dataclasses.fields(Site):
        yield "pcocc", field.name.replace("_", "-"), field.default
    for field in dataclasses.fields(EthernetNetwork):
        if field.name not in ("layer", "mtu", "allow_outbound"):  # they have other names or units in the file
            yield "ethernet", field.name.replace("_", "-"), field.default
    yield "ethernet", "mtu", EthernetNetwork("n").mtu + TUNNEL_OVERHEAD
    for name, row in SETTINGS.items():
        yield "template", name, row.default or None if name == "memory" else row.default  # 0 is Slurm's


SPOKEN = [one for one in defaults() if isinstance(one[2], str | int | IPv4Network) and one[2] != ""]


@pytest.mark.parametrize(("place", "name", "value"), SPOKEN, ids=[f"{place} {name}" for place, name, _value in SPOKEN])
def test_a_page_says_the_default(place: str, name: str, value: object) -> None:
    said = {word.rstrip(".,") for word in read_settings(place)[name].rpartition("Default:")[2].split()}
    assert (str(value).lower() if isinstance(value, bool) else str(value)) in said


def test_the_page_of_templates_says_what_is_filled_in_and_what_a_site_can_limit() -> None:
    text = (ROOT / "docs/man" / TEMPLATES).read_text()
    filled, limited = (
        set(re.findall(r"^\.Cm ([\w-]+)", text.partition(f".Ss {heading}\n")[2].partition("\n.S")[0], re.MULTILINE))
        for heading in ("What is filled in", "What a site may limit")
    )
    assert filled == {name for name, row in SETTINGS.items() if row.is_filled}
    assert limited == {name for name, row in SETTINGS.items() for one in (row, *row.parts) if one.limit}


def leaves(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Yield the commands of a parser that have no commands of their own."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for name, one in groups[0].choices.items() if groups else ():
        yield from leaves(one, (*path, name))
    if not groups:
        yield path, parser


def test_the_command_page_has_every_command_with_its_options() -> None:
    wanted = {}
    for path, parser in leaves(cli._parser()):
        words = [
            word for action in parser._actions if action.dest != "help" for word in action.option_strings or [action.metavar]
        ]
        wanted[path] = sorted(str(word) for word in words)
    found = {}
    for _heading, item, _body in (*read_items("pcocc.1", "Cm"), *read_items("pcocc-image.1", "Cm")):
        path, rest = re.fullmatch(r"([a-z -]+?)((?: (?:Op|Oo|Ar|Fl) .*)?)", item).groups()  # type: ignore[union-attr]
        values = re.sub(r"(Fl [a-zA-Z]|=) (Ns )?Ar [A-Z]+", r"\1", rest)
        words = [f"--{name}" for name in re.findall(r"Fl Fl ([\w-]+)", values)]
        words += [f"-{name}" for name in re.findall(r"Fl (\w)\b", values)] + re.findall(r"Ar (\w+)", values)
        found[tuple(path.split())] = sorted(words)
    assert found == wanted


def test_the_synopsis_has_every_command() -> None:
    synopsis = (ROOT / "docs/man/pcocc.1").read_text().partition(".Sh SYNOPSIS")[2].partition(".Sh ")[0]
    named = [name for line in re.findall(r"^\.Nm\n\.Cm (.*)", synopsis, re.MULTILINE) for name in line.split(" | ")]
    assert sorted(named) == sorted({path[0] for path, _parser in leaves(cli._parser())})


def test_the_options_page_has_every_option_of_the_plugin() -> None:
    said = [re.match(r"Fl ([a-z-]+)", item)[1] for _heading, item, _body in read_items("pcocc-options.7", "Fl")]
    assert sorted(said) == sorted(OPTIONS)


def test_the_options_page_has_every_variable() -> None:
    said: dict[str, set[str]] = {}
    for heading, item, _body in read_items("pcocc-options.7", "Ev"):
        said.setdefault(heading, set()).add(item)
    attach = ast.walk(ast.parse((ROOT / "pcocc_runtime/steps/session.py").read_text()))
    keys = {key.value for node in attach if isinstance(node, ast.Dict) for key in node.keys if isinstance(key, ast.Constant)}
    assert said == {
        "Read by sbatch, salloc and srun": VARIABLES,
        "Set for commands in a VM": {wire.ENV_VM_NAME, *(key for key in keys if str(key).startswith("PCOCC_"))},
    }


def test_the_command_page_has_the_variables_of_the_command() -> None:
    sources = "".join((ROOT / f"pcocc_runtime/{name}.py").read_text() for name in ("settings/directories", "terminal"))
    read = set(re.findall(r'environ.get\("(PCOCC_\w+)"\)', sources))
    assert {item for _heading, item, _body in read_items("pcocc.1", "Ev")} == read != set()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_nothing_that_does_not_exist(page: str) -> None:
    text = (ROOT / "docs/man" / page).read_text()
    sources = [*ROOT.glob("pcocc_runtime/**/*.py"), *ROOT.glob("spank/*.[ch]")]
    code = "\n".join(path.read_text() for path in sources)
    assert set(re.findall(r"PCOCC_\w+", text)) <= set(re.findall(r"PCOCC_\w+", code))
    assert set(re.findall(r"(?:--|Fl Fl )((?:no-)?pcocc-[a-z-]+)", text)) <= OPTIONS
    links = {f"{name}.{section}" for name, section in re.findall(r"^\.Xr (pcocc\S*) (\d)", text, re.MULTILINE)}
    assert links <= set(PAGES) - {page}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(
    "argv", [["groff", "-mandoc", "-ww", "-Tutf8", "-z"], ["mandoc", "-T", "lint", "-W", "warning"]], ids=["groff", "mandoc"]
)
def test_a_page_renders_without_a_warning(page: str, argv: list[str]) -> None:
    done = subprocess.run([*argv, str(ROOT / "docs/man" / page)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_page_is_installed() -> None:
    assert sorted(re.findall(r"'docs/man/([^']+)'", (ROOT / "meson.build").read_text())) == PAGES
