"""What is tested on what: `python3 -m tests.tested >docs/tested.md`. tests/unit/test_tested.py compares the two."""

from __future__ import annotations

from pathlib import PurePath

from tests.releaselib.suites import PACKAGED, ROOT, SELECTION, SUITES, Suite
from tests.stages import STAGES

HOST = Suite("", "12", "22.05", "3.11", "7.2")  # the machine on which `make test` runs
_HEAD = ("what runs", "Debian", "Slurm", "cgroup", "Python", "QEMU", "accelerator", "by")
_TEXT = """# What is tested on what

{table}

"A real cluster" means these tests: {cluster}.

Continuous integration, `.ci/run`, runs these stages one after another:

{stages}

A stage that cannot run on a day (no mirror can be reached, or no time is left) is reported as not tried. The
packages' tests are run by hand: all 40 have passed in one run. On 13 all tests but one have passed in one run, and
its fault is mended since. On sid all but two have: one spoke to QEMU as 11.1 no longer hears it, the other looked at
a line that was too long; both are mended, and have passed there alone. In one run in the node
machine 37 of 44 tests have passed; of the others two have passed since, alone: a helper that gets nowhere (test_busy),
and VMs with functions of an Ethernet and of an NVMe device (test_power_functions). Not passed yet: functions over a
power failure and under emulation (test_power_functions), cores with two threads (test_power_threads).

All tests run on amd64. The machine on which they run has cgroup v1, and no usable KVM: so QEMU emulates (TCG), as on
any such node (`accel: auto`).

Only from reading, without a test, we expect these to work: Slurm 23.02, 23.11, 25.05 and 25.11, of which no release
of Debian has a package; SchedMD's own packages of Slurm; Ubuntu 24.04. For RHEL and its relatives see the top of
[pcocc.spec](../packaging/pcocc.spec).
"""


def render() -> str:
    """Return docs/tested.md."""
    rooms = ", ".join(PurePath(path).name for path in SELECTION if not path.endswith(".py"))
    rows = [_HEAD, ("---",) * len(_HEAD), _row("everything", HOST, "make test")]
    rows += [_row(f"{rooms}, a real cluster", suite, f"tests/release {suite.name}") for suite in SUITES.values()]
    rows += [_row("packages: installed, upgraded and removed, VMs running", SUITES[name], "make packages") for name in PACKAGED]
    if (ROOT / "tests/node-machine").exists():
        rows.append(_row("packages on a whole node, under systemd", SUITES["trixie"], "tests/node-machine test", "v2", "KVM"))
    names = (PurePath(path).stem.removeprefix("test_").replace("_", " ") for path in SELECTION if path.endswith(".py"))
    stages = "\n".join(
        f"- `{one.name}`" + ("" if one.gates else ", whose failure is pointed out, but does not fail the whole") for one in STAGES
    )
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return _TEXT.format(table=table, cluster=", ".join(names), stages=stages)


def _row(what: str, suite: Suite, command: str, cgroup: str = "v1", accelerator: str = "TCG") -> tuple[str, ...]:
    return (what, suite.debian, suite.slurm, cgroup, suite.python, suite.qemu, accelerator, f"`{command}`")


if __name__ == "__main__":
    print(render(), end="")
