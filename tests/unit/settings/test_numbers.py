"""Numbers that YAML reads differently than people do: there is a note about them wherever they are, but no refusal."""

from pathlib import Path

import pytest

from pcocc_runtime.cli import main as cli
from pcocc_runtime.settings.numbers import find_number_notes, find_odd_numbers
from pcocc_runtime.settings.tree import parse_yaml
from tests.unit.fake_site import Ask, frozen, noted, user_template

TEXT = "a: 010\nb: [8, -017, 0, 00, 0x10, '010', 08, 0.1, 1:30]\npermissions: 0644\nc: {d: 0_7}\n"


def test_octal_numbers_are_found_with_their_places() -> None:
    assert [(one.line, one.path, one.value) for one in find_odd_numbers(parse_yaml(TEXT, "f"))] == [
        (1, "a", 8), (2, "b[1]", -15), (2, "b[3]", 0), (4, "c.d", 7),
    ]  # fmt: skip
    assert [one.raw for one in find_odd_numbers(parse_yaml(TEXT, "f"), sixties=True)] == ["010", "-017", "00", "1:30", "0_7"]


def test_a_note_says_what_yaml_reads() -> None:
    assert find_number_notes(parse_yaml("a:\n  b: 010\n", "f")) == [
        "f:2: a.b: 010 is the number 8 in YAML, because it begins with 0 (write the number that is meant, or put it in"
        " quotes if it is text)"
    ]


def test_they_are_noted_at_submission_and_by_both_checks(
    ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    user_template(tmp_path, "a: {inherits: tiny, cpus: 010}\nmine:\n  inherits: a\n  memory: 0512\n")
    answer = ask("mine")
    assert frozen(answer).groups[0].cpus == 8 and frozen(answer).groups[0].memory == 512
    assert "templates.yaml:1: a.cpus: 010 is the number 8" in noted(
        answer
    ) and "templates.yaml:4: mine.memory: 0512 is" in noted(answer)
    assert cli.main(["template", "check"]) == 0
    assert "note: " in (said := capsys.readouterr().err) and "a.cpus: 010 is the number 8" in said
    (tmp_path / "etc/pcocc.yaml").write_text("max-vms: 0100\n")
    assert cli.main(["config", "check"]) == 0
    assert "pcocc.yaml:1: max-vms: 0100 is the number 64" in capsys.readouterr().err
