"""Random sequences of what people do with images, with some commands killed: every revision that should be there can be read."""

import random
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pcocc_runtime.cli import main as cli
from pcocc_runtime.images import images
from pcocc_runtime.images.images import Found
from pcocc_runtime.images.references import Repo
from tests.images import children
from tests.images.disks import Ran, content, leftovers, listing, make_disk, save

Pcocc = Callable[..., Ran]


class Model:
    """What the repositories should hold, and the next thing somebody does to them."""

    def __init__(self, seed: int, every: list[Repo], pcocc: Pcocc, directory: Path) -> None:
        self.dice = random.Random(seed)
        self.every, self.pcocc, self.directory = every, pcocc, directory
        self.known: dict[str, str] = {}

    def found(self) -> list[Found]:
        every = images.read_images(self.every, problems := [])
        assert problems == []
        return every

    def contents(self) -> dict[str, str]:
        return {one.reference: content(one.path) for one in self.found()}

    def choose(self) -> tuple[str, list[str]]:
        """Return a step: '' for a save, else the words of a command; and the revisions it may delete."""
        every = self.found()
        name = f"{self.dice.choice(['user', 'site'])}:n{self.dice.randrange(4)}"
        if not every or self.dice.random() < 0.2:
            return f"import --update {self.dice.randrange(3)}.qcow2 {name}", []
        one = self.dice.choice(every)
        kind = self.dice.choice(["copy", "resize", "delete", "delete", "gc", "save", "save"])
        whole = f"{one.repo.name}:{one.revision.name}"
        if kind == "delete":
            reference = self.dice.choice([whole, one.reference])
            return f"delete {reference}", [key for key in self.known if key == reference or key.startswith(f"{reference}@")]
        if kind == "copy":
            return f"copy {one.reference} {name}", []
        if kind == "resize":
            return f"resize {one.reference} +1M", []
        return (f"repo gc {one.repo.name} --grace 0" if kind == "gc" else f"save {one.reference}"), []

    def do(self, argv: Sequence[str]) -> int:
        """Run `pcocc image`, or do what `pcocc save` does to a repository."""
        if argv[1] != "save":
            return cli.main(argv)
        parent = next(one for one in self.found() if one.reference == argv[2])
        if len(parent.revision.layers) == 16:
            return 1
        save(parent.repo, parent.revision.name, parent, self.dice.randrange(1, 99))
        return 0

    def step(self) -> None:
        """Do one step, or have it killed on the way; compare what is there with what should be."""
        words, doomed = self.choose()
        argv = words.split()
        step = self.dice.randrange(60) if self.dice.random() < 0.3 else 9999
        status = children.run_to_step(step, self.directory, "image", *argv, do=self.do)
        killed = status == -signal.SIGKILL
        assert killed or status in (0, 1), words  # 1 is a refusal: the name is taken, or there are too many layers
        now = self.contents()
        must = {key: value for key, value in self.known.items() if key not in doomed}
        assert must.items() <= now.items(), (words, killed)
        if doomed and not killed:
            assert not set(doomed) & set(now), words
        self.known = now


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_lost(pcocc: Pcocc, repo: Repo, other: Repo, tmp_path: Path, seed: int) -> None:
    for number in range(3):
        make_disk(tmp_path / f"{number}.qcow2", seed=number)
    model = Model(seed, [repo, other], pcocc, tmp_path)
    for _ in range(30):
        model.step()
    for one in (repo, other):
        if Path(one.path).exists():
            pcocc("image", "repo", "gc", one.name, "--grace", "0")
            layers = {layer for found in images.read_images([one], []) for layer in found.revision.layers}
            assert {path.rpartition("/")[2] for path in listing(one) if path.startswith("data/")} == layers
            assert leftovers(one) == []
    pcocc("image", "verify")
    assert model.contents() == model.known
