"""cloud-init's own check of user-data, where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from functools import cache
from itertools import takewhile
from pathlib import Path

CHECK_SECONDS = 20
_ERRORS, _NEXT = "schema errors:", re.compile(r"Error:|.*schema deprecations:")
_silent: set[str] = set()  # programs that did not answer in time: they are not asked again
_UNNAMED = re.compile(r"([\w-]+)\.([0-9]+): \{.*?\} is not valid under any of the given schemas")
_NO_YAML = re.compile(r"format-l([0-9]+)\.c[0-9]+: File \S+ is not valid (?i:yaml)\. ")


def find_schema_error(text: str) -> str | None:
    """Return what `cloud-init schema` finds wrong with a cloud-config; None for nothing, or if it cannot tell.

    Only a verdict counts: an installation that is broken, or prints something else, refuses nothing.
    """
    program = shutil.which("cloud-init")
    return _ask(program, text) if program and program not in _silent else None


@cache  # the VMs of a job often have the same text, and each question costs 0.2 s
def _ask(program: str, text: str) -> str | None:
    said = _run(program, text)
    return _UNNAMED.sub(lambda found: _name_key(program, text, found), said) if said else None


def _name_key(program: str, text: str, found: re.Match[str]) -> str:
    """Return the fault of a list's entry with its key named: one more run tries the entry without each key in turn."""
    import yaml

    key, number = found[1], int(found[2])
    try:
        entry = yaml.safe_load(text)[key][number]
        tries = [{name: value for name, value in entry.items() if name != left} for left in entry]
        wrong = _run(program, f"#cloud-config\n{yaml.safe_dump({key: tries})}") or ""
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError):
        return found[0]
    still = {int(one) for one in re.findall(rf"(?<![\w.-]){re.escape(key)}\.([0-9]+)[.:]", wrong)}
    blamed = [name for index, name in enumerate(entry) if index not in still]
    if not blamed or len(blamed) == len(tries):
        return found[0]
    return ", ".join(f"{key}.{number}.{name}: {entry[name]!r} is not valid there" for name in blamed)


def _run(program: str, text: str) -> str | None:
    """Return what the program finds wrong with a text; None for nothing, or if it cannot tell."""
    try:
        with tempfile.TemporaryDirectory(prefix="pcocc-user-data-") as directory:
            path = Path(directory, "user-data")
            path.write_text(text, encoding="utf-8")
            done = subprocess.run(
                [program, "schema", "--config-file", str(path)], stdin=subprocess.DEVNULL,
                capture_output=True, encoding="utf-8",
                errors="replace", timeout=CHECK_SECONDS, check=False,
            )  # fmt: skip
    except OSError:
        return None
    except subprocess.TimeoutExpired:
        _silent.add(program)
        return None
    if not done.returncode:
        return None
    said = _find_errors(done.stderr) or _find_errors(done.stdout)
    return _NO_YAML.sub(r"it is not valid YAML in line \1: ", said) if said else None


def _find_errors(text: str) -> str:
    """Return what follows `schema errors:`, without what is only deprecated or is about the whole file."""
    lines = text.partition(_ERRORS)[2].splitlines()
    return " ".join(" ".join(takewhile(lambda line: not _NEXT.match(line), lines)).split())
