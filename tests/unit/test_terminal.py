"""What `pcocc` does when its output is closed, full or of another encoding, at Ctrl-C, and when it is wrong itself; its
progress line."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from pcocc_runtime import terminal
from tests.unit.fake_site import write_images
from tests.waiting import limit

ROOT = Path(__file__).resolve().parents[2]
COMMAND = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pcocc_runtime.cli import common, main as cli; "


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The environment of a user with a template and two images."""
    (tmp_path / ".pcocc").mkdir()
    (tmp_path / ".pcocc/templates.yaml").write_text(
        "mine: {description: prix € naïve, user-data: {a: 2020-01-01, b: !!binary aGk=}}\n"
    )
    write_images(tmp_path / ".pcocc/images", "alma", "alpine")
    return {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}


def run(environ: dict[str, str], line: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """Run a line of shell in which $p is pcocc."""
    script = f"p() {{ {sys.executable} -c \"$CODE\" \"$@\"; }}\n{line}"
    env = {**environ, "CODE": f"{COMMAND}{code}sys.exit(cli.main())"}
    return subprocess.run(
        ["bash", "-c", script], env=env, cwd=environ["HOME"], capture_output=True, text=True, check=False,
        timeout=limit(60),
    )


FULL = "pcocc: error: standard output cannot be written: No space left on device\n"


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("p template list >&-", 0, ""),
        ("p template list >/dev/full", 1, FULL),
        ("p template list >/dev/full 2>/dev/full", 1, ""),
        ("p template list >/dev/full 2>&-", 1, ""),
        ("p template show nope 2>/dev/full", 1, ""),
        ("p template show nope 2>&-", 1, ""),
        ("p nonsense 2>/dev/full", 2, ""),
        ("p image list >/dev/full", 1, FULL),
        ("p image --help >/dev/full", 1, FULL),
        ("p image copy alma new 2>&- >/dev/full", 1, ""),
    ],
)
def test_output_that_goes_nowhere_is_one_sentence(environ: dict[str, str], line: str, status: int, said: str) -> None:
    done = run(environ, line)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", said)


