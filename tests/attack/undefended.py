"""A plugin for pytest: defences, and the former code without them, with which it runs a session of tests."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import PurePath
from typing import Any, NamedTuple

import pytest

from pcocc_runtime.documents.job_record import JobRecord
from pcocc_runtime.guest import seed
from pcocc_runtime.node import records, removal
from pcocc_runtime.system import drop, files, mounts, process, trust

VARIABLE = "PCOCC_UNDEFENDED"


class Defence(NamedTuple):
    """A defence: a function of a module, what was there before it, and the attacks that succeed without it, as pytest names
    them.

    `[*]` stands for all cases of a test, of which some are `harmless`.
    """

    module: Any
    function: str
    before: Callable[..., Any]
    attacks: tuple[str, ...]
    harmless: int = 0


def _make(path: str) -> str:
    os.makedirs(path, exist_ok=True)
    return path


def _make_folder(path: PurePath, mode: int, uid: int, gid: int) -> None:
    os.makedirs(path, exist_ok=True)


def _open_all(paths: Iterable[PurePath]) -> list[int]:
    return [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in paths]


_find = process._find


def _find_anybodys(file: str, is_wanted: Callable[[str, str], bool], _owners: object) -> list[process.ProcessId]:
    return _find(file, is_wanted, None)


_REFUSED = "tests/attack/test_scratch.py::test_what_a_user_has_put_there_first_is_refused"
_PLANTED = ("directory", "link", "file", "fifo", "way")
_REPLACE = "tests/attack/test_scratch.py::test_a_scratch_where_others_may_replace_ours_is_refused"
_STOPS = "tests/attack/test_records.py::test_it_stops_nobody_else"
_LETS_IN = "tests/unit/guest/test_seed.py::test_an_image_that_was_saved_lets_no_other_job_in"
DEFENCES = {
    "owners of scratch": Defence(trust, "make_root_only", _make, (
        *(f"{_REFUSED}[{where}-{what}]" for where in ("pcocc", "deep/pcocc") for what in _PLANTED),
        *(f"{_REPLACE}[{mode}]" for mode in (0o777, 0o775, 0o2770)),
        "tests/attack/test_scratch.py::test_nor_may_it_belong_to_another",
    )),
    "records that tell little": Defence(records, "decode_record", lambda job, data: JobRecord(**json.loads(data)), tuple(
        f"{_STOPS}[setup-{how}]" for how in ("empty", "cut", "no text", "a list", "deep", "types", "wrong stepd", "newer")
    )),
    "closed descriptors": Defence(removal, "close_all_but", lambda kept: None, (
        "tests/attack/test_leftovers.py::test_no_descriptor_goes_along",
    )),
    "owners of root's folders": Defence(files, "ensure_directory", _make_folder, (
        "tests/attack/test_leftovers.py::test_roots_folder_cannot_be_made_by_somebody_else",
    )),
    "rights of who deletes": Defence(drop, "become", lambda rights: None, (
        "tests/attack/test_leftovers.py::test_who_deletes_has_the_owners_rights_and_nothing_else",
        "tests/attack/test_leftovers.py::test_files_of_another_user_stay_and_hold_up_nobody",
    )),
    "mounts that are not seen": Defence(mounts, "forget", _open_all, tuple(
        f"tests/attack/test_mounts.py::test_what_a_user_has_mounted_holds_nothing[{kind}-{where}]"
        for kind in ("fuse", "tmpfs") for where in (".", "inside", "inside/below")
    )),
    "owners of slurmstepds": Defence(process, "_find", _find_anybodys, (
        "tests/attack/test_node.py::test_nobody_but_root_is_a_slurmstepd[a user]",
    )),
    "real uids": Defence(process, "read_owner", lambda pid: os.stat(f"/proc/{pid}").st_uid, (
        "tests/attack/test_node.py::test_a_users_program_with_roots_rights_is_found_by_who_started_it",
    )),
    "keys of former jobs": Defence(seed, "_forget_keys", lambda keys: "true", (f"{_LETS_IN}[*]",), harmless=1),
}  # fmt: skip


@pytest.fixture(autouse=True)
def undefended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the defence away that the environment names."""
    one = DEFENCES[os.environ[VARIABLE]]
    monkeypatch.setattr(one.module, one.function, one.before)
