"""A group's repository in which Alice works and Bob is another member; and what the code did before it was on its guard
against him.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pcocc_runtime.cli import main as cli
from pcocc_runtime.images import claims, in_use, placing, qemu_img, repository
from pcocc_runtime.system import held, tree_removal
from tests.attack.user import ALICE, BOB
from tests.images import children

GROUP = ALICE + 100_000
PRECIOUS = b"nobody else's\n" * 100


class Moment:
    """Bob, who waits for a certain moment of a command of Alice's, and then does something."""

    def __init__(self, attack: Callable[[], object], root: Path) -> None:
        (self._hears, go), (done, self._tells) = os.pipe(), os.pipe()
        self._go, self._done = go, done

        def wait() -> int:
            os.chdir(root)
            while os.read(self._hears, 1) == b"!":
                with contextlib.suppress(OSError):  # what he is not allowed to do is not done
                    attack()
                os.write(self._tells, b"!")
            return 0

        self._bob = children.start_as(BOB, wait, root.parent / "bob", [GROUP])

    def now(self) -> None:
        """Let Bob act."""
        os.write(self._go, b"!")
        assert os.read(self._done, 1) == b"!"

    def end(self) -> None:
        """End Bob's process; AssertionError if he himself failed."""
        os.write(self._go, b"?")
        assert children.wait(self._bob) == 0


class Ours(NamedTuple):
    """A directory with the group's repository, and with Alice's home, which only she may enter."""

    directory: Path
    root: Path
    home: Path

    @property
    def precious(self) -> Path:
        """Return a file of Alice's."""
        return self.home / "precious"

    def alice(self, *argv: str) -> tuple[int, str]:
        """Run `pcocc image` as Alice; return its exit status and what it said."""
        out = self.directory / "alice"

        def run() -> int:
            os.environ["HOME"] = str(self.home)
            os.chdir(self.home)
            return cli.main(["image", *argv])

        status = children.wait(children.start_as(ALICE, run, out, [GROUP]))
        assert status in (0, 1), out.read_text()
        return status, out.read_text()

    def bob(self, attack: Callable[[], object]) -> None:
        """Have Bob do something in the repository beforehand."""

        def run() -> int:
            os.chdir(self.root)
            attack()
            return 0

        assert children.wait(children.start_as(BOB, run, self.directory / "bob", [GROUP])) == 0, (
            self.directory / "bob"
        ).read_text()


def work() -> Path:
    """Return Alice's work directory, seen from the repository."""
    (found,) = (
        path
        for path in Path(".tmp").iterdir()
        if path.name.startswith(".work-") and path.suffix not in (".lock", ".note")
    )
    return found


def plant(name: str, target: Path) -> Callable[[], None]:
    """Return how to put a link into Alice's work directory, in the place of what is there."""

    def attack() -> None:
        path = work() / name
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    return attack


def swap(name: str, target: Path) -> Callable[[], None]:
    """Return how to put another directory, with a link in it, in the place of Alice's."""

    def attack() -> None:
        path = work()
        path.rename(path.with_name("away"))
        path.mkdir()
        path.chmod(0o777)
        (path / name).symlink_to(target)

    return attack


def _recall(path: Path) -> bool:
    try:
        path.chmod(in_use.stat.S_IMODE(path.stat().st_mode))
    except OSError:
        return False
    return True


def _refresh(directory: Path) -> float:
    probe = directory / ".probe"
    probe.touch(0o600)
    changed = probe.stat().st_ctime
    probe.unlink()
    return changed


def disarm(patch: pytest.MonkeyPatch) -> None:
    """Take the defences away: the group may write to directories, and paths are trusted."""

    @contextlib.contextmanager
    def hold(path: Path) -> Iterator[Path]:
        yield Path(path)

    @contextlib.contextmanager
    def hold_below(parent: Path, name: str, *, links: bool = True) -> Iterator[Path]:
        os.stat(parent / name)
        yield parent / name

    @contextlib.contextmanager
    def make(parent: Path, name: str, lock: int, private: bool) -> Iterator[Path]:
        placing.make_like(parent / name, parent)
        yield parent / name

    def create(path: Path, data: bytes, mode: int) -> None:
        path.write_bytes(data)
        path.chmod(mode)

    def convert(image: str, form: str, target: Path, *_rest: Any, **_more: Any) -> None:
        qemu_img._run(["qemu-img", "convert", "-O", form, image, str(target)])

    for module, name, old in (
        (held, "hold", hold), (held, "hold_below", hold_below), (held, "create_file", create), (claims, "_make", make),
        (claims, "_empty", tree_removal.remove_tree), (in_use, "recall", _recall), (repository, "_refresh", _refresh),
        (qemu_img, "convert", convert),
    ):  # fmt: skip
        patch.setattr(module, name, old)


def at(patch: pytest.MonkeyPatch, place: Any, name: str, moment: Moment) -> None:
    """Let Bob act when Alice's command comes to a function, the first time."""
    original, left = getattr(place, name), [True]

    def act(*arguments: Any, **more: Any) -> Any:
        if left.pop() if left else False:
            moment.now()
        return original(*arguments, **more)

    patch.setattr(place, name, act)
