"""How long a task of a VM step waits for its job's namespace on a node, and what it says when there is none."""

import subprocess
from pathlib import Path

import pytest

from tests.spank.building import ROOT, run

NEVER = 1 << 40
ENDED, BUSY = "the job's VMs there have ended", "it is still being set up for the job"


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin's part in a task, which only counts how long it sleeps."""
    build = tmp_path_factory.mktemp("wait")
    run("meson", "setup", str(build / "meson"))
    flags = ["-D_GNU_SOURCE", f"-I{build}/meson", "-Wl,-z,lazy"]  # what only the boot step calls need not be there
    library = f"{build}/step.so"
    run("cc", *flags, "-shared", "-fPIC", "-o", library, f"{ROOT}/spank/stepd.c", f"{ROOT}/spank/text.c")
    harness = [f"{ROOT}/tests/spank/wait.c", library, "-lslurm"]
    run("cc", *flags, "-rdynamic", "-Wl,--allow-shlib-undefined", "-o", f"{build}/task", *harness)
    return build / "task"


def be(task: Path, begins: int, ends: int, appears: int, **environ: str) -> tuple[int, str]:
    """Return how many seconds the task has slept, and what it has said."""
    words = [str(1000 * seconds) for seconds in (begins, ends, appears)]
    done = subprocess.run(
        [task, *words], env={"SLURM_PCOCC_VMS": "vm0", **environ}, capture_output=True, text=True, check=False
    )
    return int(done.stdout) // 1000, done.stderr


@pytest.mark.parametrize(
    ("patience", "begins", "ends", "seconds", "said"),
    [
        ("30", NEVER, NEVER, 30, ENDED), ("0", NEVER, NEVER, 0, ENDED), ("", NEVER, NEVER, 60, ENDED),
        ("99", NEVER, NEVER, 60, ENDED),
        ("30", 0, NEVER, 300, BUSY), ("0", 0, NEVER, 300, BUSY), ("30", 29, NEVER, 300, BUSY), ("30", 31, NEVER, 30, ENDED),
        ("30", 0, 100, 100, ENDED), ("30", 0, 20, 30, ENDED),
    ],
)  # fmt: skip
def test_it_waits_for_a_node_that_is_being_set_up(
    task: Path, patience: str, begins: int, ends: int, seconds: int, said: str
) -> None:
    slept, told = be(task, begins, ends, NEVER, SLURM_PCOCC_PATIENCE=patience)
    assert slept == seconds and told.startswith("pcocc: error: vm0 cannot be reached from ") and f": {said}\nhint: " in told


def test_a_look_at_a_node_does_not_wait_for_that(task: Path) -> None:
    slept, told = be(task, 0, NEVER, NEVER, SLURM_PCOCC_PATIENCE="5", SLURM_PCOCC_INSIDE="1")
    assert slept == 5 and BUSY in told


@pytest.mark.parametrize("appears", [0, 20, 200])
def test_it_goes_on_as_soon_as_the_namespace_is_there(task: Path, appears: int) -> None:
    slept, told = be(task, 0, NEVER, appears, SLURM_PCOCC_PATIENCE="30")
    assert slept == appears and "cannot be reached" not in told
