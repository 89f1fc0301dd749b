"""The root directory of a release: made by mmdebstrap, and kept until its ingredients change."""

from __future__ import annotations

import hashlib
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from typing import TextIO

from .outside import read_apt_options, read_mirror
from .suites import INSIDE, KEPT, ROOT, Place, ReleaseError, RootError, Suite, say

_MAKERS = ("tests/packages", "tests/prepare")
NEW = "new"
_STEPS = ("I: downloading packages", "I: installing", "installing Debian packages:")


def ensure_root(suite: Suite, place: Place, fresh: bool, argv: Sequence[str] = ()) -> None:
    """Make the root, by mmdebstrap's `argv` if that is given, unless there is one of the same ingredients.

    RootError when the release cannot be had.
    """
    argv = argv or render_argv(suite, read_mirror(), read_apt_options())
    ensure_made(suite.name, place, argv, _digest(argv), fresh)


def ensure_made(name: str, place: Place, argv: Sequence[str], wanted: str, fresh: bool) -> bool:
    """Run mmdebstrap, which makes `new` in the place, unless its root is of these ingredients; return whether it ran."""
    made = place.record.read_text() if place.record.exists() else None
    if made == wanted and not fresh:
        days = (time.time() - place.record.stat().st_mtime) / 86400
        say(f"{name}: its root is {days:.0f} days old (--fresh makes it anew)" if days >= 1 else f"{name}: its root is there")
        return False
    remove_root(place)
    why = "there is none" if made is None else "it is to be fresh" if made == wanted else "what makes it has changed"
    say(f"{name}: making its root, 2 to 5 minutes: {why}")
    start = time.monotonic()
    _make(name, place, argv)
    (place.path / NEW).rename(place.root)
    place.record.write_text(wanted)
    say(f"{name}: made its root anew in {time.monotonic() - start:.0f} s")
    return True


def render_argv(suite: Suite, mirror: str, apt_options: Sequence[str]) -> list[str]:
    """Return the command that makes the root as `new` in the current directory."""
    sources = "\n".join(f"deb {mirror} {name} main" for name in (suite.name, *suite.also))
    pins = f'printf %s {shlex.quote(suite.pins)} >"$1/etc/apt/preferences.d/release"'
    copies = (
        f'mkdir -p "$1{INSIDE}/tests" "$1{KEPT}" && cp {shlex.join(str(ROOT / path) for path in _MAKERS)}'
        f' "$1{INSIDE}/tests/"'
    )
    packages = f'chroot "$1" {INSIDE}/tests/prepare --packages && chroot "$1" apt-get clean'
    group = 'chroot "$1" groupadd --system --force kvm'  # udev makes it, and there is none
    aptopts = ['APT::Install-Recommends "false"', 'Acquire::Languages "none"', *apt_options]
    dpkgopts = ["path-exclude=/usr/share/doc/*", "path-exclude=/usr/share/locale/*", "force-unsafe-io"]
    return [
        "mmdebstrap",
        "--mode=root",
        "--variant=apt",
        *(f"--aptopt={option}" for option in aptopts),
        *(f"--dpkgopt={option}" for option in dpkgopts),
        f"--essential-hook={pins}",
        *(f"--customize-hook={hook}" for hook in (copies, packages, group)),
        "--skip=check/empty,cleanup/apt",  # guests are made of packages: apt's lists stay
        suite.name,
        NEW,
        sources,
    ]


def _digest(argv: Sequence[str]) -> str:
    texts = [*argv, *(ROOT.joinpath(path).read_text() for path in _MAKERS)]
    return hashlib.sha256("\0".join(text.replace(str(ROOT), "") for text in texts).encode()).hexdigest()


def _make(name: str, place: Place, argv: Sequence[str]) -> None:
    """Run mmdebstrap in namespaces of its own: what it mounts and starts ends with it, and it with this process."""
    if shutil.which("mmdebstrap") is None:
        raise ReleaseError("there is no mmdebstrap on this machine: run tests/prepare")
    alone = [
        "setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
        "--propagation=private",
    ]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with place.log.open("w") as log, subprocess.Popen([*alone, *argv], cwd=place.path, text=True, **pipes) as making:
        try:
            wrong = _follow(name, making.stdout or (), log)
        except BaseException:  # also an interrupt: it is not left behind
            making.kill()
            raise
    if making.returncode:
        raise RootError(f"the root of {name} cannot be made: {wrong or 'mmdebstrap failed'}; see {place.log}")


def _follow(name: str, lines: Iterable[str], log: TextIO) -> str:
    """Log what mmdebstrap says, and print its longer steps; return the first thing that went wrong."""
    wrong = ""
    for line in lines:
        log.write(line)
        log.flush()
        wrong = wrong or (line.removeprefix("E: ").strip() if line.startswith("E: ") else "")
        if line.startswith(_STEPS):
            step, _colon, _names = line.removeprefix("I: ").partition(":")
            say(f"{name}: {step.strip().rstrip('.')}")
    return wrong


def remove_root(place: Place) -> None:
    """Remove the root, and what is left of one that was not finished."""
    place.record.unlink(missing_ok=True)
    for path in (place.root, place.path / NEW):
        if path.exists():
            subprocess.run(["rm", "-rf", "--one-file-system", path], check=True)
