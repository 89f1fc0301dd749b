"""Each parser of foreign bytes accepts or refuses whatever it is given: some thousands of inputs here, a million by `make
fuzz`.
"""

import pytest

from tests.fuzz.engine import Found, Target, fuzz, make_input
from tests.fuzz.targets import TARGETS

SEED = 1


@pytest.mark.parametrize("name", TARGETS)
def test_it_neither_fails_nor_hangs(name: str) -> None:
    target = TARGETS[name]
    fuzz(target, SEED, range(target.few))


@pytest.mark.parametrize("name", TARGETS)
def test_it_takes_its_samples(name: str) -> None:
    """A target that refused every input would test nothing."""
    target = TARGETS[name]
    taken = 0
    for sample in target.samples:
        try:
            target.run(sample)
            taken += 1
        except target.refuses:
            pass
    assert taken


def test_what_it_finds_can_be_made_again() -> None:
    def run(data: bytes) -> None:
        if b"b" in data:
            raise KeyError("b")

    target = Target("made up", (b"aaaa", b"ccc"), run)
    with pytest.raises(Found, match=r"made up: input \d+ of seed 1: KeyError: 'b'") as caught:
        fuzz(target, SEED, range(100000))
    index = int(str(caught.value).split()[3])
    assert b"b" in make_input(target, SEED, index) and make_input(target, 2, index) != make_input(target, SEED, index)