@pytest.mark.parametrize("words", ["template list", "image list", "image repo list", "image --help", "--version"])
def test_a_reader_that_has_gone_is_no_error(environ: dict[str, str], words: str) -> None:
    """It goes before anything is written: the FIFO that is read first ends with it."""
    done = run(
        environ,
        f"mkfifo gone; {{ read -r _ <gone; p {words}; echo ${{PIPESTATUS[0]}} >status; }} | {{ exec <&-; echo >gone;"
        " }; cat status",
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_characters_that_the_locale_lacks_are_escaped(environ: dict[str, str]) -> None:
    done = run({**environ, "PYTHONIOENCODING": "ascii"}, "p template list")
    assert (done.returncode, done.stderr) == (0, "") and r"prix \u20ac na\xefve" in done.stdout


def test_a_file_whose_name_is_no_text_can_be_shown(environ: dict[str, str]) -> None:
    directory = Path(environ["HOME"], ".pcocc/templates.d")
    directory.mkdir()
    Path(os.fsdecode(os.fsencode(directory) + b"/\xff.yaml")).write_text("odd: {}\n")
    done = run(environ, "p template show odd")
    assert done.returncode == 0 and f"template odd, defined in {directory}/?.yaml:1\n" in done.stdout


def test_what_json_lacks_is_text(environ: dict[str, str]) -> None:
    for line in ("p template list --json", "p template show mine --json"):
        tree = json.loads(run(environ, line).stdout)
        one = tree[0] if isinstance(tree, list) else tree
        assert one["settings"]["user-data"]["value"] == {"a": "2020-01-01", "b": "aGk="}


def test_a_fault_of_ours_is_one_sentence(environ: dict[str, str]) -> None:
    broken = "common.load_site_and_templates = lambda *_: 1 / 0; "
    done = run(environ, "p template list", broken)
    assert (done.returncode, done.stderr.splitlines()) == (1, [
        "pcocc: error: this is a bug in pcocc: ZeroDivisionError: division by zero",
        "hint: please report it, with what the command prints after 'export PCOCC_DEBUG=1'",
    ])  # fmt: skip
    assert "Traceback" in run({**environ, "PCOCC_DEBUG": "1"}, "p template list", broken).stderr


@pytest.mark.parametrize("words", ["template check", "image import disk.qcow2 new", "image export alma disk.qcow2"])
def test_a_working_directory_that_is_gone_is_told(environ: dict[str, str], words: str) -> None:
    done = run(
        environ, f"mkdir gone; cd gone; rmdir ../gone; p {words}",
        "from pcocc_runtime.images import images; images.ensure_disk = print; ",
    )
    assert done.returncode == 1 and done.stderr.splitlines()[-2:] == [
        "pcocc: error: the working directory is gone: No such file or directory",
        "hint: change to another one, such as with: cd",
    ]


def test_ctrl_c_ends_a_command_while_it_starts(tmp_path: Path) -> None:
    (tmp_path / "pcocc_runtime/cli").mkdir(parents=True)
    (tmp_path / "pcocc_runtime/cli/main.py").write_text(
        "import sys, signal\nsys.stdout.write('x')\nsys.stdout.flush()\nsignal.pause()\n"
    )
    program = tmp_path / "pcocc"
    program.write_text((ROOT / "libexec/pcocc.in").read_text().replace("@path@", str(tmp_path)).replace("@libraries@", ""))
    hears = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # these tests may run in the background, where it is ignored
    words, pipe = [sys.executable, "-IS", program], subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, preexec_fn=hears) as child:
        assert child.stdout and child.stdout.read(1) == "x"
        child.send_signal(signal.SIGINT)
        assert (child.communicate(timeout=limit(60))[1], child.returncode) == ("", -signal.SIGINT)


def test_ctrl_c_lets_a_command_clean_up(environ: dict[str, str]) -> None:
    start = "import os, signal; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    interrupt = "common.load_site_and_templates = lambda *_: os.kill(os.getpid(), signal.SIGINT); "
    done = run(environ, "p template list", start + interrupt)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


class Clock:
    """A clock that goes on when it is told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    one = Clock()
    monkeypatch.setattr("time.monotonic", one)
    return one


def test_a_line_is_rewritten_on_a_terminal(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    line = terminal.ProgressLine()
    line.show("1 started")
    line.clear()
    assert capsys.readouterr().err == "" and not line.shown  # two seconds pass in silence
    clock.now += 2
    line.show("2 started", "booting")
    line.show("3 started")  # too soon to be read
    clock.now += 0.25
    line.show("x\033[2J" + "x" * 1000)
    line.clear()
    assert capsys.readouterr().err.replace("x?[2J", "xxxxx") == f"\r\033[K2 started\r\033[K{'x' * 200}\r\033[K" and line.shown


@pytest.mark.parametrize(("repeat", "times"), [(None, 1), (30.0, 2)])
def test_a_line_is_said_once_elsewhere_or_now_and_then(
    clock: Clock, capsys: pytest.CaptureFixture[str], repeat: float | None, times: int
) -> None:
    line = terminal.ProgressLine(repeat)
    clock.now += 2
    for _ in range(5):
        assert line.is_due() or line.shown
        line.show("1 started", "booting")
        clock.now += 10
    line.clear()
    assert capsys.readouterr().err == "pcocc: booting\n" * times


def test_a_note_does_not_stand_on_the_line_of_progress(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with terminal.Meter() as meter:
        meter.begin("copying")(0, 0)
        meter.note("the guest runs no agent")
    assert capsys.readouterr().err.startswith("\r\033[Kcopying ...\r\033[Kpcocc: note: the guest runs no agent\n")
