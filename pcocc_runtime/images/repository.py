"""The files of an image repository: read by anybody at any time, changed one atomic step at a time.

Callers hold the repository's lock (`lock_path`, system/claims.py) from the look that decides to the change it decides.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pcocc_runtime.errors import NodeError, PcoccError, RequestError
from pcocc_runtime.images import claims, in_use, metadata, transfer
from pcocc_runtime.images.metadata import Revision
from pcocc_runtime.images.references import Repo
from pcocc_runtime.progress import Advance
from pcocc_runtime.system import files, trees

WORK_PREFIX = ".work-"  # hidden, so that pcocc 0.7's gc leaves it alone
_KEPT = ("data", "meta")
_PARTS = (*_KEPT, ".tmp")
_FULL, _CLOSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG), (errno.EROFS, errno.EACCES, errno.EPERM)
_OWN = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)  # this process's limits, or this host's


@contextlib.contextmanager
def explained(repo: Repo, *, changing: bool = False) -> Iterator[None]:
    """Turn an error of the file system into a sentence about the repository."""
    try:
        yield
    except OSError as error:
        place = f"repository {repo.name!r} ({repo.path})"
        if error.errno in _FULL:
            hint = f"free space with 'pcocc image repo gc {repo.name}', or take another repository"
            raise RequestError(f"{place} is full: {error.strerror}", hint) from None
        if changing and error.errno in _CLOSED:
            hint = "take a repository of your own; see 'pcocc image repo list'"
            raise RequestError(f"{place} cannot be changed by you: {error.strerror}", hint) from None
        if error.errno in _OWN:
            raise NodeError(f"work in {place} had to stop here: {error.strerror}", "see: ulimit -a") from None
        named = f"{error.filename}: " if error.filename else ""
        raise RequestError(f"{place} cannot be read: {named}{error.strerror}", f"see: ls -ld {repo.path}") from None


def lock_path(repo: Repo) -> Path:
    """Return the file whose lock guards changes."""
    return Path(repo.path, ".lock")


def work_parent(repo: Repo) -> Path:
    """Return the directory for work in progress, on the repository's file system."""
    return Path(repo.path, ".tmp")


def layer_file(repo: Repo, layer: str) -> Path:
    """Return the path of a layer."""
    return Path(repo.path, metadata.layer_path(layer))


def is_created(repo: Repo) -> bool:
    """Tell whether the repository is there; RequestError when something else is."""
    from pcocc_runtime.settings.tree import parse_yaml

    config = Path(repo.path, ".config")
    try:
        version = parse_yaml(_read_start(config), str(config)).plain().get("version")
    except FileNotFoundError:
        if not os.path.isdir(repo.path) or not (reason := _what_else_is_there(repo)):
            return False
        if config.exists():
            return is_created(repo)  # somebody else has completed it this moment
        raise reason from None
    except NotADirectoryError:
        raise _no_repository(repo, "it is not a directory") from None
    except (PcoccError, AttributeError):
        raise _no_repository(repo, "its .config cannot be read as YAML") from None
    if version != metadata.METADATA_VERSION:
        hint = "pcocc 0.7's 'pcocc image repo gc' turns one of version 1 into version 2" if version == 1 else None
        raise RequestError(f"repository {repo.name!r} ({repo.path}) is of version {version}, not {metadata.METADATA_VERSION}", hint)
    for part in _KEPT:
        if not os.path.isdir(f"{repo.path}/{part}"):
            hint = f"bring back {part}/, from a backup or where it was moved to: nothing is changed here without it"
            raise RequestError(f"repository {repo.name!r} ({repo.path}) lacks its directory {part}/", hint)
    return True


def _what_else_is_there(repo: Repo) -> RequestError | None:
    """Return why a directory without .config is no place for a repository, None when it is one that is not yet complete."""
    if not set(os.listdir(repo.path)) <= {*_PARTS, ".lock"}:
        return _no_repository(repo, "it has no file .config")
    for part in _KEPT:
        with contextlib.suppress(FileNotFoundError):
            if os.listdir(f"{repo.path}/{part}"):
                return RequestError(
                    f"repository {repo.name!r} ({repo.path}) has no file .config, though there is something in its {part}/",
                    f"if it was copied, copy .config too; or make it: echo 'version: {metadata.METADATA_VERSION}' >{repo.path}/.config",
                )
    return None


def _read_start(path: Path) -> str:
    with files.open_regular(path) as stream:
        return stream.read(metadata.MAX_META).decode(errors="replace")


