"""Runs attacks that are tried elsewhere only against the defended code: here each must succeed against the code without
its defence.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.attack.undefended import DEFENCES, VARIABLE

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", DEFENCES)
def test_without_its_defence_each_attack_succeeds(name: str) -> None:
    attacks, harmless = DEFENCES[name].attacks, DEFENCES[name].harmless
    options = ["-q", "-rA", "--tb=no", "-p", "no:cacheprovider", "-p", "tests.attack.undefended"]
    argv = [sys.executable, "-m", "pytest", *options, *(one.removesuffix("[*]") for one in attacks)]
    environ = {**os.environ, VARIABLE: name}
    done = subprocess.run(
        argv, cwd=ROOT, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    outcomes = re.findall(r"(?m)^(PASSED|FAILED|ERROR) (tests/\S+?::\w+(?:\[.*?\])?)(?: - |$)", done.stdout)
    succeeded = {attack for outcome, attack in outcomes if outcome == "FAILED"}
    stopped = {attack for outcome, attack in outcomes if outcome == "PASSED"} - succeeded
    assert {one for one in attacks if not one.endswith("[*]")} <= succeeded | stopped, (
        done.stdout + done.stderr
    )
    assert len(stopped) == harmless and succeeded, f"defended by something else: {stopped}\n{done.stdout}"


def test_forty_attacks_and_more_are_shown_to_succeed() -> None:
    """Those above, and those that are tried twice where they are, now and `before`; docs/trust.md has a table of them."""
    argv = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", "tests/attack/test_repositories.py"]
    listed = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout
    twice = len(re.findall(r"(?m)^tests/.*\[.*before", listed))
    assert sum(len(one.attacks) for one in DEFENCES.values()) + twice >= 40
    told = (ROOT / "docs/trust.md").read_text()
    rows = {name: int(count) for name, count in re.findall(r"(?m)^\| (.*?) \| (\d+) \|", told)}
    for name, one in DEFENCES.items():
        assert name in rows and (rows[name] == len(one.attacks) or one.attacks[0].endswith("[*]")), name
    assert rows["directories of a shared repository"] == twice
