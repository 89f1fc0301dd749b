"""Whole layers in a directory on the node's own disk: copied once, verified, kept while somebody locks them.

    data/HH/HHHH...    a complete layer, its sha256 verified, named as in a repository (images/metadata.py)
    .tmp/HHHH...       one that is being copied, locked by the process that copies it; with .UID, by the
                       service for that user
    private/           the same for layers that not everybody may read; only the owner can enter it;
                       HHHH.SOURCE (sources.py)

The locks are flocks (system/locks.py) on the layers themselves: the directory is local, a file that is open
for reading can be locked exclusively, QEMU inherits a lock with its descriptor, and QEMU's own locks do not
meet it. See docs/decisions/013-image-cache.md.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.images import metadata
from pcocc_runtime.images.sizes import render_size
from pcocc_runtime.system import copy, locks, shared_locks

STALL_SECONDS = 60.0  # another process's copy that has not grown for so long is given up
# after the first seconds, a copy slower than so many bytes a second is given up
_GRACE_SECONDS, _LEAST_RATE = 30.0, 1 << 20
_TURN_SECONDS = 5.0  # the wait for locks that are held during a few system calls
_BLOCK = 512  # the unit of st_blocks (stat(2))

CopyState = Callable[[str, int], None]  # "copying" or "waiting", and the bytes there are to copy


class NoRoom(NodeError):
    """A layer cannot be cached; it can still be read from where it is."""


@dataclass(frozen=True, slots=True)
class Store:
    """A directory of layers that may take `size` bytes together; if `modest`, no more than half of what is free.

    The names in it end in `suffix`. What is in the directory `beside` counts towards the same limit. Unless
    `user` is None, copies are made for that user and never wait for another user's copy, which its owner
    could delay or give another content.
    """

    path: str
    size: int
    modest: bool = False
    suffix: str = ""
    beside: str | None = None
    user: int | None = None

    def layer(self, layer: str) -> Path:
        """Return the path of a layer."""
        return Path(self.path, metadata.layer_path(layer) + self.suffix)

    def part(self, layer: str) -> Path:
        """Return the path of a layer that is being copied."""
        return Path(self.path, ".tmp", layer + self.suffix + self._whose)

    @property
    def _whose(self) -> str:
        return "" if self.user is None else f".{self.user}"

    def is_own(self, part: Path) -> bool:
        """Tell whether a copy is made for the same user."""
        return self.user is not None and part.name.endswith(self._whose)

    @property
    def roots(self) -> tuple[Path, ...]:
        """Return all directories that the limit covers."""
        return tuple(Path(path) for path in (self.path, self.beside) if path)


def public_store(directory: str, size: int, user: int | None = None) -> Store:
    """Return the store of a node for what everybody may read."""
    return Store(directory, size, beside=f"{directory}/private", user=user)


def private_store(directory: str, size: int, source: str, user: int | None = None) -> Store:
    """Return the store of a node for what came from a source that not everybody may read; created if necessary."""
    store = Store(f"{directory}/private", size, suffix=f".{source}", beside=directory, user=user)
    with contextlib.suppress(FileExistsError):
        os.mkdir(store.path, 0o700)
    return store


def is_trusted(store: Store) -> bool:
    """Tell whether only the owner can have written to a store's directory."""
    try:
        info = os.lstat(store.path)
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and not info.st_mode & 0o022


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None


def open_layer(store: Store, layer: str, size: int) -> int | None:
    """Return a descriptor that keeps a layer of `size` bytes while it is open, None when there is no such layer."""
    path = store.layer(layer)
    fd = _open(path)
    if fd is None:
        return None
    # it may just have been added, or be going
    locked = shared_locks.wait_until(lambda: locks.try_flock(fd, shared=True), _TURN_SECONDS)
    if locked and locks.is_at(fd, path) and os.fstat(fd).st_size == size:
        return fd
    os.close(fd)
    return None


def last_use(fd: int) -> float:
    """Return when a layer was last used: known to a day (relatime, mount(8)), and exactly after `touch`."""
    info = os.fstat(fd)
    return max(info.st_atime, info.st_mtime)