def _no_repository(repo: Repo, reason: str) -> RequestError:
    return RequestError(f"{repo.path} is not an image repository: {reason}", f"let repository {repo.name!r} have another path")


def make_root(repo: Repo) -> None:
    """Create the repository's directory, and that one's parent: ~/.pcocc may be new too."""
    Path(repo.path).parent.mkdir(exist_ok=True)
    Path(repo.path).mkdir(exist_ok=True)


def complete(repo: Repo) -> None:
    """Create what the repository lacks, .config last; whoever was killed before that left nothing that counts."""
    root = Path(repo.path)
    is_new = not (root / ".config").exists()
    for part in _PARTS if is_new else (".tmp",):  # what a repository has lost would look as if nothing had been in it
        files.make_like(root / part, root)
    if is_new:
        draft = root / ".tmp/.config"
        draft.write_text(f"version: {metadata.METADATA_VERSION}\n")
        draft.chmod(stat.S_IMODE(root.stat().st_mode) & 0o666)
        os.rename(draft, root / ".config")


def list_entries(repo: Repo) -> dict[str, list[int]]:
    """Return the revisions of each image by name, from the names of the metadata files only."""
    found: dict[str, list[int]] = {}
    if is_created(repo):
        for filename in os.listdir(Path(repo.path, "meta")):
            entry = metadata.parse_entry(filename)
            if entry:
                found.setdefault(entry[0], []).append(entry[1])
    return {name: sorted(found[name]) for name in sorted(found)}


def find_unknown(repo: Repo) -> list[PcoccError]:
    """Return what is in meta/ and may be, or have been, an image's metadata, though not under a name that we know."""
    return [
        RequestError(f"{repo.path}/meta/{filename} is no name of an image's metadata", "move the file elsewhere")
        for filename in sorted(os.listdir(Path(repo.path, "meta")))
        if not filename.startswith(".") and metadata.parse_entry(filename) is None
    ]


