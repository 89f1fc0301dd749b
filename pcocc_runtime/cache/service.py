"""The service that copies layers into a node's image cache: systemd starts it for each VM, with an own user's rights.

It opens no path that a user names: it is handed the open layer. A layer that everybody may read gets a path
that everybody can open; any other is handed, open, to whoever shows that he can open the same source.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys

from pcocc_runtime.cache import layer_store, protocol, sources
from pcocc_runtime.documents.image_cache import ImageCache
from pcocc_runtime.documents.layer import LayerState
from pcocc_runtime.errors import NodeError, PcoccError, RequestError
from pcocc_runtime.site.settings import read_image_cache
from pcocc_runtime.system import locks

_SILENT_SECONDS = 30  # without a byte of a layer
_TURNS = 128  # connections of one user at a time; the socket has 1,024 (pcocc-cache.socket)


def main() -> int:
    """Answer the requests on standard input, a connection, one after the other."""
    sock = socket.socket(fileno=os.dup(0))
    teller = protocol.Teller(sock)
    os.umask(0o022)
    try:
        user = protocol.read_user(sock)
        if not _take_turn(user):
            reason = "its user has too many connections to the image cache of this node"
            teller.say(LayerState("declined", message=reason))
            return 0
        first = True
        while _answer(sock, teller, user, first):
            first = False
    except OSError:
        pass  # the launcher is gone or silent
    return 0


def _take_turn(user: int) -> bool:
    """Hold one of a user's turns while this process lives; False when all are taken: others need the socket, too."""
    cache = read_image_cache()
    if cache is None:
        return True  # which is told to the first request
    folder = f"{cache.directory}/.turns"
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    for number in range(_TURNS):
        fd = os.open(
            f"{folder}/{user}.{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        if locks.try_flock(fd):
            return True
        os.close(fd)
    return False


def _answer(sock: socket.socket, teller: protocol.Teller, user: int, first: bool) -> bool:
    """Answer a request; return False when there is none."""
    try:
        request = protocol.receive_request(sock, first)
        if request is None:
            return False
        _serve(*request, teller, user)
    except RequestError as error:
        teller.say(LayerState("damaged", message=error.message, hint=error.hint))
    except PcoccError as error:
        print(error, file=sys.stderr)
        teller.say(LayerState("failed", message=error.message))
    except TimeoutError:
        raise
    except OSError as error:
        print(error, file=sys.stderr)
        teller.say(LayerState("failed", message=f"the image cache: {error.strerror or error}"))
    return True


def _serve(layer: str, private: bool, source: int, teller: protocol.Teller, user: int) -> None:
    cache = read_image_cache()
    if cache is None:
        raise NodeError("this site has no image cache: 'image-cache' is not set in pcocc.yaml")
    try:
        if private:
            _keep_private(cache, layer, source, teller, user)
        else:
            store = layer_store.public_store(cache.directory, cache.size, user)
            _fill(store, layer, source, teller)
            layer_store.touch(store, layer)
            teller.say(LayerState("done"))
    finally:
        os.close(source)


def _fill(store: layer_store.Store, layer: str, source: int, teller: protocol.Teller) -> None:
    """Copy the layer, and give up when nothing is read for a time: a user's file can block for ever (FUSE)."""

    def give_up(_number: int, _frame: object) -> None:
        raise layer_store.NoRoom(f"nothing could be read of layer {layer[:12]} for {_SILENT_SECONDS} s")

    def watch(state: str, size: int) -> None:
        signal.alarm(_SILENT_SECONDS)
        teller.watch(state, size)

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(_SILENT_SECONDS)
    try:
        layer_store.fill(store, layer, source, watch)
    finally:
        signal.alarm(0)


def _keep_private(cache: ImageCache, layer: str, source: int, teller: protocol.Teller, user: int) -> None:
    # before the copy: if the source changes meanwhile, its name changes, too
    found = sources.find_source(source)
    if found is None:
        reason = "its file system belongs to a user, who could pass off another file as this one"
        teller.say(LayerState("declined", message=reason))
        return
    store = layer_store.private_store(cache.directory, cache.size, found, user)
    _fill(store, layer, source, teller)
    layer_store.touch(store, layer)
    copy = layer_store.open_layer(store, layer, os.fstat(source).st_size)
    if copy is None:
        raise NodeError(
            "the copy was removed at once to make room: the image cache is too small for the VMs that run here"
        )
    teller.say(LayerState("done", fd=copy))  # with its lock, which the launcher holds, and then QEMU
    os.close(copy)
