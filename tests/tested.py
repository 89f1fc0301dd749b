"""What is tested on what: `python3 -m tests.tested >docs/tested.md`. tests/unit/test_tested.py compares the two."""

from __future__ import annotations

from pathlib import PurePath

from tests.releaselib.suites import PACKAGED, ROOT, SELECTION, SUITES, Suite
from tests.stages import STAGES

HOST = Suite("", "12", "22.05", "3.11", "7.2")  # the machine on which `make test` runs
_HEAD = ("what runs", "Debian", "Slurm", "cgroup", "Python", "QEMU", "accelerator", "by")
_TEXT = """# What is tested on what

{table}

A real cluster means: {cluster}.

Continuous integration, `.ci/run`, runs one after another:

{stages}

What cannot be had on a day, as without a mirror, or has no time left, it says not to have tried. The packages' tests are run by
hand: all of them have passed, one of 40 by itself. Not all of the rest has passed in one run yet. On 13 all but one test has,
whose fault is mended since; on sid all but three, of which two are, and but for networks. In the node machine all has passed,
not in one run, but for the failure of its power and for how Slurm confines tasks.

All of it runs on amd64. cgroup v1 and TCG, QEMU's emulation, are what the machine has on which these tests run; the accelerator
is found out there as on any node (`accel: auto`).

By reading alone, without a test: Slurm 23.02, 23.11, 25.05 and 25.11, of which no release of Debian has a package; SchedMD's own
packages of Slurm; Ubuntu 24.04. RHEL and its kin: see the top of [pcocc.spec](../packaging/pcocc.spec).
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
        f"- `{one.name}`" + ("" if one.gates else ", whose failure is shown loudly, and stops nobody") for one in STAGES
    )
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return _TEXT.format(table=table, cluster=", ".join(names), stages=stages)


def _row(what: str, suite: Suite, command: str, cgroup: str = "v1", accelerator: str = "TCG") -> tuple[str, ...]:
    return (what, suite.debian, suite.slurm, cgroup, suite.python, suite.qemu, accelerator, f"`{command}`")


if __name__ == "__main__":
    print(render(), end="")