def read_revision(repo: Repo, name: str, revision: int) -> Revision:
    """Return one revision; RequestError when its metadata is damaged, FileNotFoundError when there is none."""
    filename = f"{name}@{revision}"
    where = f"{repo.path}/meta/{filename}"
    fd = os.open(where, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        data = os.read(fd, metadata.MAX_META) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    finally:
        os.close(fd)
    return metadata.parse_revision(data.decode(errors="replace"), filename, where)


def has_revision(repo: Repo, one: Revision) -> bool:
    """Tell whether that very revision is still there, and not a later one of its name and number."""
    try:
        return read_revision(repo, one.name, one.revision) == one
    except PcoccError:
        return True  # it is there, and damaged
    except OSError:
        return False


def read_all(repo: Repo, problems: list[PcoccError]) -> list[Revision]:
    """Return every revision; a damaged metadata file is added to `problems`."""
    found = []
    for name, revisions in list_entries(repo).items():
        for revision in revisions:
            try:
                found.append(read_revision(repo, name, revision))
            except FileNotFoundError:
                continue  # deleted since
            except OSError as error:
                problems.append(RequestError(f"{error.filename} cannot be read: {error.strerror}"))
            except PcoccError as error:
                problems.append(error)
    return found


def refresh(repo: Repo) -> float:
    """Have an NFS client forget what it remembers of meta/; return the file server's time."""
    return _refresh(Path(repo.path, "meta"))


def _refresh(directory: Path) -> float:
    """Change a directory, upon which an NFS client asks anew for the names in it; return the file server's time."""
    probe = directory / ".probe"
    try:
        probe.touch(0o600)
        return probe.stat().st_ctime
    except OSError as error:
        if error.errno not in _FULL:
            raise
        os.utime(probe.parent)
        return probe.parent.stat().st_ctime
    finally:
        probe.unlink(missing_ok=True)


@contextlib.contextmanager
def open_repo_layer(repo: Repo, layer: str) -> Iterator[tuple[Callable[[int], bytes], int]]:
    """Open a layer to be read: what reads so many bytes of it, and its length."""
    with explained(repo):
        stream = files.open_regular(layer_file(repo, layer))

    def read(size: int) -> bytes:
        with explained(repo):
            return stream.read(size)

    with stream:
        yield read, os.fstat(stream.fileno()).st_size


def has_layer(repo: Repo, layer: str) -> bool:
    """Tell whether a layer is there now, not only when an NFS client looked last; needs the repository's lock to stay true."""
    path = layer_file(repo, layer)
    with contextlib.suppress(OSError):  # another user's directory, or none
        _refresh(path.parent)
    return path.is_file()


def find_length(repo: Repo, layer: str) -> int | None:
    """Return the length of a layer, None when it cannot be told."""
    try:
        return layer_file(repo, layer).stat().st_size
    except OSError:
        return None


def is_damaged(repo: Repo, layer: str, length: int, watch: Advance) -> bool:
    """Tell whether a layer of that length is there, and is not what its name says; it is read for that, which may take long."""
    try:
        return find_length(repo, layer) == length and transfer.hash_file(layer_file(repo, layer), watch) != layer
    except OSError:
        return True


def remove_probes(repo: Repo) -> None:
    """Remove what `has_layer` left when it was killed; needs the repository's lock, as that does."""
    for path in Path(repo.path, "data").glob("*/.probe"):
        with contextlib.suppress(OSError):  # another user's
            path.unlink()


def put_layer(repo: Repo, file: Path, layer: str, replace: bool = False) -> None:
    """Move a finished file, which is on disk already, to its place; one of its length there is kept, unless `replace`.

    VMs that have the one that is replaced open go on with it; over NFS that is not sure.
    """
    target = layer_file(repo, layer)
    files.make_like(target.parent, Path(repo.path))
    if not replace and has_layer(repo, layer) and target.stat().st_size == file.stat().st_size:
        return
    file.chmod(0o444)
    os.rename(file, target)
    flush(target.parent)


def put_revision(repo: Repo, one: Revision, work: Path) -> bool:
    """Write a revision's metadata; False when somebody else has made that revision meanwhile."""
    draft = work / "meta"
    draft.write_bytes(metadata.render_revision(one))
    draft.chmod(stat.S_IMODE(os.stat(repo.path).st_mode) & 0o666 | 0o400)
    flush(draft)
    target = Path(repo.path, "meta", one.entry)
    try:
        os.link(draft, target)
    except FileExistsError:
        if not os.path.samefile(draft, target):  # NFS says so of its own repeated request too
            return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        if target.exists():  # without hard links, the lock alone tells writers apart
            return False
        os.rename(draft, target)
    flush(target.parent)
    return True


def remove_revision(repo: Repo, name: str, revision: int) -> None:
    """Delete a revision's metadata."""
    os.unlink(Path(repo.path, "meta", f"{name}@{revision}"))


def list_layers(repo: Repo) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the layers there are, and what stat(2) says of them."""
    for part in sorted(os.listdir(Path(repo.path, "data"))):
        try:
            entries = list(os.scandir(Path(repo.path, "data", part)))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                info = entry.stat(follow_symlinks=False)
                if metadata.is_layer(entry.name, part) and stat.S_ISREG(info.st_mode):
                    yield entry.name, info


def remove_layer(repo: Repo, layer: str) -> None:
    """Delete a layer, and its directory when it was the last in it."""
    target = layer_file(repo, layer)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(target)
    with contextlib.suppress(OSError):
        target.parent.rmdir()


def read_pins(repo: Repo) -> set[str]:
    """Return the layers that work in progress needs."""
    pinned: set[str] = set()
    for path in claims.list_work(work_parent(repo), WORK_PREFIX):
        with contextlib.suppress(FileNotFoundError):
            pinned.update(_read_start(path / "pins").split())
    return pinned


def remove_foreign(repo: Repo, before: float) -> int:
    """Remove what pcocc 0.7 left in .tmp before a time, and nobody has open; return how many there were."""
    count = 0
    for entry in os.scandir(work_parent(repo)):
        if not entry.name.startswith(".") and entry.stat(follow_symlinks=False).st_ctime < before:
            if not entry.is_file(follow_symlinks=False):
                trees.remove_tree(Path(entry.path))
            elif not in_use.may_be_in_use(Path(entry.path)):
                os.unlink(entry.path)
            count += 1
    return count


def find_missing(repo: Repo, layers: Sequence[str]) -> str | None:
    """Return the first of the layers that is not there."""
    return next((layer for layer in layers if not layer_file(repo, layer).is_file()), None)


def flush(path: Path) -> None:
    """Have a file, or the names in a directory, on disk when this returns."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_free(repo: Repo) -> int:
    """Return the bytes that the repository's file system has for this user."""
    path = repo.path
    while not os.path.exists(path):  # it is not created yet
        path = os.path.dirname(path)
    info = os.statvfs(path)
    return info.f_bavail * info.f_frsize
