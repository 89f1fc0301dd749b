"""The shell text of a VM step, run by the real /bin/sh as a guest's sshd would run it."""

import itertools
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from pcocc_runtime.documents.reach import PORTFILE
from pcocc_runtime.documents.vm_state import TOKEN, task_token
from pcocc_runtime.guest.environment import GuestEnvironment
from pcocc_runtime.guest.script import (
    _PORTS,
    parse_mount_look,
    render_mount_look,
    render_script,
    render_signal,
    render_sweep,
)
from tests.waiting import limit, wait_for


def run(script: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, timeout=limit(20), check=False, **options)


STEPS = itertools.count()


def render(argv: list[str], token: str = "", guarded: bool = True, **environ: str) -> str:
    token = token or task_token(str(os.getpid()), str(next(STEPS)), "0")  # cleaners keep looking for a while after the end
    return render_script(argv, with_settings(**environ), "/tmp", 0o027, token, guarded)


def with_settings(**settings: str) -> GuestEnvironment:
    return GuestEnvironment({"PCOCC_VM_NAME": "vm0", **settings}, {}, (), {})


def test_directory_umask_environment_and_status_arrive() -> None:
    done = run(render(["sh", "-c", 'pwd; umask; echo "$SLURM_X|$PCOCC_TASK"; exit 7'], "1.2.3.", SLURM_X="a 'b' $c"))
    assert done.stdout.splitlines() == ["/tmp", "0027", "a 'b' $c|1.2.3."]
    assert done.returncode == 7


@pytest.mark.parametrize("word", ["", " ", "*", "$HOME", "'", '"', "\\", "a\nb", "é"])
def test_arguments_pass_unchanged(word: str) -> None:
    assert run(render(["printf", "%s", word])).stdout == word


@pytest.mark.parametrize(
    ("text", "known", "found"),
    [
        ("12 22=n1:60222,80=n1:60300\n", "", "22=n1:60222,80=n1:60300"),
        ("12 22=n1:60222", "", "22=n1:60222"),
        ("11 22=n1:60222\n", "", ""),  # of an image that was saved in another job
        ("", "", ""),
        (None, "", ""),
        ("12 22=n1:60222\n", "22=n2:7", "22=n2:7"),
        ("12 22=n1:60222\n", None, ""),
    ],
)
@pytest.mark.parametrize("shell", ["/bin/sh", "busybox sh"])
def test_a_guest_knows_its_ports_where_the_tasks_node_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str, text: str | None, known: str | None, found: str
) -> None:
    path = tmp_path / "host-ports"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr("pcocc_runtime.guest.script._PORTS", _PORTS.replace(PORTFILE, str(path)))
    environ = {"SLURM_JOB_ID": "12"} | ({} if known is None else {"PCOCC_HOST_PORTS": known})
    done = run(render(["sh", "-c", "echo $PCOCC_HOST_PORTS"], guarded=False, **environ).replace("exec /bin/sh", f"exec {shell}"))
    assert (done.stdout, done.stderr, done.returncode) == (f"{found}\n", "", 0)


def test_a_missing_directory_is_no_error() -> None:
    script = render_script(["pwd"], with_settings(), "/does/not/exist", 0o022, "1.2.4.", guarded=False)
    assert run(script, env={**os.environ, "HOME": "/"}).stdout == "/\n"


def test_streams_stay_apart_and_stdin_is_the_commands() -> None:
    done = run(render(["sh", "-c", "cat; echo no >&2"]), input="hello")
    assert (done.stdout, done.stderr) == ("hello", "no\n")


def test_a_signal_reaches_the_command_and_its_children_only(tmp_path: Path) -> None:
    script = "trap 'echo caught; exit 3' USR1; : > started; while :; do sleep 0.05; done"
    task = subprocess.Popen(
        ["/bin/sh", "-c", render_script(["sh", "-c", script], with_settings(), str(tmp_path), 0o022, "7.7.7.", guarded=True)],
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: (tmp_path / "started").exists())
    run(render_signal("7.7.7.", "USR1"))
    out, _ = task.communicate(timeout=limit(10))
    assert (out, task.returncode) == ("caught\n", 3)


