"""`pcocc checkpoint`: stops all VMs of a job at one moment, and stores them where nobody sees half a checkpoint."""

from __future__ import annotations

import argparse
import contextlib
import glob
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pcocc_runtime import errors, terminal
from pcocc_runtime.cli.common import interruptible
from pcocc_runtime.cli.operating import JOB_HELP
from pcocc_runtime.documents.checkpoint import (
    BOOT_COPY,
    CURRENT,
    END_IT,
    FAR,
    GO_ON,
    HOLD_IT,
    KEEP_IT,
    PAUSED,
    STAY,
    STORE,
    STORED,
    SUMMED,
    WHOLE_FILE,
    Checkpoint,
    StoredFile,
    decode_task_word,
    encode_checkpoint,
)
from pcocc_runtime.documents.verbs import CHECKPOINT_VERB
from pcocc_runtime.progress import Advance, unwatched
from pcocc_runtime.system import files, held, tree_removal
from pcocc_runtime.system.checkpoint_place import ensure_replaceable
from pcocc_runtime.system.copy import hash_file

_HOLD_HELP = "have them stand still afterwards until a line comes on the input; they end when that does"
_ERROR, _HINT = "pcocc: error: ", "hint: "  # begin the lines of an error
_VM = "\0"  # stands for a VM's name
_OURS = re.compile(r"[0-9]+(-[0-9]+(\.link)?)?")  # what follows the host's name in names of ours


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add the words of `pcocc checkpoint`."""
    parser.description = (
        "Stores the memory, devices and disks of all VMs of a job as they are at one moment. The VMs stand still until"
        " that is done; 'sbatch --pcocc-restart=DIR' goes on from there. DIR must be on a file system that the nodes"
        " share. A checkpoint that is in it already is replaced once the new one is complete."
    )
    parser.add_argument("-j", "--job", metavar="JOB", help=JOB_HELP)
    after = parser.add_mutually_exclusive_group()
    after.add_argument("--stop", action="store_true", help="end the VMs when they are stored, and cancel the job")
    after.add_argument("--hold", action="store_true", help=_HOLD_HELP)
    parser.add_argument("directory", metavar="DIR", help="where to store them; made if it is missing")
    parser.set_defaults(run=_checkpoint)


def _checkpoint(arguments: argparse.Namespace) -> int:
    from pcocc_runtime.cli.login import find_job
    from pcocc_runtime.slurm.commands import cancel_job
    from pcocc_runtime.slurm.steps import find_own_job

    target = Path(os.path.realpath(arguments.directory))
    ensure_replaceable(target)
    running = find_own_job(find_job(arguments.job), "store")
    vms = running.tasks
    with (
        interruptible(), terminal.Meter() as meter, _unfinished(target) as made,
        _Conversation(running.job, vms, made.place) as step,
    ):
        step.await_all(PAUSED)
        begun = time.monotonic()
        step.say(STORE)
        step.await_all(STORED, meter.begin("storing the VMs, which stand still"))
        step.say(STAY if arguments.stop or arguments.hold else GO_ON)
        still = time.monotonic() - begun
        step.await_all(SUMMED, meter.begin("computing sums"))
        _complete(made, running.job, vms)
        step.say(END_IT if arguments.stop else HOLD_IT if arguments.hold else KEEP_IT)
        if arguments.hold:
            _hold(step, vms, target)
            return 0
        step.finish()
    if arguments.stop:
        cancel_job(running.job)
    ended = f"job {running.job} is cancelled" if arguments.stop else f"the VMs stood still for {still:.1f} s"
    sys.stdout.write(f"stored {_count(vms)} in {target}; {ended}\n")
    return 0


def _hold(step: _Conversation, vms: int, target: Path) -> None:
    """Keep stored VMs from going on until a line comes on our input; they end when that ends, or we do."""
    sys.stdout.write(f"stored {_count(vms)} in {target}; they stand still\n")
    sys.stdout.flush()
    if sys.stdin.readline():
        step.say(KEEP_IT)
        step.finish()


def _count(vms: int) -> str:
    return f"{vms} {'VM' if vms == 1 else 'VMs'}"


@dataclass(frozen=True, slots=True)
class _Draft:
    """Where a checkpoint is made: in `place`, a directory in `base`.

    `base` is the target, or, where there is none yet, a directory that is renamed to the target at the end.
    """

    target: Path
    base: Path
    place: Path

    def publish(self) -> None:
        """Make the target's link lead to this checkpoint, and remove the older one that it led to before."""
        link = self.base / CURRENT
        older = self.base / os.readlink(link) if link.is_symlink() else None
        new = self.base / f"{self.place.name}.link"
        new.symlink_to(self.place.name)
        new.rename(link)
        held.flush(self.base)
        if self.base != self.target:
            self.base.rename(self.target)
            held.flush(self.target.parent)
        elif older is not None:
            with contextlib.suppress(OSError):  # the new one is there; the next checkpoint removes what is left
                tree_removal.remove_tree(older)

    def remove(self) -> None:
        """Remove a checkpoint that has not been published."""
        tree_removal.remove_tree(self.place if self.base == self.target else self.base)
        Path(f"{self.place}.link").unlink(missing_ok=True)


