"""Mutates samples by a number, so that every input can be made again from its target, seed and index; no input is kept."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SECONDS = 20  # for one input; none takes a hundredth of that, so only an input that hangs is reported
_NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 62, (1 << 63) - 1, (1 << 64) - 1]
_WORDS = [b"", b"\0", b"\n", b"\r\n", b" ", b"\xff", b"\xc3\xa9", b"\xef\xbb\xbf", b"-1", b"9" * 20, b"9" * 5000, b"1e999",
          b"%s", b"../", b"NaN",
          b"[" * 200, b"{" * 200, b"\xf0\x9f\x90\xa7", b"\xed\xa0\x80"]  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A parser of foreign bytes: what it is fed with, and the errors with which it may refuse an input."""

    name: str
    samples: tuple[bytes, ...]
    run: Callable[[bytes], object]
    refuses: tuple[type[Exception], ...] = ()
    words: tuple[bytes, ...] = ()
    few: int = 3000  # inputs that take some seconds
    longest: int = 8192


class Hang(BaseException):
    """An input took longer than SECONDS."""


class Found(Exception):
    """An input that its target neither accepted nor refused."""

    def __init__(self, target: str, seed: int, index: int, data: bytes, error: BaseException) -> None:
        super().__init__(f"{target}: input {index} of seed {seed}: {type(error).__name__}: {error}\n  {data[:2000]!r}")


def make_input(target: Target, seed: int, index: int) -> bytes:
    """Return the input of that number: a sample with some changes."""
    dice = random.Random((seed << 40) + index)
    data = bytearray(dice.choice(target.samples))
    for _ in range(dice.choice((1, 1, 2, 2, 3, 5, 9))):
        _change(data, dice, target)
    return bytes(data[: target.longest])


def _change(data: bytearray, dice: random.Random, target: Target) -> None:
    at = dice.randrange(len(data) + 1)
    end = min(len(data), at + dice.choice((1, 1, 2, 4, 8, 32, 256)))
    kind = dice.randrange(9)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << dice.randrange(8)
    elif kind == 1 and at < len(data):
        data[at] = dice.randrange(256)
    elif kind == 2:
        del data[at:end]
    elif kind == 3:
        data[at:at] = data[at:end] * dice.choice((1, 1, 1, 2, 50))
    elif kind == 4:
        other = dice.choice(target.samples)
        start = dice.randrange(len(other) + 1)
        data[at:end] = other[start : start + dice.choice((4, 32, 256))]
    elif kind == 5:
        del data[at:]
    elif kind == 6:
        size = dice.choice((1, 2, 4, 8))
        data[at : at + size] = (dice.choice(_NUMBERS) & (1 << 8 * size) - 1).to_bytes(size, dice.choice(("big", "little")))
    else:
        word = dice.choice(target.words or tuple(_WORDS)) if kind == 7 else dice.choice(_WORDS)
        data[at : dice.choice((at, end))] = word


@contextmanager
def _watched() -> Iterator[None]:
    """Make whatever hangs raise Hang, also inside C code that handles signals."""

    def stop(_number: int, _frame: object) -> None:
        raise Hang(f"it took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fuzz(target: Target, seed: int, indices: range, note: Callable[[int], None] = lambda _index: None) -> None:
    """Feed a target with inputs; Found for the first that it neither accepts nor refuses.

    `note` is called with each before it is tried.
    """
    with _watched():
        for index in indices:
            data = make_input(target, seed, index)
            note(index)
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            try:
                target.run(data)
            except target.refuses:
                pass
            except (Exception, Hang) as error:
                raise Found(target.name, seed, index, data, error) from error
