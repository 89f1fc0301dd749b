"""The table of shared names: no source spells one of them itself, all are used, and all languages get the same ones."""

import ast
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from pcocc_runtime.documents import wire, wire_steps

ROOT = Path(__file__).resolve().parents[3]
TABLES = sorted((ROOT / "pcocc_runtime/documents").glob("wire*.py"))
RENDER = runpy.run_path(str(ROOT / "spank/render_wire.py"))
ROWS: dict[str, str | int] = RENDER["read_rows"](*map(str, TABLES))
# what a search can tell from other words: "setup" and 3 it cannot
TELLING = {name: value for name, value in ROWS.items() if isinstance(value, str) and "pcocc" in value.lower()}
OPTIONS = {value for name, value in TELLING.items() if name.startswith("OPTION_")}
SOURCES = sorted(
    path
    for pattern in ("pcocc_runtime/**/*.py", "spank/*.[ch]", "job_submit/*.lua", "libexec/*.in")
    for path in ROOT.glob(pattern)
    if path not in TABLES
)


def read_strings(path: Path) -> Iterator[str]:
    """Yield the texts between quotes in a source, without comments and docstrings."""
    text = path.read_text()
    if path.suffix == ".py":
        tree = ast.parse(text)
        documented = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module)]
        docstrings = {ast.get_docstring(node, clean=False) for node in documented}
        inner = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            elif (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and node not in inner
                and node.value not in docstrings
            ):
                yield node.value
        return
    comment = {".lua": r"--[^\n]*", ".in": r"#[^\n]*"}.get(path.suffix, r"/\*[\s\S]*?\*/")
    yield from (match[1] for match in re.finditer(rf'"((?:[^"\\\n]|\\.)*)"|{comment}', text) if match[1] is not None)


def find_literals(text: str) -> set[str]:
    """Return the rows whose value stands in a text as a word of its own; what users read may name their options."""
    words = {value for value in TELLING.values() if re.search(rf"(?<!\w)(?<!\w-){re.escape(str(value))}(?![A-Za-z_-])", text)}
    return {str(word) for word in words if not (word in OPTIONS and " " in text)}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_spells_a_shared_name_itself(path: Path) -> None:
    assert {text: found for text in read_strings(path) if (found := find_literals(text))} == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("PCOCC_VM_NAME", {"PCOCC_VM_NAME"}), ("PCOCC_VM_NAMES", set()), ("--pcocc-vm=vm0", {"pcocc-vm"}),
        ("pcocc-vms", {"pcocc-vms"}), ("write --pcocc-vm=vm0", set()), ("d=/run/pcocc/$1; true", {"/run/pcocc"}),
        ("/run/netns/pcocc-%u", {"/run/netns/pcocc-"}),
        ("--no-pcocc-vm", {"no-pcocc-vm"}), ("SLURM_SPANK_PCOCC_*", set()),
    ],
)  # fmt: skip
def test_the_search_finds_what_it_is_for(text: str, found: set[str]) -> None:
    assert find_literals(text) == found


def test_the_search_reads_every_language(tmp_path: Path) -> None:
    for name, text in {
        "a.py": '"""PCOCC_VM"""\nx = f"PCOCC_VM{1}", "PCOCC_BOOT"  # "PCOCC_IMAGE"\n',
        "a.c": '/* "PCOCC_IMAGE" */ x = "PCOCC_VM", "PCOCC_BOOT";',
        "a.lua": 'x = "PCOCC_VM", "PCOCC_BOOT" -- "PCOCC_IMAGE"\n',
    }.items():
        (tmp_path / name).write_text(text)
        assert [text.removesuffix("{}") for text in read_strings(tmp_path / name)] == ["PCOCC_VM", "PCOCC_BOOT"], name


@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_used(name: str) -> None:
    users = [path for path in SOURCES if re.search(rf"\b{name}\b", path.read_text())]
    assert users or any(
        re.search(rf"\b{name}\b", line.partition("=")[2]) for table in TABLES for line in table.read_text().splitlines()
    )


def test_the_header_has_every_row() -> None:
    header = RENDER["render_header"](ROWS)
    found = dict(re.findall(r"^#define (\w+) (.*)$", header, re.MULTILINE))
    assert found == {name: str(value) if isinstance(value, int) else f'"{value}"' for name, value in ROWS.items()}
    assert {name: value for name, value in {**vars(wire), **vars(wire_steps)}.items() if name.isupper()} == ROWS


def test_an_unknown_row_stops_the_build() -> None:
    assert (
        RENDER["render_filter"](ROWS, '"@OPTION_NO_VM@ @RUN_PATH@" /opt/pcocc/share/pcocc/x', "/p")
        == '"no%-pcocc%-vm %/run%/pcocc" /p/x'
    )
    with pytest.raises(KeyError):
        RENDER["render_filter"](ROWS, "@NO_SUCH_ROW@", "/p")


@pytest.mark.parametrize("table", TABLES, ids=lambda path: str(path.name))
def test_a_table_costs_nothing_to_import(table: Path) -> None:
    tree = ast.parse(table.read_text())
    assert {type(node) for node in tree.body} == {ast.Expr, ast.ImportFrom, ast.Assign}
    assert [node.module for node in tree.body if isinstance(node, ast.ImportFrom)] == ["__future__"]