@pytest.mark.parametrize("guarded", [False, True])
def test_what_a_command_leaves_running_is_ended(guarded: bool) -> None:
    leaving = ["sh", "-c", "setsid sleep 987 >/dev/null 2>&1 & setsid sleep 987 >/dev/null 2>&1 & exit 5"]
    done = run(render(leaving, "8.8.8.", guarded))
    assert done.returncode == 5
    assert not carriers("8.8.8."), "when the step ends the guest is clean"


def test_a_lost_connection_ends_the_command() -> None:
    script = render(["sleep", "986"], token="9.9.9.")
    sshd = subprocess.Popen(["/bin/sh", "-c", f"/bin/sh -c {shlex.quote(script)}; :"], start_new_session=True)
    wait_for(lambda: bool(carriers("9.9.9.")))
    sshd.send_signal(signal.SIGKILL)
    sshd.wait()
    wait_for(lambda: not carriers("9.9.9."))


@pytest.mark.thorough
def test_a_sweep_ends_the_processes_of_its_tasks_and_no_others() -> None:
    stubborn = ["sh", "-c", "trap '' TERM; echo on; while :; do sleep 0.1; done"]
    tokens = [task_token("6", "6", task) for task in ("1", "2", "11")]
    tasks = [subprocess.Popen(["/bin/sh", "-c", render(stubborn, one, False)], stdout=subprocess.PIPE) for one in tokens]
    try:
        for task in tasks:
            assert task.stdout and task.stdout.readline() == b"on\n"
        run(render_sweep(tokens[:2]))
        assert tasks[0].wait(limit(10)) and tasks[1].wait(limit(10)) and tasks[2].poll() is None
        assert [bool(carriers(one)) for one in tokens] == [False, False, True]
    finally:
        run(render_sweep(tokens))
        for task in tasks:
            task.communicate(timeout=limit(10))