@contextlib.contextmanager
def _unfinished(target: Path) -> Iterator[_Draft]:
    """Make a place for a checkpoint, and remove it after the block if the checkpoint has not been published.

    What killed commands of this host have left of unpublished checkpoints is removed as well.
    """
    host = os.uname().nodename
    here, beside = f".{host}-", f".{target.name}.part-{host}-"
    for begin, old in [
        *((here, one) for one in target.glob(f"{glob.escape(here)}*")),
        *((beside, one) for one in target.parent.glob(f"{glob.escape(beside)}*")),
    ]:
        if _is_left(old, old.name.removeprefix(begin), target / CURRENT):
            tree_removal.remove_tree(old)
    base = target if target.is_dir() else target.with_name(f"{beside}{os.getpid()}")
    made = _Draft(target, base, base / f"{here}{os.getpid()}-{time.time_ns()}")
    try:
        if base != target:
            base.mkdir(mode=0o700)
        made.place.mkdir(mode=0o700)
    except OSError as error:
        message = f"{base.parent if base != target else target} cannot be written: {error.strerror}"
        raise errors.RequestError(message, "name another directory") from None
    try:
        yield made
    except BaseException:  # also an interrupt: what is not complete goes
        if os.path.realpath(target / CURRENT) != os.path.realpath(made.place):
            with contextlib.suppress(OSError):  # such as a file system that is read-only by now
                made.remove()
        raise


def _is_left(path: Path, rest: str, current: Path) -> bool:
    """Tell whether a killed command has left this. `rest`, the end of its name, begins with that command's pid."""
    if not _OURS.fullmatch(rest):
        return False
    used = current.is_symlink() and os.readlink(current) == path.name
    return not used and not Path("/proc", rest.partition("-")[0].partition(".")[0]).exists()


def _complete(made: _Draft, job: int, vms: int) -> None:
    """Seal and publish a checkpoint; NodeError if the file system does not let us."""
    try:
        _seal(made.place, job, vms)
        made.publish()
    except OSError as error:
        message = f"the checkpoint could not be completed in {made.target}: {error.strerror}"
        hint = "see 'df' and 'ls -l' there; the VMs go on, and an older checkpoint is unchanged"
        raise errors.NodeError(message, hint) from None


def _seal(place: Path, job: int, vms: int) -> None:
    """Write the file that makes a directory a checkpoint, once everything else is in it and on disk."""
    names = [BOOT_COPY, *(f"vm{rank}.json" for rank in range(vms))]
    found = [StoredFile(name, (place / name).stat().st_size, hash_file(place / name, unwatched)) for name in names]
    files.replace_file(place / WHOLE_FILE, encode_checkpoint(Checkpoint(job, int(time.time()), vms, tuple(found))))
    for name in (*names, WHOLE_FILE):
        held.flush(place / name)
    held.flush(place)


