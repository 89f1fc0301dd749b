"""Programs that may run for long: watched, or as filters, and never longer than this process."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from pcocc_runtime.errors import NodeError
from pcocc_runtime.system import held
from pcocc_runtime.system.drop import die_with_parent
from pcocc_runtime.system.process import explain_start

MAX_SAID = 50  # lines kept of what a long-running program says


def run_watched(
    argv: Sequence[str], watch: Callable[[str], bool] = lambda line: False, hint: str | None = None
) -> tuple[int, list[str]]:
    """Run a program of any length, which dies with this process; return its exit status and its first lines of output.

    A carriage return ends a line, too. Lines for which `watch` returns True are not kept. The program gets the
    held directories (system/held.py) that its arguments name.
    """
    try:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,
            pass_fds=held.descriptors(*argv),
        )  # fmt: skip
    except OSError as error:
        raise explain_start(argv, error, hint) from None
    said: list[str] = []
    try:
        assert child.stdout is not None
        rest = b""
        while data := os.read(child.stdout.fileno(), 1 << 16):
            *lines, rest = re.split(rb"[\r\n]", rest + data)
            for line in (raw.decode(errors="replace").strip() for raw in lines):
                if line and not watch(line) and len(said) < MAX_SAID:
                    said.append(line)
            rest = rest[-4096:]
        if rest.strip() and not watch(rest.decode(errors="replace").strip()):
            said.append(rest.decode(errors="replace").strip())
        return child.wait(), said
    finally:
        child.kill()
        child.wait()
        if child.stdout:
            child.stdout.close()


@contextmanager
def open_filter(argv: Sequence[str], source: IO[bytes], hint: str) -> Iterator[IO[bytes]]:
    """Yield the output of a program that reads `source`; NodeError at the end of the block if the program failed.

    The program is killed when the block ends with an error, and with this process.
    """
    try:
        child = subprocess.Popen(
            argv, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=die_with_parent
        )
    except OSError as error:
        raise explain_start(argv, error, hint) from None
    with child:
        assert child.stdout and child.stderr
        try:
            yield child.stdout
            child.stdout.close()
            said = child.stderr.read(4096).decode(errors="replace").strip()
        except BaseException:  # of the caller, too: the program does not outlive it
            child.kill()
            raise
    if child.returncode:
        raise NodeError(f"{argv[0]} failed: {said or f'exit status {child.returncode}'}", hint=hint)
