"""The process that plans a node's networks, as root's helper sees it."""

import os

import pytest

from pcocc_runtime.documents.work import Held, encode_end
from pcocc_runtime.errors import NodeError
from pcocc_runtime.node.planner import Planner


def test_why_it_has_ended_is_told_though_it_does_not_hear_any_more() -> None:
    """The planner fails after its offer: then nobody reads what root writes to it, either now or when the pipe is closed."""
    (hears, says), (below, above) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os._exit(1)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    os.write(says, encode_end(NodeError("n2 has no tun")))
    os.close(says)
    os.close(below)
    planner = Planner(pid, os.fdopen(hears, "rb"), os.fdopen(above, "wb"))
    with pytest.raises(NodeError, match="n2 has no tun"):
        try:
            planner.hear_work(Held(None, "tcg", ""))
        finally:
            planner.close()
