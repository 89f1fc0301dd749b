"""How much memory a task may use."""

import os

from pcocc_runtime.vm import host_memory


def test_memory_is_no_more_than_the_nodes() -> None:
    assert 0 < host_memory.read_memory_limit() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
