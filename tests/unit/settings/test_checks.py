"""Tables of settings: the keys of a mapping, from a dataclass that says type, check and default of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pcocc_runtime.errors import ConfigError
from pcocc_runtime.settings import checks
from pcocc_runtime.settings.tree import parse_yaml
from tests.unit.fake_site import Ask, refused, user_template


@dataclass(frozen=True, slots=True)
class Kettle:
    """Something with settings, and with a field that no file sets."""

    litres: Annotated[int, checks.integer(1, 9)]
    is_on: Annotated[bool, checks.boolean] = False
    age: int = 0


def test_a_dataclass_is_a_table() -> None:
    problems: list[ConfigError] = []
    values = checks.read_mapping(parse_yaml("{litres: 2, is-on: yes}", "f"), checks.table_of(Kettle), problems)
    assert problems == [] and Kettle(**checks.as_fields(values)) == Kettle(2, True)
    checks.read_mapping(parse_yaml("{is-on: 3, age: 1, is_on: no}", "f"), checks.table_of(Kettle), problems)
    assert [str(one) for one in problems] == [
        "f:1: is-on: expected true or false, found a whole number '3'", "f:1: age: unknown setting",
        "f:1: is_on: unknown setting",
        "f:1: litres is missing",
    ]  # fmt: skip


def test_a_bare_tilde_names_its_cure(ask: Ask, tmp_path: Path) -> None:
    rows = {
        "mount-points: {home: ~}": "home", "persistent-drives: [~]": "persistent-drives[0]",
        "mount-points: {h: {path: ~}}": "h.path",
    }
    for text, key in rows.items():
        user_template(tmp_path, f"mine: {{inherits: tiny, {text}}}\n")
        said = refused(ask("mine"))
        assert f"{key}: expected" in said and "\nhint: a bare ~ is YAML's word for nothing: write '~' in quotes" in said, said