def touch(store: Store, layer: str) -> None:
    """Note that a layer is being used; only its owner can."""
    with contextlib.suppress(OSError):
        os.utime(store.layer(layer))


def fill(store: Store, layer: str, source: int, watch: CopyState) -> None:
    """Copy a layer from an open file, unless it is there or another process copies it first.

    NoRoom when it cannot be kept; RequestError when the content does not match the checksum in the layer's name.
    """
    size = os.fstat(source).st_size
    if is_there(store, layer, size):
        return
    try:
        for directory in (
            store.part(layer).parent, store.layer(layer).parent.parent, store.layer(layer).parent,
        ):
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, 0o755)
        part = _lock_part(store, layer, size, watch)
        if part is not None:
            try:
                _fill_part(store, layer, source, part, watch)
            finally:
                os.close(part)
            with contextlib.suppress(OSError):  # it is not going to be read there again
                os.posix_fadvise(source, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError as error:
        raise NoRoom(
            f"the image cache {store.path} cannot take layer {layer[:12]}: {error.strerror}"
        ) from None


def _lock_part(store: Store, layer: str, size: int, watch: CopyState) -> int | None:
    """Return the locked, empty file to copy to, None when another process has completed the layer meanwhile."""
    path = store.part(layer)
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except PermissionError:
            if not os.access(path.parent, os.W_OK):
                raise
            remove_unused(path)  # it is complete and about to get its name, unless its process was killed
            time.sleep(0.01)  # until its process renames it, which nothing announces
            continue
        try:
            _await_lock(fd, path, size, watch)
            current = locks.is_at(fd, path)
            if is_there(store, layer, size):
                if current:
                    path.unlink()
                return None
            if current:
                os.ftruncate(fd, 0)  # what a killed copy left
                os.ftruncate(fd, size)  # so that `_make_room` of other processes counts it
                fd, found = -1, fd
                return found
        finally:
            if fd >= 0:
                os.close(fd)


def is_there(store: Store, layer: str, size: int) -> bool:
    """Tell whether a store has a layer of that size."""
    try:
        return os.lstat(store.layer(layer)).st_size == size
    except OSError:
        return False


def _await_lock(fd: int, path: Path, size: int, watch: CopyState) -> None:
    """Wait for the lock of a file that another process copies to, until it is a complete layer."""
    seen, deadline, ensure_pace = -1, 0.0, _pace()
    while locks.is_at(fd, path) and not locks.try_flock(fd):
        if (grown := os.fstat(fd).st_blocks) != seen:
            seen, deadline = grown, time.monotonic() + STALL_SECONDS
        elif time.monotonic() > deadline:
            raise NoRoom(
                f"another process has been copying layer {path.name[:12]} without progress for"
                f" {STALL_SECONDS:g} s"
            )
        ensure_pace(grown * _BLOCK)
        watch("waiting", size)
        time.sleep(0.05)  # waiting in the kernel could not be given a limit


def _pace() -> Callable[[int], None]:
    """Return a function that takes a copy's bytes so far and raises NoRoom when they grow too slowly."""
    begin = time.monotonic()

    def ensure(done: int) -> None:
        if done < (time.monotonic() - begin - _GRACE_SECONDS) * _LEAST_RATE:
            raise NoRoom(
                f"copying it is too slow: {render_size(done)} in {time.monotonic() - begin:.0f} s"
            )

    return ensure


def _fill_part(store: Store, layer: str, source: int, part: int, watch: CopyState) -> None:
    path, size = store.part(layer), os.fstat(part).st_size
    try:
        _make_room(store, size, part)
        watch("copying", size)
        pieces, ensure_pace = copy.read_sparse(source, size), _pace()

        def advance(done: int) -> None:
            ensure_pace(done)
            watch("copying", size)

        if copy.copy_pieces(pieces, part, advance, flush=True)[1] != layer:
            raise RequestError(
                f"layer {layer} is damaged: its content does not match the checksum in its name",
                "'pcocc image verify' says which images have it; import or copy them again",
            )
        os.fchmod(part, 0o444)
        os.fsync(part)
        os.rename(path, store.layer(layer))
    except BaseException:  # also an interrupt: no part of a layer stays
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        raise


def _make_room(store: Store, size: int, part: int) -> None:
    """Remove the least recently used layers until `size` more bytes fit; layers in use stay."""
    if size > store.size:
        wanted, limit = render_size(size), render_size(store.size)
        raise NoRoom(f"its layer of {wanted} is larger than the whole image cache ({limit})")
    announced, own = _sweep_parts(store, part)
    if own and own + size > store.size // 2:
        raise NoRoom("other copies under way for the same user take half of the image cache already")
    kept = sorted(list_cached_layers(store), key=lambda one: one[1])
    used = announced + sum(taken for _path, _when, taken in kept)
    for path, _when, taken in kept:
        if used <= store.size and _has_free(store, size):
            return
        if remove_unused(path):
            used -= taken
    if used > store.size or not _has_free(store, size):
        wanted = render_size(size)
        raise NoRoom(f"the image cache {store.path} has no room for {wanted}: the rest of it is in use")


def list_cached_layers(store: Store) -> Iterator[tuple[Path, float, int]]:
    """Yield each layer with its last use and the bytes it takes."""
    for path in (path for root in store.roots for path in root.glob("data/??/*")):
        with contextlib.suppress(FileNotFoundError):
            info = path.lstat()
            yield path, max(info.st_atime, info.st_mtime), info.st_blocks * _BLOCK


def _list_parts(store: Store) -> Iterator[Path]:
    return (path for root in store.roots for path in root.glob(".tmp/*"))


def _sweep_parts(store: Store, own: int) -> tuple[int, int]:
    """Remove what killed copies left; return the bytes that copies under way will take, and this user's other ones."""
    announced = users = 0
    for path in _list_parts(store):
        with contextlib.suppress(FileNotFoundError):
            info = path.lstat()
            ours = os.path.samestat(info, os.fstat(own))
            if ours or not remove_unused(path):
                announced += info.st_size
                users += info.st_size if store.is_own(path) and not ours else 0
    return announced, users


@contextlib.contextmanager
def as_owner(store: Store) -> Iterator[None]:
    """Let root run a block with only the owner's rights: the owner may have put links in the directory."""
    info = os.lstat(store.path)
    before = os.geteuid(), os.getegid(), os.getgroups()
    if before[0] != 0 or info.st_uid == 0:
        yield
        return
    os.setgroups([])
    os.setegid(info.st_gid)
    os.seteuid(info.st_uid)
    try:
        yield
    finally:
        os.seteuid(before[0])
        os.setegid(before[1])
        os.setgroups(before[2])


def is_used(path: Path) -> bool:
    """Tell whether somebody has a layer locked; a process that opens it at this moment waits for us."""
    fd = _open(path)
    if fd is None:
        return False
    try:
        return not locks.try_flock(fd)
    finally:
        os.close(fd)


def remove_all_unused(store: Store) -> tuple[int, int, int]:
    """Remove all unlocked layers and what killed copies left; return layers removed, bytes freed, layers kept."""
    removed = freed = kept = 0
    for path, _when, taken in list(list_cached_layers(store)):
        if remove_unused(path):
            removed, freed = removed + 1, freed + taken
        elif path.exists():
            kept += 1
    for path in _list_parts(store):
        with contextlib.suppress(FileNotFoundError):
            taken = path.lstat().st_blocks * _BLOCK
            freed += taken if remove_unused(path) else 0
    return removed, freed, kept


def remove_unused(path: Path) -> bool:
    """Remove a file unless somebody has it locked; tell whether it was removed."""
    fd = _open(path)
    if fd is None:
        return False
    try:
        if not locks.try_flock(fd) or not locks.is_at(fd, path):
            return False
        path.unlink()
        return True
    finally:
        os.close(fd)


def _has_free(store: Store, size: int) -> bool:
    info = os.statvfs(store.path)
    return info.f_bavail * info.f_frsize >= (2 * size if store.modest else size)
