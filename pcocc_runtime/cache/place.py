"""Where a VM reads each layer of its image: the node's shared cache, a copy for its job, or the repository."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from pcocc_runtime.cache import layer_store, protocol
from pcocc_runtime.cache.layer_store import Store
from pcocc_runtime.documents.layer import LayerState
from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.images import in_use, metadata, qcow2
from pcocc_runtime.images.sizes import render_size

if TYPE_CHECKING:
    import socket

    from pcocc_runtime.documents.image_cache import ImageCache

Tell = Callable[[str], None]

_PATH = re.compile(r"(/.*)/data/([0-9a-f]{2})/(\2[0-9a-f]{62})")
_BACKING = re.compile(r"\.\./\.\./data/([0-9a-f]{2})/(\1[0-9a-f]{62})")
_FRESH = 3600.0  # seconds for which a use is not noted again
_PATIENCE = 2.0  # seconds of copying that pass in silence


def locate_image(
    image: str, scratch: PurePath, rank: int, here: int, cache: ImageCache, tell: Tell
) -> tuple[str, tuple[int, ...]]:
    """Return the path to run VM `rank` from, and descriptors that must stay open as long as it runs.

    `here` is the number of the job's VMs on this node. An image that is not a layer of a repository stays
    where it is. A layer that cannot be cached is read from where it is, and `tell` is called once;
    RequestError when it is damaged or may not be read.
    """
    found = _PATH.fullmatch(image)
    if not found:
        return image, ()
    shared = layer_store.public_store(cache.directory, cache.size)
    own = Store(str(scratch / "layers"), cache.size, modest=True) if here > 1 else None
    keeper = _LayerPlacer(found[1], shared, own, scratch, tell)
    try:
        places = list(_walk(keeper, found[3]))
    except _NotOurs:
        keeper.close()
        return image, ()
    except BaseException:  # also an interrupt: it is raised again
        keeper.close()
        raise
    finally:
        keeper.hang_up()
    view = Path(scratch, f"vm{rank}.layers")
    for layer, path in places:
        link = view / metadata.layer_path(layer)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(path)
    return str(view / metadata.layer_path(found[3])), tuple(keeper.held)


class _NotOurs(Exception):
    """The image's files are not layers of one repository."""


def _walk(keeper: _LayerPlacer, top: str) -> Iterator[tuple[str, str]]:
    """Yield each layer of an image, the top one first, with the path to read it from."""
    layer = top
    for _ in range(metadata.MAX_LAYERS):
        path, fd = keeper.place(layer)
        yield layer, path
        below = qcow2.parse_header(os.pread(fd, qcow2.HEADER_SIZE, 0), path).backing_file
        if below is None:
            return
        match = _BACKING.fullmatch(below)
        if not match:
            raise _NotOurs
        layer = match[2]
    raise _NotOurs


