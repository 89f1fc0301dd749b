"""The service that copies into a node's image cache what everybody may read: started for each request by systemd, as
pcocc-cache, a user that can do nothing else. It opens no file that a user names: it is handed the open layer."""

from __future__ import annotations

import os
import socket
import sys

from pcocc_runtime import config
from pcocc_runtime.errors import NodeError, PcoccError, RequestError
from pcocc_runtime.system import cachesocket, layerstore


def main() -> int:
    """Answer the one request of the connection on standard input."""
    sock = socket.socket(fileno=os.dup(0))
    teller = cachesocket.Teller(sock)
    try:
        _serve(sock, teller)
    except RequestError as error:
        teller.say("damaged", message=error.message, hint=error.hint)
    except PcoccError as error:
        print(error, file=sys.stderr)
        teller.say("failed", message=error.message)
    except OSError as error:
        print(error, file=sys.stderr)
        teller.say("failed", message=f"the image cache: {error.strerror or error}")
    return 0


def _serve(sock: socket.socket, teller: cachesocket.Teller) -> None:
    layer, source = cachesocket.receive_request(sock)
    cache = config.read_image_cache()
    if cache is None:
        raise NodeError("this site has no image cache: pcocc.yaml does not set one")
    store = layerstore.Store(cache.directory, cache.size)
    os.umask(0o022)
    layerstore.fill(store, layer, source, teller.watch)
    layerstore.touch(store, layer)
    teller.say("done")
