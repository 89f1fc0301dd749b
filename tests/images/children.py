"""Commands in processes of their own: killed at any step, run as another user, run side by side."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from pcocc_runtime.cli import main as cli
from pcocc_runtime.system import held

_ANYWHERE = {"fcntl.lockf", "subprocess.Popen", "os.remove", "os.rmdir", "os.rename"}
_STEPS = {
    "open",
    "os.rename",
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "os.chmod",
    "shutil.rmtree",
    "fcntl.lockf",
    "subprocess.Popen",
}


def _only_reads(arguments: tuple[object, ...]) -> bool:
    """Tell whether an audited open changes nothing: then a kill before it is the same as a kill before the next step."""
    flags = arguments[2]
    return isinstance(flags, int) and not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)


def start(run: Callable[[], int], output: Path | None = None) -> int:
    """Run a function in a child that ends with its value as exit status; return the child's pid."""
    child = os.fork()
    if not child:
        status = 70
        try:
            fd = os.open(output or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            for number in (1, 2):
                os.dup2(fd, number)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            status = run()
        except SystemExit as end:
            status = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return child


def wait(child: int) -> int:
    """Return a child's exit status, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def pcocc(*argv: str, output: Path | None = None) -> int:
    """Run a `pcocc` command in a child; return its exit status."""
    return wait(start(lambda: cli.main(argv), output))


def run_to_step(step: int, inside: Path, *argv: str, do: Callable[[Sequence[str]], int] = cli.main) -> int:
    """Run a `pcocc` command and kill it just before the step-th change of files in `inside`; return its exit status."""

    def run() -> int:
        left = step

        def look(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            named = event in _ANYWHERE or held.show(str(arguments[0] if arguments else "")).startswith(str(inside))
            if event in _STEPS and named and not (event == "open" and _only_reads(arguments)):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(look)
        return do(argv)

    return wait(start(run))


def as_user(uid: int, run: Callable[[], int], output: Path | None = None) -> int:
    """Run a function as another user without root's capabilities; return its value."""
    return wait(start_as(uid, run, output))


def start_as(uid: int, run: Callable[[], int], output: Path | None = None, groups: Sequence[int] = ()) -> int:
    """Start a function as another user, who is in these groups too; return the child's pid."""

    def lowered() -> int:
        os.setgroups(groups)
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        os.umask(0o022)
        return run()

    return start(lowered, output)