def carriers(token: str) -> list[str]:
    """Return the pids of the processes started with the token."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"{TOKEN}={token}".encode() in (entry / "environ").read_bytes():
                found.append(entry.name)
        except OSError:
            continue
    return found


SHELLS = ["/bin/sh", "busybox sh", "bash --posix"]


def run_in(shell: str, script: str, **options: object) -> subprocess.CompletedProcess[str]:
    return run(script.replace("exec /bin/sh", f"exec {shell}", 1), **options)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory of programs, good and bad, which is the last of PATH."""
    texts = {
        "good": "#!/bin/sh\necho good $1\n", "odd": "#!/nonesuch/bash -e\n", "spaced": "#! /bin/sh -e\necho spaced\n",
        "dos": "#!/bin/sh\r\necho\r\n",
        "spaced-odd": "#!  /nonesuch/bash\n", "one-line": "#!/bin/sh", "binary": "\x7fELF\0\0",
        "no-interpreter": "echo plain\n", "private": "x", "in-directory": "#!DIR/directory\n", "in-private": "#!DIR/private x\n",
        "second": "#!DIR/odd\n", "itself": "#!DIR/itself\n", "third": "#!DIR/good x\n",
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / name).write_text(text.replace("DIR", str(tmp_path)), newline="")
        (tmp_path / name).chmod(0o600 if name == "private" else 0o755)
    (tmp_path / "directory").mkdir()
    return tmp_path


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("nonesuch", 127, "nonesuch: not found in vm0"), ("./nonesuch", 127, "./nonesuch: not found in vm0"),
        ("", 127, ": not found in vm0"),
        ("/nonesuch/x y", 127, "/nonesuch/x y: not found in vm0"),
        ("./directory", 126, "./directory: is a directory in vm0"),
        ("./private", 126, "./private: permission denied in vm0"), ("if", 127, "if: not found in vm0"),
        ("!", 127, "!: not found in vm0"), ("A=1", 127, "A=1: not found in vm0"),
        ("./odd", 127, "./odd: bad interpreter /nonesuch/bash: not found in vm0"),
        ("odd", 127, "odd: bad interpreter /nonesuch/bash: not found in vm0"),
        ("./spaced-odd", 127, "./spaced-odd: bad interpreter /nonesuch/bash: not found in vm0"),
        ("it's", 127, "it's: not found in vm0"), ("[[", 127, "[[: not found in vm0"),
        ("./in-directory", 126, "./in-directory: bad interpreter DIR/directory: permission denied in vm0"),
        ("in-private", 126, "in-private: bad interpreter DIR/private: permission denied in vm0"),
        ("second", 127, "second: bad interpreter /nonesuch/bash: not found in vm0"),
        ("itself", 126, "itself: bad interpreter DIR/itself: too many of them in a row in vm0"),
        ("./dos", 127, "./dos: bad interpreter /bin/sh, with a carriage return behind it: its lines end as in Windows in vm0"),
    ],
)  # fmt: skip
def test_a_command_that_cannot_run_is_told_without_this_text(
    programs: Path, shell: str, command: str, status: int, said: str
) -> None:
    path = f"{os.environ['PATH']}:{programs}"
    script = render_script([command, "x"], with_settings(PATH=path), str(programs), 0o022, "1.3.0.", guarded=False)
    done = run_in(shell, script)
    assert (done.returncode, done.stderr, done.stdout) == (status, f"{said.replace('DIR', str(programs))}\n", "")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("command", "said"),
    [("./good", "good x"), ("good", "good x"), ("./spaced", "spaced"), ("./one-line", ""), ("./no-interpreter", "plain"),
     ("echo", "x"),
     ("/bin/echo", "x"), ("printf", "x"), ("third", "good x")],
)  # fmt: skip
def test_a_command_that_can_run_does(programs: Path, shell: str, command: str, said: str) -> None:
    path = f"{os.environ['PATH']}:{programs}"
    done = run_in(shell, render_script([command, "x"], with_settings(PATH=path), str(programs), 0o022, "1.3.1.", guarded=False))
    assert (done.returncode, done.stderr, done.stdout.strip()) == (0, "", said)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_program_whose_loader_is_missing_is_not_told_with_this_text(programs: Path, shell: str) -> None:
    done = run_in(shell, render_script(["./binary"], with_settings(), str(programs), 0o022, "1.3.2.", guarded=False))
    assert (
        done.returncode in (126, 127)
        and "./binary" in done.stderr
        and "/proc/self/fd" not in done.stderr
        and "line" not in done.stderr
    )


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("line", [
    "cd /nonesuch", ". /nonesuch", "kill 99999999", "printf %d x", "test a b c", "export 1a=b", "ulimit -Q", "umask zz",
    "shift 99", "wait abc", "[ a", "exec nonesuch", "set -o nonesuch", "trap x NONESUCH", "local a", "eval if",
])  # fmt: skip
def test_what_a_shell_has_itself_fails_without_this_text(shell: str, line: str) -> None:
    done = run_in(shell, render(shlex.split(line), guarded=False))
    assert "/proc/self/fd" not in done.stderr and not re.search(r"line [0-9]{2}|: [0-9]{2}:", done.stderr), done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_a_command_is_a_program_as_on_nodes_and_not_the_shells_own(shell: str) -> None:
    assert run_in(shell, render(["echo", "-e", "a\\tb"], guarded=False)).stdout == "a\tb\n"
    assert run_in(shell, render(["echo", "a\\tb"], guarded=False)).stdout == "a\\tb\n"
    assert run_in(shell, render(["sh", "-c", "exit 3"], guarded=False)).returncode == 3
    assert run_in(shell, render(["exit", "3"], guarded=False)).returncode == 3


