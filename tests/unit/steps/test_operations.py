"""Operations on VMs: each runs where its row says, and each failure is one sentence."""

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

from pcocc_runtime import naming
from pcocc_runtime.documents import wire, wire_steps
from pcocc_runtime.documents.members import MEMBERS_FILE, Members, encode_members
from pcocc_runtime.errors import EXIT_USAGE, RequestError
from pcocc_runtime.slurm import steps
from pcocc_runtime.steps import main, operations
from pcocc_runtime.steps.operations import OPERATIONS, Operation, run_operation

ROOT = Path(__file__).resolve().parents[3]
Run = Callable[..., int]


class Left(Exception):
    """Raised in place of becoming an srun; `argv` and `inside` are what it was to be."""

    def __init__(self, argv: list[str], inside: bool) -> None:
        super().__init__("left")
        self.argv, self.inside = argv, inside


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The task of vm1, which runs on n2, on node n1, and what a made-up module `toy` is asked for."""
    calls: list[str] = []
    toy = ModuleType("toy")

    def check_words(words: Sequence[str]) -> str:
        calls.append("check")
        if "bad" in words:
            raise RequestError("bad words")
        return " ".join(words)

    def operate(job: int, vm: str, wanted: str) -> int:
        calls.append(f"operate {job} {vm} {wanted}")
        if wanted == "full":
            raise OSError(28, "No space left on device")
        if wanted == "broken":
            raise ZeroDivisionError("no\nway")
        if wanted.isdigit():
            os.kill(os.getpid(), int(wanted))
        return 3

    toy.check_words, toy.operate = check_words, operate  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy", toy)
    rows = {"@toy": Operation("toy"), "@in": Operation("toy", inside=True), "@at": Operation("toy", on_node=True)}
    monkeypatch.setattr(operations, "OPERATIONS", {**rows, "@both": Operation("toy", inside=True, on_node=True)})
    members = Members(networks=(), ports=(), users=((3, "alice"),), vms=3, nodes=(("n1", (0, 2)), ("n2", (1,))), boot_timeout=300)
    (tmp_path / MEMBERS_FILE).write_bytes(encode_members(members))
    monkeypatch.setattr(naming, "job_dir", lambda job: tmp_path if job == 7 else tmp_path / "none")

    def become(argv: list[str], inside: bool) -> NoReturn:
        calls.append("go")
        raise Left(argv, inside)

    monkeypatch.setattr(steps, "become_vm_step", become)
    for name, value in {"SLURM_JOB_ID": "7", wire.ENV_VM_NAME: "vm1", "SLURMD_NODENAME": "n1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(wire.ENV_STEP_INSIDE, raising=False)
    monkeypatch.delenv("PCOCC_DEBUG", raising=False)
    return calls


@pytest.fixture(autouse=True)
def kept_signals() -> object:
    """Leave signals as they were."""
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before, mask = [signal.getsignal(number) for number in numbers], signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield None
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@pytest.mark.parametrize("verb", OPERATIONS)
def test_a_row_has_a_module(verb: str) -> None:
    module = importlib.import_module(OPERATIONS[verb].module)
    assert verb.startswith("@") and callable(module.check_words) and callable(module.operate)


def test_an_operation_that_is_where_it_belongs_runs(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_operation(["@toy", "a", "b"]) == 3
    monkeypatch.setenv(wire.ENV_VM_NAME, "vm2")
    assert run_operation(["@at"]) == 3
    monkeypatch.setenv(wire.ENV_STEP_INSIDE, "1")
    assert run_operation(["@in"]) == run_operation(["@both"]) == 3
    assert [call for call in said if call != "check"] == [
        "operate 7 vm1 a b", "operate 7 vm2 ", "operate 7 vm2 ", "operate 7 vm2 ",
    ]


@pytest.mark.parametrize(
    ("verb", "vm", "inside", "node"),
    [("@at", "vm1", False, "n2"), ("@in", "vm1", True, "n1"), ("@both", "vm1", True, "n2"), ("@both", "vm0", True, "n1")],
)
def test_elsewhere_it_becomes_a_step_there(
    said: list[str], monkeypatch: pytest.MonkeyPatch, verb: str, vm: str, inside: bool, node: str
) -> None:
    monkeypatch.setenv(wire.ENV_VM_NAME, vm)
    with pytest.raises(Left) as left:
        operations._run(verb, ["a", "b"], vm)
    assert said == ["check", "go"] and left.value.inside is inside
    assert {f"--nodelist={node}", "--jobid=7", "--ntasks=1", f"--pcocc-vm={vm}"} <= set(left.value.argv)
    assert left.value.argv[-3:] == [verb, "a", "b"]


def test_the_step_there_is_told_where_to_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []
    monkeypatch.setattr(os, "execvpe", lambda _file, _argv, environ: seen.append(environ))
    monkeypatch.setenv(wire.ENV_STEP_INSIDE, "1")
    for inside in (True, False):
        steps.become_vm_step(["srun"], inside)
    assert [environ.get(wire.ENV_STEP_INSIDE) for environ in seen] == ["1", None]


def test_wrong_words_are_refused_before_it_goes_anywhere(said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_operation(["@at", "bad"]) == 1
    assert said == ["check"] and capsys.readouterr().err == "pcocc: error: bad words\n"


def test_several_vms_are_not_saved_as_one_image_from_any_node(
    said: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(operations, "OPERATIONS", OPERATIONS)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    assert run_operation(["@save", "-d", "name"]) == 1
    assert "several VMs cannot be saved as one image 'name'" in capsys.readouterr().err
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    with pytest.raises(SystemExit) as end:
        run_operation(["@save", "--what"])
    assert end.value.code == EXIT_USAGE and "pcocc: error: @save: " in capsys.readouterr().err
    assert said == []


def test_an_unknown_operation_is_told_which_there_are(said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_operation(["@nonesuch"]) == 1
    assert capsys.readouterr().err == (
        "pcocc: error: @nonesuch is not a VM operation\n"
        "hint: the operations are @toy, @in, @at, @both; run a program of that name by its path\n"
    )


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["@toy", "full"], "pcocc: error: @toy of vm1 failed: [Errno 28] No space left on device\n"),
        (["@toy", "broken"], "pcocc: error: this is a bug in pcocc: ZeroDivisionError: no way\nhint: please report it"),
    ],
)
def test_what_goes_wrong_is_a_sentence(said: list[str], capsys: pytest.CaptureFixture[str], words: list[str], text: str) -> None:
    assert run_operation(words) == 1
    assert capsys.readouterr().err.startswith(text)


def test_a_job_that_is_not_here_is_told(
    said: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    assert run_operation(["@at"]) == 1
    assert "the VMs of job 8 are not running on this node" in capsys.readouterr().err
    monkeypatch.setenv("SLURM_JOB_ID", "seven")
    assert run_operation(["@save"]) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_it_with_a_sentence(said: list[str], capsys: pytest.CaptureFixture[str], number: signal.Signals) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    with pytest.raises(SystemExit) as end:
        run_operation(["@toy", str(int(number))])
    assert end.value.code == 128 + number and capsys.readouterr().err == "pcocc: @toy of vm1 was interrupted\n"


@pytest.mark.parametrize(
    ("words", "went"),
    [(["@x", "y"], ["operation @x y"]), (["x", "@y"], ["command x @y"]), (["script", "@x"], ["batch vm0 script @x"])],
)
@pytest.mark.parametrize("prepended", [True, False])
def test_a_task_is_an_operation_a_command_or_a_batch_script(
    monkeypatch: pytest.MonkeyPatch, words: list[str], went: list[str], prepended: bool
) -> None:
    seen: list[str] = []
    monkeypatch.setenv(wire.ENV_VM_NAME, "vm0")
    if words[0] != "script":
        monkeypatch.setenv(wire.ENV_STEP_VMS, "vm0")
    if not prepended:  # Slurm before 23.11
        monkeypatch.setenv(wire_steps.ENV_FIRST_WORD, words[0])
        words = words[1:]
    monkeypatch.setattr(sys, "argv", ["attach", *words])
    monkeypatch.setattr(operations, "run_operation", lambda argv: seen.append(f"operation {' '.join(argv)}"))
    monkeypatch.setattr(main, "run_command", lambda argv: seen.append(f"command {' '.join(argv)}"))
    monkeypatch.setattr("pcocc_runtime.steps.batch.become_batch", lambda vm, argv: seen.append(f"batch {vm} {' '.join(argv)}"))
    main.main()
    assert seen == went


def test_a_command_pays_for_no_operation() -> None:
    code = "import sys, pcocc_runtime.steps.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-ISc", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"],
                          capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "pcocc_runtime.steps.session" in loaded
    assert loaded.isdisjoint(
        {"argparse", "dataclasses", "subprocess", "pathlib", "pcocc_runtime.errors", "pcocc_runtime.steps.operations"}
    )


def test_naming_the_operations_loads_none() -> None:
    code = "import sys, pcocc_runtime.steps.operations; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-ISc", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"], capture_output=True,
        text=True,
    )
    assert {row.module for row in OPERATIONS.values()}.isdisjoint(done.stdout.split()) and done.returncode == 0
