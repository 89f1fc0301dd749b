"""The box as the tests see it: commands run by its users, and what there is of a job on its nodes."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.waiting import limit, wait_for

ROOT = Path(__file__).resolve().parents[2]
STATE = Path("/var/lib/pcocc-box")
HOME = Path("/home/alice")
NODES = ("n1", "n2")
# names of this session's jobs: those of one test, which end with it, and those that tests share; no others are touched
JOB_NAME = f"boottest{os.getpid()}"
SHARED_NAME = f"bootshared{os.getpid()}"
LIVE = "running,completing,configuring,suspended,pending"  # states of jobs
Done = subprocess.CompletedProcess[str]


def read_command(pid: int) -> str:
    """Return the whole command line of a process; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def ensure_sentence(done: Done, *words: str) -> None:
    """Fail unless a command has failed with one sentence that has these words."""
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("hint:", "srun: error: n"))]
    assert done.returncode and "Traceback" not in done.stderr and done.stdout == "", done
    assert len(lines) == 1 and all(word in lines[0] for word in words), done.stderr


@dataclass(frozen=True)
class Process:
    """A process in the box."""

    node: str
    pid: int
    words: str

    def read(self, name: str) -> str:
        """Return the text of a file of /proc/PID."""
        return Path(f"/proc/{self.pid}/{name}").read_bytes().decode(errors="replace")

    def status(self, key: str) -> list[str]:
        """Return the fields of a line of /proc/PID/status."""
        return re.search(rf"(?m)^{key}:\s*(.*)$", self.read("status")).group(1).split()  # type: ignore[union-attr]

    def cgroup(self, controller: str) -> str:
        """Return the path of the process's cgroup of a controller, as seen on this machine."""
        for line in self.read("cgroup").splitlines():
            _number, names, path = line.split(":", 2)
            if controller in names.split(","):
                return f"/sys/fs/cgroup/{controller}{path}"
        return f"/sys/fs/cgroup{path}"

    def alive(self) -> bool:
        """Tell whether it is there and not a zombie."""
        try:
            return self.read("stat").rpartition(")")[2].split()[0] not in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return False


