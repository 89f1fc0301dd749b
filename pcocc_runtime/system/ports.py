"""TCP ports of the host."""

from __future__ import annotations

import errno
import socket


def is_free(port: int) -> bool:
    """Tell whether no socket of the calling thread's network namespace uses a TCP port, at whatever address."""
    for family, address in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.bind((address, port))
        except OSError as error:
            if error.errno != errno.EAFNOSUPPORT and error.errno != errno.EADDRNOTAVAIL:  # a kernel without IPv6
                return False
    return True
