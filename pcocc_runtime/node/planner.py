"""Planning without rights: a child of root's helper, which becomes user nobody before it reads the site's files.

Only the child handles YAML, the databases of users and groups, names of hosts, and all texts for nft, ip and
dnsmasq. Root hears its offer, tells it what root holds for the job, and carries out the acts that the child
answers with (documents/work.py).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import sys
from collections.abc import Iterator
from typing import IO

from pcocc_runtime.documents import work
from pcocc_runtime.errors import NodeError, PcoccError
from pcocc_runtime.node import doing
from pcocc_runtime.system import drop


class Planner:
    """The child as its parent sees it: what it says comes line by line."""

    def __init__(self, pid: int, hears: IO[bytes], says: IO[bytes]) -> None:
        self._pid, self._hears, self._says = pid, hears, says

    def hear_offer(self) -> work.Offer:
        """Return what the child offers; raises the error that it ended with instead."""
        return work.decode_offer(self._hears.readline(work.MAX_LINE + 1))

    def hear_work(self, held: work.Held) -> work.Work:
        """Tell the child what root holds for the job, and return what it wants done; raises as above."""
        with contextlib.suppress(BrokenPipeError):  # it has ended: its last line says why
            self._says.write(work.encode_line(held))
            self._says.flush()
        return work.decode_work(self._hears.readline(work.MAX_LINE + 1))

    def close(self) -> None:
        """End the child, wherever it is."""
        self._hears.close()
        with contextlib.suppress(BrokenPipeError):  # closing writes what it has not read
            self._says.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        doing.exchange(b"")  # what it was doing is over: an answer follows


@contextlib.contextmanager
def planning(request: str, confdir: str) -> Iterator[Planner]:
    """Plan what the plugin has asked for in a child without rights, which is gone when the block ends."""
    (hears, says), (below, above) = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(hears)
            os.close(above)
            work_as_nobody(request, confdir, below, says)
            status = 0
        except Exception:  # this process's outermost layer: to slurmd's log
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    os.close(says)
    os.close(below)
    planner = Planner(pid, os.fdopen(hears, "rb"), os.fdopen(above, "wb"))
    try:
        yield planner
    finally:
        planner.close()


def work_as_nobody(request: str, confdir: str, below: int, says: int) -> None:
    """Give all rights up for good, and plan; other processes of nobody's cannot look into this one."""
    nobody = pwd.getpwnam("nobody")
    drop.become(drop.Rights(nobody.pw_uid, nobody.pw_gid))
    os.chdir("/")
    with os.fdopen(below, "rb") as question, os.fdopen(says, "wb") as answer:
        _plan(request, confdir, question, answer)


def _plan(request: str, confdir: str, question: IO[bytes], answer: IO[bytes]) -> None:
    from pcocc_runtime.node.planning import work_out  # only user nobody loads it

    try:
        work_out(request, confdir, question, answer)
    except (PcoccError, work.ChargeWanted) as error:
        answer.write(work.encode_end(error))
    except OSError as error:
        told = NodeError(f"{os.uname().nodename}: {error}", "ask the admins to look at this node")
        answer.write(work.encode_end(told))
