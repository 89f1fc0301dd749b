"""Bash completion in a real bash: its functions called as readline calls them, and Tab pressed on a terminal."""

import argparse
import os
import pty
import re
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pcocc_runtime.cli import main as cli
from pcocc_runtime.documents import wire_steps
from tests.unit.fake_site import write_images, write_site
from tests.waiting import limit

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).resolve().parents[3]
COMPLETION = ROOT / "etc/bash-completion/pcocc"
BASH_COMPLETION = Path("/usr/share/bash-completion/bash_completion")
SITE = "debian: {}\ndebian-big: {}\ngpu: {}\n"
# of one job, 12, whose boot step has two tasks
SQUEUE = """#!/bin/sh
for word; do case $word in --format=*) format=${word#--format=} ;; --steps) steps=yes ;; esac; done
if [ "$steps" ]; then echo "$format" | sed 's/%i/12.0/; s/%A/2/; s/%N/n1/; s/%j/pcocc-vms/'
else echo "$format" | sed 's/%A/12/; s/%i/12/; s/%u/alice/; s/%P/main/; s/%M/1:00/; s/%j/job/'; fi
"""

Offer = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a shell that finds a pcocc with templates of ours."""
    directory = tmp_path_factory.mktemp("completion")
    site = write_site(directory / "etc", templates=SITE)
    program = directory / "bin/pcocc"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom pcocc_runtime.cli.main import main\n"
        "from pcocc_runtime.settings import directories\n"
        f"directories.site_dir = lambda environ, uid: {str(site)!r}\nsys.exit(main())\n"
    )
    program.chmod(0o755)
    squeue = program.parent / "squeue"
    squeue.write_text(SQUEUE)
    squeue.chmod(0o755)
    (directory / "file.one").touch()
    write_images(directory / ".pcocc/images", "alma", "alpine")
    (directory / ".pcocc/repos.yaml").write_text(
        "repos: [{name: work, path: ~/.pcocc/images}, {name: private, path: ~/private}]\n"
    )
    (directory / "gpu").mkdir()
    return {"PATH": f"{program.parent}:/usr/bin:/bin", "HOME": str(directory), "TERM": "dumb"}


@pytest.fixture
def offer(environ: dict[str, str]) -> Offer:
    """Return what is offered for a line, as a function; bash replaces what follows the last blank, '=' or ':'."""

    def run(line: str, before: str = "") -> list[str]:
        function = "_pcocc" if line.startswith("pcocc") else "_pcocc_slurm"
        words, last = line.split(), re.split(r"[\s=:]", line)[-1]
        script = (
            f"{before}\nsource {COMPLETION}; COMP_LINE={shlex.quote(line)}; COMP_POINT=${{#COMP_LINE}}\n"
            f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD=${{#COMP_WORDS[@]}}\n"
            f"{function} {words[0]} {shlex.quote(last)}\n"
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ["bash", "--norc", "--noprofile", "-c", script],
            env=environ, cwd=environ["HOME"], capture_output=True, text=True, check=True, timeout=limit(60),
        )  # fmt: skip
        assert done.stderr == ""
        return sorted(done.stdout.split())

    return run


def nodes(parser: argparse.ArgumentParser, path: str = "pcocc") -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield (command, its subcommands, its long options) of a parser and of all below it."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    choices = groups[0].choices if groups else {}
    options = [word for action in parser._actions for word in action.option_strings if word.startswith("--")]
    yield path, sorted(choices), sorted(options)
    for name, one in choices.items():
        yield from nodes(one, f"{path} {name}")


COMMANDS = list(nodes(cli._parser()))


@pytest.mark.parametrize(("path", "commands", "options"), COMMANDS, ids=[path for path, _commands, _options in COMMANDS])
def test_every_command_and_option_is_offered(path: str, commands: list[str], options: list[str], offer: Offer) -> None:
    assert offer(f"{path} --") == options
    if commands:
        assert offer(f"{path} ") == commands


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("pcocc te", ["template"]),
        ("pcocc nonsense ", sorted(COMMANDS[0][1])),
        ("pcocc image show a", ["alma", "alpine"]),
        ("pcocc image export alma ", []),
        ("pcocc image list --repo ", ["private", "work"]),
        ("pcocc image list -R w", ["work"]),
        ("pcocc image verify --repo=pr", ["private"]),
        ("pcocc image repo gc ", ["private", "work"]),
        ("pcocc image repo gc work ", []),
        ("pcocc image import fi", ["file.one"]),
        ("pcocc template show ", ["alma", "alpine", "debian", "debian-big", "gpu"]),
        ("pcocc template show deb", ["debian", "debian-big"]),
        ("pcocc template show --json d", ["debian", "debian-big"]),
        ("pcocc template show debian ", []),
        ("pcocc template list ", []),
        ("pcocc config policy -o fi", ["file.one"]),
        ("pcocc config policy --output=fi", ["file.one"]),
        ("pcocc ssh ", ["vm0.12", "vm1.12"]),
        ("pcocc log -f vm1", ["vm1.12"]),
        ("pcocc scp fi", ["file.one"]),
        ("pcocc scp file.one vm0", ["vm0.12:"]),
        ("pcocc power off ", ["vm0.12", "vm1.12"]),
        ("pcocc reset -j ", ["12"]),
        ("pcocc reset --job=1", ["12"]),
        ("srun --pcocc-template=", ["alma", "alpine", "debian", "debian-big", "gpu"]),
        ("srun --pcocc-template=d", ["debian", "debian-big"]),
        ("sbatch --pcocc-template=debian,g", ["debian,gpu"]),
        ("sbatch --pcocc-template=debian:2,g", ["2,gpu"]),
        ("salloc -N1 --pcocc-template g", ["gpu"]),
        ("srun --pcocc-template=nonsense", []),
        ("srun --pcocc-image=debian=fi", ["file.one"]),
        ("srun --pcocc-image fi", ["file.one"]),
        ("srun --pcocc-image=al", ["alma", "alpine"]),
        ("srun --pcocc-image=debian=alm", ["alma"]),
        ("srun --pcocc-image=./al", []),
        ("srun --pcocc-mount=data=bi", ["bin"]),
        ("srun --pcocc-user-data=fi", ["file.one"]),
        ("srun --pcocc-vm=v", []),
        ("srun --pcocc-vm fi", []),
    ],
)
def test_a_line_is_completed(line: str, offered: list[str], offer: Offer) -> None:
    assert offer(line) == offered


def test_without_pcocc_nothing_is_offered_or_said(environ: dict[str, str], offer: Offer) -> None:
    environ["PATH"], path = "/usr/bin:/bin", environ["PATH"]
    try:
        assert offer("srun --pcocc-template=") == []
    finally:
        environ["PATH"] = path


@pytest.mark.parametrize("tool", ["srun", "sbatch", "salloc"])
def test_every_option_of_the_plugin_is_offered(tool: str, offer: Offer) -> None:
    options = {value for name, value in vars(wire_steps).items() if name.startswith("OPTION_")}
    wanted = {f"--{name}" for name in options - {wire_steps.OPTION_BOOT}}
    offered = offer(f"{tool} --")
    assert {word.removesuffix("=") for word in offered} == wanted
    bare = {word for word in offered if not word.endswith("=")}
    assert bare == {"--pcocc-vm", "--no-pcocc-vm", "--pcocc-user-data-force"}, "the others need a value"


THEIRS = "_srun() { COMPREPLY=(--partition= --pcocc-vm); cur=theirs; }; complete -o nosort -F _srun srun; "


def test_what_completed_a_command_before_still_does(offer: Offer) -> None:
    assert offer("srun --p", THEIRS) == ["--partition=", *(word for word in offer("srun --p"))]
    assert offer("srun ./pro", THEIRS) == ["--partition=", "--pcocc-vm"]
    assert offer("srun --pcocc-template=g", THEIRS) == ["gpu"]


def test_a_command_keeps_its_way_of_completion(environ: dict[str, str]) -> None:
    script = f"{THEIRS} source {COMPLETION}; source {COMPLETION}; complete -p srun salloc; echo ${{_pcocc_own[srun]}}"
    done = subprocess.run(["bash", "-c", script], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "complete -o nosort -F _pcocc_slurm srun", "complete -o bashdefault -o default -F _pcocc_slurm salloc", "_srun",
    ]  # fmt: skip


class Terminal:
    """An interactive bash on a pseudo-terminal; Ctrl-O shows its line as it is."""

    def __init__(self, environ: dict[str, str], *sources: Path) -> None:
        rc = Path(environ["HOME"], f"rc{len(sources)}")
        rc.write_text(
            "bind 'set bell-style none'; bind 'set enable-bracketed-paste off'\n"
            + "".join(f"source {path}\n" for path in sources)
            + 'bind -x \'"\\C-o":printf "\\nLINE=<%s>\\n" "$READLINE_LINE"\'\n'
        )
        self.fd, end = pty.openpty()
        self.process = subprocess.Popen(
            ["bash", "--noprofile", "--rcfile", str(rc), "-i"], stdin=end, stdout=end, stderr=end,
            env=environ, cwd=environ["HOME"], start_new_session=True,
        )  # fmt: skip
        os.close(end)

    def press(self, line: str) -> str:
        """Type a line and Tab; return the line that bash made of it."""
        os.write(self.fd, f"\x15{line}\t\x0f".encode())
        seen, deadline = "", time.monotonic() + limit(60)
        while not (match := re.search(r"LINE=<(.*)>\r\n", seen)):
            assert select.select([self.fd], [], [], deadline - time.monotonic())[0], seen
            seen += os.read(self.fd, 4096).decode()
        return match[1]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.fd)


@pytest.fixture(scope="module")
def terminals(environ: dict[str, str]) -> Iterator[tuple[Terminal, Terminal]]:
    """A shell with bash-completion and our file, and one without our file."""
    both = Terminal(environ, BASH_COMPLETION, COMPLETION), Terminal(environ, BASH_COMPLETION)
    yield both
    for one in both:
        one.close()


@pytest.mark.parametrize(
    ("typed", "made"),
    [
        ("pcocc temp", "pcocc template "),
        ("pcocc template show g", "pcocc template show gpu "),
        ("pcocc config policy --output=fi", "pcocc config policy --output=file.one "),
        ("srun --pcocc-t", "srun --pcocc-template="),
        ("sbatch --pcocc-t", "sbatch --pcocc-template="),
        ("salloc --no-pc", "salloc --no-pcocc-vm "),
        ("srun --pcocc-template=", "srun --pcocc-template="),
        ("srun --pcocc-template=g", "srun --pcocc-template=gpu"),
        ("sbatch --pcocc-template=g", "sbatch --pcocc-template=gpu"),
        ("sbatch --pcocc-template=gpu:2,deb", "sbatch --pcocc-template=gpu:2,debian"),
        ("salloc --pcocc-template de", "salloc --pcocc-template debian"),
        ("sbatch --pcocc-image=gpu=fi", "sbatch --pcocc-image=gpu=file.one "),
        ("sbatch --pcocc-mount=data=bi", "sbatch --pcocc-mount=data=bin/"),
    ],
)
def test_tab_completes_our_words(typed: str, made: str, terminals: tuple[Terminal, Terminal]) -> None:
    assert terminals[0].press(typed) == made


@pytest.mark.parametrize("tool", ["srun", "sbatch", "salloc"])
@pytest.mark.parametrize("rest", ["--partit", "--nta", "--mail-type=FA", "--hint=mem", "fi", "--exclus", "-N1 --no-k"])
def test_tab_completes_slurms_words_as_without_us(tool: str, rest: str, terminals: tuple[Terminal, Terminal]) -> None:
    ours, theirs = (terminal.press(f"{tool} {rest}") for terminal in terminals)
    assert ours == theirs


def test_bash_completion_finds_the_installed_file(environ: dict[str, str], tmp_path: Path) -> None:
    directory = tmp_path / "bash-completion/completions"
    directory.mkdir(parents=True)
    (directory / "pcocc").symlink_to(COMPLETION)
    terminal = Terminal({**environ, "HOME": str(tmp_path), "XDG_DATA_DIRS": f"{tmp_path}:/usr/share"}, BASH_COMPLETION)
    try:
        assert terminal.press("pcocc template show g") == "pcocc template show gpu "
    finally:
        terminal.close()


def test_slurms_own_completion_is_there_to_be_compared(terminals: tuple[Terminal, Terminal]) -> None:
    assert terminals[1].press("srun --hint=mem") == "srun --hint=memory_bound "


def test_the_prefix_is_put_into_the_installed_file() -> None:
    assert COMPLETION.read_text().count("/opt/pcocc") == 1
    assert "'etc/bash-completion/pcocc'" in (ROOT / "meson.build").read_text()