class _LayerPlacer:
    """Finds the best place for each layer of one VM."""

    def __init__(self, root: str, shared: Store, own: Store | None, scratch: PurePath, tell: Tell) -> None:
        self.root, self.shared, self.own, self.scratch, self.tell = root, shared, own, scratch, tell
        self.held: list[int] = []
        self.asked: socket.socket | None = None

    def hang_up(self) -> None:
        """Close the connection, upon which the service ends."""
        if self.asked is not None:
            self.asked.close()
            self.asked = None

    def close(self) -> None:
        """Close the descriptors of all layers."""
        for fd in self.held:
            os.close(fd)

    def place(self, layer: str) -> tuple[str, int]:
        """Return the best path to read a layer from, and a descriptor of it."""
        path = f"{self.root}/{metadata.layer_path(layer)}"
        try:
            source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            hint = "images must be on a file system all nodes share, and readable by you"
            raise RequestError(f"the image {path} cannot be read here: {error.strerror}", hint) from None
        self.held.append(source)
        if not stat.S_ISREG(os.fstat(source).st_mode):
            raise RequestError(f"the image {path} is not a regular file")
        in_use.mark_in_use(source)
        try:
            found = self._find(layer, source, path)
        except (NodeError, OSError) as error:
            self._warn(str(error))
            found = None
        if found is None:
            return path, source
        where, fd = found
        self.held.append(fd)
        return where, fd

    def _find(self, layer: str, source: int, path: str) -> tuple[str, int] | None:
        """Return the path of a copy, made if necessary, and a descriptor that keeps it; None when there is none."""
        size = os.fstat(source).st_size
        if size > self.shared.size:
            return None
        found = None
        is_new = not os.path.lexists(self.shared.path)  # systemd creates it for the first request
        if is_new or layer_store.is_trusted(self.shared):
            found = (
                self._find_public(layer, source, size)
                if is_public(path)
                else self._find_private(layer, source)
            )
        return found or self._find_own(layer, source, size)

    def _find_public(self, layer: str, source: int, size: int) -> tuple[str, int] | None:
        fd = layer_store.open_layer(self.shared, layer, size)
        if fd is None and self._ask(layer, source, False) and layer_store.is_trusted(self.shared):
            fd = layer_store.open_layer(self.shared, layer, size)
        elif fd is not None and time.time() - layer_store.last_use(fd) > _FRESH:
            with contextlib.suppress(NodeError):
                self._ask(layer, source, False)  # notes the use
        return None if fd is None else (str(self.shared.layer(layer)), fd)

    def _find_private(self, layer: str, source: int) -> tuple[str, int] | None:
        """Return a copy that has no path but this process's descriptor: this process will become QEMU."""
        answer = self._ask(layer, source, True)
        if answer is None or answer.fd is None:
            return None
        return f"/proc/{os.getpid()}/fd/{answer.fd}", answer.fd

    def _ask(self, layer: str, source: int, private: bool) -> LayerState | None:
        """Have the service cache a layer; return its final answer, None when there is no service or it declines."""
        self.asked = self.asked or protocol.connect()
        if self.asked is None:
            return None
        try:
            protocol.send_request(self.asked, layer, source, private)
            return self._await(self.asked, layer)
        except NodeError:
            self.hang_up()
            raise

    def _find_own(self, layer: str, source: int, size: int) -> tuple[str, int] | None:
        if self.own is None:
            return None
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.own.path, 0o700)
        fd = layer_store.open_layer(self.own, layer, size)
        if fd is None:
            layer_store.fill(self.own, layer, source, self._watch(layer))
            fd = layer_store.open_layer(self.own, layer, size)
        return None if fd is None else (str(self.own.layer(layer)), fd)

    def _await(self, asked: socket.socket, layer: str) -> LayerState | None:
        watch = self._watch(layer)
        for answer in protocol.receive_states(asked):
            match answer.state:
                case "damaged":
                    raise RequestError(answer.message, answer.hint)
                case "failed":
                    raise NodeError(answer.message)
                case "done" | "declined":
                    return answer if answer.state == "done" else None
            watch(answer.state, answer.size)
        return None

    def _watch(self, layer: str) -> layer_store.CopyState:
        """Return a function that tells, once and only if it takes long, that a layer is being copied."""
        begin, told = time.monotonic(), False

        def watch(state: str, size: int) -> None:
            nonlocal told
            if state == "copying" and not told and time.monotonic() - begin > _PATIENCE:
                told = True
                self.tell(f"copying layer {layer[:12]} ({render_size(size)}) to this node, once for all VMs")

        return watch

    def _warn(self, reason: str) -> None:
        """Tell why a layer is not cached, once for all VMs of the job on this node."""
        with contextlib.suppress(FileExistsError):
            os.close(
                os.open(self.scratch / "uncached", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            )
            self.tell(f"the image is read from where it is stored, not from this node's disk: {reason}")


def is_public(path: str) -> bool:
    """Tell whether everybody may read a file, by its mode and the modes of all directories above it."""
    real = Path(os.path.realpath(path))
    try:
        return bool(real.stat().st_mode & stat.S_IROTH) and all(
            one.stat().st_mode & stat.S_IXOTH for one in real.parents
        )
    except OSError:
        return False