def test_a_script_is_called_by_its_own_name(programs: Path) -> None:
    script = render_script([f"{programs}/odd"], with_settings(), "/", 0o022, "1.3.3.", guarded=False, called="slurm_script")
    assert run(script).stderr == "slurm_script: bad interpreter /nonesuch/bash: not found in vm0\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_the_environment_of_the_command_is_as_planned(tmp_path: Path, shell: str) -> None:
    environment = GuestEnvironment(
        {"PCOCC_VM_NAME": "vm0", "A": "a 'b'\n$c", "TMPDIR": f"{tmp_path}/new"}, {"HOME": "/elsewhere", "B": "b"},
        ("GONE", "NEVER"), {}
    )
    script = render_script(
        ["sh", "-c", 'echo "$A|$HOME|$B|${GONE-none}"; ls -ld $TMPDIR'], environment, "/", 0o022, "1.4.0.",
        guarded=False,
    )
    done = run_in(shell, script, env={"PATH": os.environ["PATH"], "HOME": "/here", "GONE": "x"})
    first, second, third = done.stdout.splitlines()
    assert (first, second, done.stderr) == ("a 'b'", "$c|/here|b|none", "") and third.startswith("drwx------")


def test_a_directory_for_files_that_the_guest_cannot_have_is_tmp() -> None:
    script = render_script(
        ["sh", "-c", "echo $TMPDIR"], with_settings(TMPDIR="/nonesuch/x"), "/", 0o022, "1.4.1.", guarded=False
    )
    assert run(script).stdout == "/tmp\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_limits_are_the_commands(shell: str) -> None:
    limits = {"STACK": str(4 << 20), "NOFILE": "100", "CORE": "0", "CPU": "3600"}
    environment = GuestEnvironment({"PCOCC_VM_NAME": "vm0"}, {}, (), limits)
    code = (
        "import resource as r; print([r.getrlimit(n)[0] for n in (r.RLIMIT_STACK, r.RLIMIT_NOFILE, r.RLIMIT_CORE,"
        " r.RLIMIT_CPU)])"
    )
    done = run_in(shell, render_script(["python3", "-c", code], environment, "/", 0o022, "1.5.0.", guarded=False))
    assert (done.stdout, done.stderr) == (f"[{4 << 20}, 100, 0, 3600]\n", "")


def test_a_limit_that_the_guest_does_not_allow_is_told() -> None:
    environment = GuestEnvironment({"PCOCC_VM_NAME": "vm0"}, {}, (), {"NOFILE": str(1 << 40)})
    done = run(render_script(["echo", "on"], environment, "/", 0o022, "1.5.1.", guarded=False))
    assert (done.stdout, done.stderr) == ("on\n", f"pcocc: the limit NOFILE cannot be {1 << 40} in vm0\n")


def test_what_a_command_leaves_is_ended_whatever_its_path_is() -> None:
    leaving = [
        "/bin/sh", "-c",
        "/usr/bin/setsid /bin/sleep 985 >/dev/null 2>&1 & /usr/bin/setsid /bin/sleep 985 >/dev/null 2>&1 & exit 5",
    ]
    done = run(render_script(leaving, with_settings(PATH="/nonesuch"), "/", 0o022, "8.8.9.", guarded=False))
    assert done.returncode == 5 and not carriers("8.8.9.")


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_what_is_not_mounted_is_named_and_whether_the_kernel_could(shell: str) -> None:
    """Here /proc is mounted from `proc`, and `pro.` would match it as a pattern."""
    mounts = {"proc": "proc", "pro.": "proc", "fast": "no-such-type"}
    said = subprocess.run([shell, "-c", render_mount_look(mounts)], capture_output=True, text=True, check=True).stdout
    assert parse_mount_look(said, mounts) == [("pro.", "proc", True), ("fast", "no-such-type", False)]
    assert parse_mount_look("a\n\nproc proc\x1b\nfast !\nother\n", mounts) == [
        ("proc", "proc", True),
        ("fast", "no-such-type", False),
    ]
