"""The table of faults, and the page that the campaign writes of it."""

from pathlib import Path

import pytest

from tests.faults import results
from tests.faults.table import FAULTS


@pytest.fixture(autouse=True)
def slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a certain release of Slurm."""
    monkeypatch.setattr(results, "read_slurm", lambda: "24.11.5")


def test_there_are_thirty_and_the_page_has_each() -> None:
    names = [one.name for one in FAULTS]
    assert len(names) >= 30 and len(set(names)) == len(names)
    page = results.PAGE.read_text()
    assert [name for name in names if f"| `{name}`: " not in page] == []


def test_runs_add_up_and_what_was_not_well_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "KEPT", tmp_path / "faults.json")
    monkeypatch.setattr(results, "PAGE", tmp_path / "faults.md")
    one, other = FAULTS[:2]
    assert "None of it has been run yet." in results.render({}) and "Last run" not in results.render({})
    results.add(one, 12.4, "")
    results.add(one, 70.0, "AssertionError: of job 3 is left: x\nmore")
    results.add(other, 3, "")
    page = (tmp_path / "faults.md").read_text()
    assert "Last run on Linux " in page
    assert f"| `{one.name}`: {one.what} | {one.when} | {one.after} | 2 | 1 | 70 | 24.11.5 |" in page
    assert f"- `{one.name}`: AssertionError: of job 3 is left: x\n" in page
    results.forget([one.name])
    results.add(other, 2, "")
    page = (tmp_path / "faults.md").read_text()
    assert f"| {one.after} | 0 | - | - | - |" in page and "| 2 | 2 | 3 | 24.11.5 |" in page and "Not well" not in page


def test_a_new_checkout_goes_on_from_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = FAULTS[:2]
    monkeypatch.setattr(results, "KEPT", tmp_path / "build/faults.json")
    monkeypatch.setattr(results, "PAGE", tmp_path / "faults.md")
    results.PAGE.write_text(results.render({}))
    results.add(one, 12, "")
    results.add(two, 3, "AssertionError: n2 is down\nmore")
    known = results.read()
    assert known[two.name] == {
        "times": 1, "well": 0, "seconds": 3, "slurm": ["24.11.5"], "problem": "AssertionError: n2 is down",
    }  # fmt: skip
    results.KEPT.unlink()
    assert results.read() == known
    monkeypatch.setattr(results, "read_slurm", lambda: "22.05.8")
    results.add(one, 5, "")
    assert results.read()[one.name] == {
        "times": 2, "well": 2, "seconds": 12, "slurm": ["22.05.8", "24.11.5"], "problem": "",
    }  # fmt: skip
    results.KEPT.unlink()
    assert results.read()[one.name]["slurm"] == ["22.05.8", "24.11.5"]
    results.forget([one.name])
    assert set(results.read()) == {two.name}
