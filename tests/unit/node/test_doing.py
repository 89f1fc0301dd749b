"""The helper's output says what it is doing while it does it; the answer never contains that."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pcocc_runtime.node.doing import doing, exchange


@contextmanager
def output_of_helper() -> Iterator[int]:
    """Put the helper's output, as the plugin makes it, in place of this process's."""
    kept = os.dup(1)
    fd = os.memfd_create("pcocc-helper")
    os.dup2(fd, 1)
    try:
        yield fd
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(fd)


def told(output: int) -> str:
    return os.pread(output, 1000, 0).decode()


def test_the_inmost_is_told() -> None:
    with output_of_helper() as output:
        with doing("making networks"):
            with doing("running nft"):
                assert told(output) == "running nft"
            assert told(output) == "making networks"
        assert told(output) == ""


def test_what_the_planner_has_begun_meanwhile_stays() -> None:
    (hears, says), (listens, answers) = os.pipe(), os.pipe()
    with output_of_helper() as output:
        child = os.fork()
        if child == 0:
            try:
                os.close(says)  # its end is this child's, too
                os.read(hears, 1)
                with doing("looking up names"):
                    os.write(answers, b"!")
                    os.read(hears, 1)  # until it is killed
            finally:
                os._exit(0)
        os.close(answers)
        with doing("taking back"):
            os.write(says, b"!")
            os.read(listens, 1)
        assert told(output) == "looking up names"
        os.kill(child, 9)
        os.waitpid(child, 0)
        exchange(b"")
        assert told(output) == ""
    for fd in (hears, says, listens):
        os.close(fd)


def test_an_answer_follows_from_the_beginning() -> None:
    with output_of_helper() as output:
        with doing("a rather long clause"):
            pass
        os.write(1, b"tap 0 pcn\n")
        assert told(output) == "tap 0 pcn\n"


def test_another_output_is_left_alone(capfd: pytest.CaptureFixture[str]) -> None:
    os.write(1, b"kept\n")
    with doing("nothing"):
        os.write(1, b"this too\n")
    assert capfd.readouterr().out == "kept\nthis too\n"