class _Conversation:
    """A step with a task for each VM: all tasks hear what we say, and each answers with a line."""

    def __init__(self, job: int, vms: int, place: Path) -> None:
        from pcocc_runtime.slurm.steps import AS_BYTES, operation_argv, start_conversation

        names = f"vm[0-{vms - 1}]" if vms > 1 else "vm0"
        argv = operation_argv(job, names, [CHECKPOINT_VERB, str(place)], streams=AS_BYTES)
        # a task that fails ends all tasks, and then their VMs go on
        argv = [word.replace("--kill-on-bad-exit=0", "--kill-on-bad-exit=1") for word in argv]
        self.names = {f"vm{rank}" for rank in range(vms)}
        self.complaints: list[str] = []  # lines of the tasks
        self.started = start_conversation(argv, self._take)
        self.process: subprocess.Popen[bytes] = self.started.process

    def say(self, line: str) -> None:
        """Say a line to all tasks."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the step has ended: whoever waits for its answer will say so
            self.process.stdin.write(f"{line}\n".encode())
            self.process.stdin.flush()

    def await_all(self, word: str, advance: Advance = unwatched) -> None:
        """Wait until each VM's task has said a word; NodeError when the step ends before."""
        assert self.process.stdout is not None
        waits, far = set(self.names), dict[str, tuple[int, int]]()
        while waits:
            line = self.process.stdout.readline()
            if not line:
                self.started.wait()
                if (problem := merge_complaints(self.complaints)) is not None:
                    raise problem
                if self.started.has_complained:
                    raise SystemExit(errors.EXIT_FAILURE)
                message = f"{_name(waits)} could not be stored: the step that stores the VMs ended too early"
                raise errors.NodeError(message, "the VMs go on; an older checkpoint in that directory is unchanged")
            said = decode_task_word(line)
            if said is not None and said.word == word:
                waits.discard(said.vm)
            elif said is not None and said.word == FAR:
                far[said.vm] = (said.done, said.total)
                advance(sum(done for done, _all in far.values()), sum(total for _done, total in far.values()))

    def finish(self) -> None:
        """Wait for the step's end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        if self.started.wait():
            problem, self.complaints = merge_complaints(self.complaints), []
            why = f": {problem.message}" if problem else ""
            message = "the checkpoint is complete and can be used, but some tasks that stored VMs failed afterwards"
            raise errors.NodeError(message + why, "'pcocc ps -l' shows which VMs still run")

    def _take(self, line: str) -> bool:
        """Keep a task's line; what is not a task's, such as Slurm's own errors, is for the user as it is."""
        ours = line.startswith((_ERROR, _HINT))
        self.complaints += [line] if ours else []
        return ours

    def __enter__(self) -> _Conversation:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                assert stream is not None
                stream.close()
        with contextlib.suppress(KeyboardInterrupt):
            self.started.wait()
        # an error that is on its way says more than the tasks, which were interrupted by it
        if not isinstance(error, errors.PcoccError) and (problem := merge_complaints(self.complaints)):
            terminal.say_error(problem)


def merge_complaints(lines: Sequence[str]) -> errors.NodeError | None:
    """Return one error for what several tasks have complained of, None for nothing; its hint is that of the first.

    VMs with the same complaint are named together.
    """
    found: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith(_ERROR):
            text = line.removeprefix(_ERROR).strip()
            vm = named[0] if (named := re.search(r"\bvm[0-9]+\b", text)) else ""
            found.setdefault(re.sub(rf"\b{vm}\b", _VM, text) if vm else text, []).append(vm)
    if not found:
        return None
    told = []
    named_ones = {text: vms for text, vms in found.items() if any(vms)}  # the others were interrupted by these
    for text, vms in (named_ones or found).items():
        first, *others = sorted(set(vms), key=lambda vm: int(vm[2:] or -1))
        told.append(text.replace(_VM, first) + (f" (and the same of {_name(set(others))})" if others else ""))
    hint = next((line.removeprefix(_HINT).strip() for line in lines if line.startswith(_HINT)), None)
    return errors.NodeError("; ".join(told), hint)


def _name(vms: set[str]) -> str:
    found = sorted(vms, key=lambda name: int(name[2:]))
    return ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