@dataclass
class Box:
    """Commands in the box. `history` keeps what each of them said, for the report of a failure."""

    history: list[str] = field(default_factory=list)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def argv(self, argv: str | Sequence[str], user: str = "alice", node: str | None = None, cwd: str = "",
             env: Mapping[str, str] | None = None) -> list[str]:
        """Return the command line of tests/box that runs a command."""
        words = [str(ROOT / "tests/box"), "run", "--as", user, "--on", node or "login"]
        words += ["--cwd", cwd] if cwd else []
        for key, value in {"SBATCH_JOB_NAME": JOB_NAME, "SLURM_JOB_NAME": JOB_NAME, **(env or {})}.items():
            words += ["--env", f"{key}={value}"]
        command, *rest = shlex.split(argv) if isinstance(argv, str) else argv
        named = [f"--job-name={JOB_NAME}"] if command == "salloc" else []  # it takes no name from its environment
        return [*words, "--", command, *named, *rest]

    def run(self, argv: str | Sequence[str], user: str = "alice", node: str | None = None, timeout: float = 120,
            input: str = "", cwd: str = "", env: Mapping[str, str] | None = None, status: int | None = None) -> Done:
        """Run a command to its end; with `status`, fail when it ends otherwise."""
        begin = time.monotonic()
        done = subprocess.run(self.argv(argv, user, node, cwd, env), input=input, capture_output=True, text=True,
                              errors="surrogateescape", timeout=limit(timeout), check=False)
        self.note(argv, done, time.monotonic() - begin)
        if status is not None:
            assert done.returncode == status, f"{argv} ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done

    def out(self, argv: str | Sequence[str], **more: object) -> str:
        """Run a command that must succeed; return its output without the last newline."""
        return self.run(argv, status=0, **more).stdout.rstrip("\n")  # type: ignore[arg-type]

    def submit(self, argv: Sequence[str], seconds: float = 240, **more: object) -> int:
        """Submit a batch job and wait for its end; return its exit status (`sbatch --wait` looks ever less often, up to 32 s)."""
        job = int(self.out(["sbatch", "--parsable", *argv], **more))
        wait_for(lambda: self.is_over(job), f"the end of job {job}", seconds)
        return int(re.search(r"ExitCode=(\d+)", self.out(f"scontrol -o show job {job}", user="root")).group(1))

    def is_over(self, job: int | str) -> bool:
        """Tell whether a job has ended; a squeue that was killed, or does not reach slurmctld, says nothing of it."""
        done = self.run(["squeue", "-h", "-j", str(job)], user="root")
        return done.returncode == 0 and not done.stdout

    def start(self, argv: str | Sequence[str], **more: object) -> subprocess.Popen[str]:
        """Start a command with pipes."""
        self.history.append(f"started: {argv}")
        pipe = subprocess.PIPE
        child = subprocess.Popen(self.argv(argv, **more), stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        self.started.append(child)
        return child

    def finish(self, process: subprocess.Popen[str], timeout: float = 120) -> Done:
        """Wait for a started command."""
        out, err = process.communicate(timeout=limit(timeout))
        self.started.remove(process)
        done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
        self.note(process.args[-1], done, 0)  # type: ignore[index]
        return done

    def interrupt(self, process: subprocess.Popen[str]) -> Done:
        """Press Ctrl-C until srun has noticed it twice within a second: two signals at the same time would count as one."""

        def ended() -> bool:
            process.send_signal(signal.SIGINT)
            return process.poll() is not None

        wait_for(ended, "the end of srun", 30)
        return self.finish(process)

    @contextmanager
    def changed(self, do: str, undo: str, node: str | None = None) -> Iterator[None]:
        """Change something as root for a while; a shell undoes it when its input ends, also when this process is killed."""
        words = ["sh", "-c", f"trap : INT TERM HUP; ({do}) && echo done && cat >/dev/null; {undo}"]
        keeper = self.start(words, user="root", node=node)
        try:
            assert keeper.stdout is not None and keeper.stdout.readline() == "done\n", do
            yield
        finally:
            done = self.finish(keeper, 30)
        assert done.returncode == 0, f"not undone: {undo}: {done.stderr}"

    def note(self, argv: str | Sequence[str], done: Done, seconds: float) -> None:
        """Keep what a command said."""
        words = argv if isinstance(argv, str) else shlex.join(argv)
        said = "".join(f"\n  {name}| {line}" for name, text in (("out", done.stdout), ("err", done.stderr))
                       for line in text[-3000:].splitlines()[-40:])
        self.history.append(f"{words[:400]} -> {done.returncode} ({seconds:.1f} s){said}")

    def root(self, node: str, path: str) -> Path:
        """Return a file of a node as a path of this machine."""
        return Path(f"/proc/{(STATE / 'run' / node).read_text().split()[0]}/root/{path.lstrip('/')}")

    def processes(self, pattern: str, node: str | None = None) -> list[Process]:
        """Return the processes of the box whose command line matches a regular expression."""
        done = subprocess.run([ROOT / "tests/box", "ps"], capture_output=True, text=True, check=True)
        fields = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
        found = [Process(words[0], int(words[1]), read_command(int(words[1])) or words[2]) for words in fields
                 if len(words) == 3 and words[1].isdigit()]  # not the further lines of a command
        return [one for one in found if re.search(pattern, one.words) and node in (None, one.node)]

    def qemus(self, job: int) -> dict[str, Process]:
        """Return the QEMU of each VM of a job."""
        found = self.processes(rf"qemu-system\S* .*guest=job{job}-")
        return {re.search(r"guest=job\d+-(vm\d+)", one.words).group(1): one for one in found}  # type: ignore[union-attr]

    def kill(self, process: Process, number: int) -> None:
        """Send a signal."""
        self.history.append(f"signal {number} to {process}")
        os.kill(process.pid, number)

    def jobs(self, states: str = LIVE, name: str = JOB_NAME) -> list[int]:
        """Return the tests' jobs that are in one of these states."""
        named = ["-n", name] if name else []
        lines = self.out(["squeue", "-h", *named, "-t", states, "-o", "%A"], user="root").split()
        return [int(line) for line in lines]

    def job_count(self) -> int:
        """Return the number of the next job: it grows with each that is made."""
        return int(re.search(r"(?m)^NEXT_JOB_ID\s*=\s*(\d+)", self.out("scontrol show config", user="root")).group(1))

    def leftovers(self, job: int) -> list[str]:
        """Return what is still on the nodes of a job."""
        found = [f"{one.node}: {one.words}" for one in self.processes(rf"guest=job{job}-|{job}\.dnsmasq|boot {job}$")]
        for node in NODES:
            for path in (
                f"/run/pcocc/{job}", f"/run/pcocc/.state/{job}.json", f"/run/netns/pcocc-{job}",
                f"/var/lib/pcocc/scratch/pcocc/{job}",
            ):
                found += [f"{node}: {path}"] if os.path.lexists(self.root(node, path)) else []
        return found

    def ensure_released(self, job: int, seconds: float = 30) -> None:
        """Wait until nothing of a job is left on any node."""
        wait_for(lambda: not self.leftovers(job), lambda: f"of job {job} is left: {self.leftovers(job)}", seconds)

    def node_states(self) -> str:
        """Return the states of the nodes, one word each."""
        return self.out(["sinfo", "-h", "-N", "-o", "%T"], user="root")
