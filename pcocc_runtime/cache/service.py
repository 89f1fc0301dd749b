"""The service that copies layers into a node's image cache; systemd starts it for each VM, as a user that can do nothing else.

It opens no path that a user names: it is handed the open layer. A layer that everybody may read gets a path that everybody
can open; any other is handed, open, to whoever shows that he can open the same source.
"""

from __future__ import annotations

import os
import socket
import sys

from pcocc_runtime.cache import layer_store, protocol, sources
from pcocc_runtime.documents.image_cache import ImageCache
from pcocc_runtime.errors import NodeError, PcoccError, RequestError
from pcocc_runtime.site.settings import read_image_cache


def main() -> int:
    """Answer the requests on standard input, a connection, one after the other."""
    sock = socket.socket(fileno=os.dup(0))
    teller = protocol.Teller(sock)
    os.umask(0o022)
    try:
        first = True
        while _answer(sock, teller, first):
            first = False
    except OSError:
        pass  # the launcher is gone or silent
    return 0


def _answer(sock: socket.socket, teller: protocol.Teller, first: bool) -> bool:
    """Answer a request; return False when there is none."""
    try:
        request = protocol.receive_request(sock, first)
        if request is None:
            return False
        _serve(*request, teller)
    except RequestError as error:
        teller.say("damaged", message=error.message, hint=error.hint)
    except PcoccError as error:
        print(error, file=sys.stderr)
        teller.say("failed", message=error.message)
    except TimeoutError:
        raise
    except OSError as error:
        print(error, file=sys.stderr)
        teller.say("failed", message=f"the image cache: {error.strerror or error}")
    return True


def _serve(layer: str, private: bool, source: int, teller: protocol.Teller) -> None:
    cache = read_image_cache()
    if cache is None:
        raise NodeError("this site has no image cache: 'image-cache' is not set in pcocc.yaml")
    try:
        if private:
            _keep_private(cache, layer, source, teller)
        else:
            store = layer_store.public_store(cache.directory, cache.size)
            layer_store.fill(store, layer, source, teller.watch)
            layer_store.touch(store, layer)
            teller.say("done")
    finally:
        os.close(source)


def _keep_private(cache: ImageCache, layer: str, source: int, teller: protocol.Teller) -> None:
    found = sources.find_source(source)  # before the copy: if the source changes meanwhile, its name changes, too
    if found is None:
        teller.say("declined", message="its file system belongs to a user, who could pass off another file as this one")
        return
    store = layer_store.private_store(cache.directory, cache.size, found)
    layer_store.fill(store, layer, source, teller.watch)
    layer_store.touch(store, layer)
    copy = layer_store.open_layer(store, layer, os.fstat(source).st_size)
    if copy is None:
        raise NodeError("the copy was removed at once to make room: the image cache is too small for the VMs that run here")
    teller.say("done", copy)  # with its lock, which the launcher holds, and then QEMU
    os.close(copy)
