"""Which variables a command in a guest gets, and what of --export, --propagate and prolog scripts reaches it."""

import pytest

from pcocc_runtime.documents.vm_state import TOKEN
from pcocc_runtime.guest.environment import (
    GuestEnvironment,
    find_changes,
    plan_batch_environment,
    plan_environment,
)

HERE = {"HOME": "/h", "PATH": "/p", "FOO": "1", "BAR": "b,c", "SLURM_JOB_ID": "12", "PCOCC_X": "2", "PCOCC_VM": "vm1"}


def plan(now: dict[str, str], before: dict[str, str] | None = None, export: str | None = None) -> GuestEnvironment:
    return plan_environment(now if before is None else before, now, export)


def test_only_what_a_guest_may_use_is_passed() -> None:
    hidden = {
        "SLURM_CONF": "/x", "SLURM_SPANK_PCOCC_CLUSTER": "z", "SLURM_PCOCC_VMS": "vm0", "PCOCC_BOOT": "s", TOKEN: "1.1.1.",
        "SLURM_BAD-NAME": "", "SLURM_\u00e9": "",
    }  # fmt: skip
    assert plan({**HERE, **hidden, "SLURMD_NODENAME": "n1"}) == (
        {"SLURM_JOB_ID": "12", "PCOCC_X": "2", "SLURMD_NODENAME": "n1"}, {}, (), {},
    )


@pytest.mark.parametrize(
    ("export", "named"),
    [
        (None, {}), ("NONE", {}), ("NIL", {}), ("", {}), ("FOO", {"FOO"}), ("FOO=1,BAR", {"FOO", "BAR"}),
        ("FOO,NOTHERE", {"FOO"}), ("BAR='b,c',FOO", {"FOO", "BAR"}), ('"BAR=b,c"', {"BAR"}), ("'BAR=FOO,c'", {"BAR"}),
        ("PATH=/p", {"PATH"}), ("PCOCC_VM", {"PCOCC_VM"}), ("SLURM_SPANK_X", {}), (TOKEN, {}),
    ],
)  # fmt: skip
def test_what_is_named_is_exported(export: str | None, named: set[str]) -> None:
    found = plan({**HERE, "SLURM_SPANK_X": "", TOKEN: "x"}, export=export)
    assert set(found.settings) - {"SLURM_JOB_ID", "PCOCC_X"} == set(named) and found.defaults == {}


@pytest.mark.parametrize("export", ["ALL", "all", "ALL,FOO=1", "FOO,ALL"])
def test_all_is_everything_that_the_guest_has_not_itself(export: str) -> None:
    found = plan({**HERE, "SLURM_CONF": "/x", "PMI_FD": "7"}, export=export)
    assert found.settings | found.defaults == {name: value for name, value in HERE.items() if name != "PCOCC_VM"}
    assert {"HOME", "PATH"} <= set(found.defaults) and ("FOO" in found.settings) == ("FOO" in export)


def test_what_prolog_scripts_do_counts() -> None:
    before = {**HERE, "GONE": "1", "SLURM_GONE": "1", "SLURM_RLIMIT_CORE": "0"}
    found = plan({**HERE, "FOO": "2", "NEW": "n", "PATH": "/q", "SLURM_SCRIPT_CONTEXT": "prolog_task"}, before)
    assert found.settings == {
        "FOO": "2", "NEW": "n", "PATH": "/q", "SLURM_JOB_ID": "12", "PCOCC_X": "2", "SLURM_SCRIPT_CONTEXT": "prolog_task"
    }  # fmt: skip
    assert set(found.removed) == {"GONE", "SLURM_GONE"} and found.defaults == {}


def test_limits_count_that_a_user_propagates() -> None:
    limits = {"SLURM_RLIMIT_STACK": f"U{2**64 - 1}", "SLURM_RLIMIT_CORE": "0", "SLURM_RLIMIT_NOFILE": "U100"}
    assert plan(HERE, {**HERE, **limits}).limits == {"STACK": "unlimited", "NOFILE": "100"}


def test_a_batch_script_has_the_variables_of_its_job() -> None:
    before = {"SLURM_STEP_ID": "3", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "pcocc-batch", "PCOCC_X": "2"}
    now = {**before, "SLURM_MADE": "by a prolog", "FOO": "1"}
    script = {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "mine", "PCOCC_X": "2", "ENVIRONMENT": "BATCH"}
    found = plan_batch_environment(plan(now, before), script, ["HOME"], find_changes(before, now))
    assert found == ({**script, "SLURM_MADE": "by a prolog", "FOO": "1"}, {}, ("HOME",), {})
