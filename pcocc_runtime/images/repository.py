"""The files of an image repository: read by anybody at any time, changed one atomic step at a time.

Whoever changes something holds the repository's lock (`lock_path`, claims.py) while deciding and changing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pcocc_runtime.errors import NodeError, PcoccError, RequestError
from pcocc_runtime.images import claims, in_use, metadata, placing
from pcocc_runtime.images.metadata import Revision
from pcocc_runtime.images.references import Repo
from pcocc_runtime.progress import Advance
from pcocc_runtime.system import copy, held, regular, tree_removal

WORK_PREFIX = ".work-"  # hidden, so that pcocc 0.7's gc leaves it alone
_KEPT = ("data", "meta")
_PARTS = (*_KEPT, ".tmp")
_PROBE = ".probe"
_FULL, _CLOSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG), (errno.EROFS, errno.EACCES, errno.EPERM)
_OWN = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)  # a limit of this process or host was reached


@contextlib.contextmanager
def explained(repo: Repo, *, changing: bool = False) -> Iterator[None]:
    """Turn an OSError in the block into a sentence about the repository."""
    try:
        yield
    except OSError as error:
        place = f"repository {repo.name!r} ({repo.path})"
        if error.errno in _FULL:
            hint = f"free space with 'pcocc image repo gc {repo.name}', or use another repository"
            raise RequestError(f"{place} is full: {error.strerror}", hint) from None
        if changing and error.errno in _CLOSED:
            hint = "use a repository of your own: see 'pcocc image repo list'"
            raise RequestError(f"you may not change {place}: {error.strerror}", hint) from None
        if error.errno in _OWN:
            raise NodeError(f"the work in {place} had to stop: {error.strerror}", "see: ulimit -a") from None
        named = f"{error.filename}: " if error.filename else ""
        raise RequestError(
            f"{place} cannot be read: {named}{error.strerror}", f"see: ls -ld {repo.path}"
        ) from None


def lock_path(repo: Repo) -> Path:
    """Return the file whose lock guards changes."""
    return Path(repo.path, ".lock")


@contextlib.contextmanager
def open_parts(repo: Repo, *parts: str) -> Iterator[Path]:
    """Hold a directory of the repository, in which others may rename things and put links in the way."""
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(held.hold(Path(repo.path)))
        for part in parts:
            path = stack.enter_context(held.hold_below(path, part))
        yield path


def work_parent(repo: Repo) -> Path:
    """Return the directory for work in progress, on the repository's file system."""
    return Path(repo.path, ".tmp")


def layer_file(repo: Repo, layer: str) -> Path:
    """Return the path of a layer."""
    return Path(repo.path, metadata.layer_path(layer))


def is_created(repo: Repo) -> bool:
    """Tell whether the repository exists; RequestError when its directory is something else."""
    from pcocc_runtime.settings.tree import parse_yaml

    config = Path(repo.path, ".config")
    try:
        version = parse_yaml(_read_start(config), str(config)).plain().get("version")
    except FileNotFoundError:
        if not os.path.isdir(repo.path) or not (reason := _what_else_is_there(repo)):
            return False
        if config.exists():
            return is_created(repo)  # another process has just completed it
        raise reason from None
    except NotADirectoryError:
        raise _no_repository(repo, "it is not a directory") from None
    except (PcoccError, AttributeError):
        raise _no_repository(repo, "its .config cannot be read as YAML") from None
    if version != metadata.METADATA_VERSION:
        hint = "'pcocc image repo gc' of pcocc 0.7 converts version 1 to version 2" if version == 1 else None
        wrong = f"is of version {version}, not {metadata.METADATA_VERSION}"
        raise RequestError(f"repository {repo.name!r} ({repo.path}) {wrong}", hint)
    for part in _KEPT:
        if not os.path.isdir(f"{repo.path}/{part}"):
            hint = (
                f"put {part}/ back, from a backup or from where it was moved: pcocc changes nothing here"
                " without it"
            )
            raise RequestError(f"repository {repo.name!r} ({repo.path}) lacks its directory {part}/", hint)
    return True


def _what_else_is_there(repo: Repo) -> RequestError | None:
    """Return why a directory without .config cannot become a repository, None when it is empty or incomplete."""
    if not set(os.listdir(repo.path)) <= {*_PARTS, ".lock"}:
        return _no_repository(repo, "it has no file .config")
    for part in _KEPT:
        with contextlib.suppress(FileNotFoundError):
            if os.listdir(f"{repo.path}/{part}"):
                make = f"echo 'version: {metadata.METADATA_VERSION}' >{repo.path}/.config"
                return RequestError(
                    f"repository {repo.name!r} ({repo.path}) has no file .config, but its {part}/ is not"
                    " empty", f"if it was copied, copy .config too; or make it: {make}",
                )
    return None


def _read_start(path: Path) -> str:
    with regular.open_regular(path) as stream:
        return stream.read(metadata.MAX_META).decode(errors="replace")


def _no_repository(repo: Repo, reason: str) -> RequestError:
    hint = f"give repository {repo.name!r} another path in repos.yaml"
    return RequestError(f"{repo.path} is not an image repository: {reason}", hint)


def make_root(repo: Repo) -> None:
    """Create the repository's directory and its parent: ~/.pcocc may be new, too."""
    Path(repo.path).parent.mkdir(exist_ok=True)
    Path(repo.path).mkdir(exist_ok=True)


def complete(repo: Repo) -> None:
    """Create what the repository lacks, .config last: without it, what a killed process created does not count."""
    with open_parts(repo) as root:
        is_new = not (root / ".config").exists()
        # a repository that has lost data/ or meta/ must not look like an empty one
        for part in _PARTS if is_new else (".tmp",):
            placing.make_like(root / part, root)
        if is_new:
            with held.hold_below(root, ".tmp") as work:
                mode = stat.S_IMODE(root.stat().st_mode) & 0o666
                held.create_file(work / ".config", f"version: {metadata.METADATA_VERSION}\n".encode(), mode)
                os.rename(work / ".config", root / ".config")


def list_entries(repo: Repo) -> dict[str, list[int]]:
    """Return the revisions of each image by name, from the names of the metadata files alone."""
    found: dict[str, list[int]] = {}
    if is_created(repo):
        for filename in os.listdir(Path(repo.path, "meta")):
            entry = metadata.parse_entry(filename)
            if entry:
                found.setdefault(entry[0], []).append(entry[1])
    return {name: sorted(found[name]) for name in sorted(found)}


def find_unknown(repo: Repo) -> list[PcoccError]:
    """Return an error for each file in meta/ that may be metadata but does not have the name of one."""
    return [
        RequestError(
            f"{repo.path}/meta/{filename} is not the name of an image's metadata", "move the file elsewhere"
        )
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
    """Tell whether exactly this revision is still there, not a later one of the same name and number."""
    try:
        return read_revision(repo, one.name, one.revision) == one
    except PcoccError:
        return True  # it is there, but damaged
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
                continue  # deleted meanwhile
            except OSError as error:
                problems.append(RequestError(f"{error.filename} cannot be read: {error.strerror}"))
            except PcoccError as error:
                problems.append(error)
    return found


def refresh(repo: Repo) -> float:
    """Make an NFS client forget its cached list of meta/; return the file server's time."""
    with open_parts(repo, "meta") as meta:
        return _refresh(meta)


def _refresh(directory: Path) -> float:
    """Change a directory, which makes an NFS client list it anew; return the file server's time."""
    probe = directory / _PROBE
    # a killed process's, or what others have put there
    with contextlib.suppress(FileNotFoundError, IsADirectoryError):
        probe.unlink()
    try:
        fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (*_FULL, errno.EEXIST):
            raise
        os.utime(directory)
        return directory.stat().st_ctime
    try:
        return os.fstat(fd).st_ctime
    finally:
        os.close(fd)
        probe.unlink(missing_ok=True)


@contextlib.contextmanager
def open_repo_layer(repo: Repo, layer: str) -> Iterator[tuple[Callable[[int], bytes], int]]:
    """Open a layer; yield a function that reads so many bytes of it, and its length."""
    with explained(repo):
        stream = regular.open_regular(layer_file(repo, layer))

    def read(size: int) -> bytes:
        with explained(repo):
            return stream.read(size)

    with stream:
        yield read, os.fstat(stream.fileno()).st_size


def has_layer(repo: Repo, layer: str) -> bool:
    """Tell whether a layer is there, whatever an NFS client has cached; under the lock, the answer stays right."""
    # another user's, or missing
    with contextlib.suppress(OSError), open_parts(repo, "data", layer[:2]) as folder:
        _refresh(folder)
    return layer_file(repo, layer).is_file()


def find_length(repo: Repo, layer: str) -> int | None:
    """Return the length of a layer in bytes, None when it cannot be read."""
    try:
        return layer_file(repo, layer).stat().st_size
    except OSError:
        return None


def is_damaged(repo: Repo, layer: str, length: int, watch: Advance) -> bool:
    """Tell whether a layer of that length is there, but does not match the checksum in its name; reads all of it."""
    try:
        return find_length(repo, layer) == length and copy.hash_file(layer_file(repo, layer), watch) != layer
    except OSError:
        return True


def remove_probes(repo: Repo) -> None:
    """Remove what a killed `has_layer` left; needs the repository's lock."""
    with open_parts(repo, "data") as data:
        for part in os.listdir(data):
            with contextlib.suppress(OSError), held.hold_below(data, part) as folder:  # another user's
                (folder / _PROBE).unlink()


def put_layer(repo: Repo, file: Path, layer: str, replace: bool = False) -> None:
    """Move a finished file, already on disk, to its place; unless `replace`, a file of that length there is kept.

    VMs that have the replaced file open go on with it; over NFS that is not certain.
    """
    with open_folder(repo, layer) as folder:
        if not replace and has_layer(repo, layer) and (folder / layer).stat().st_size == file.stat().st_size:
            return
        file.chmod(0o444)
        os.rename(file, folder / layer)
        held.flush(folder)


@contextlib.contextmanager
def open_folder(repo: Repo, layer: str) -> Iterator[Path]:
    """Hold the directory of a layer, which is made if necessary."""
    with open_parts(repo, "data") as data:
        placing.make_like(data / layer[:2], Path(repo.path))
        with held.hold_below(data, layer[:2]) as folder:
            yield folder


def put_revision(repo: Repo, one: Revision, work: Path) -> bool:
    """Write a revision's metadata; return False when another process has made that revision meanwhile."""
    draft = work / "meta"
    held.create_file(
        draft, metadata.render_revision(one), stat.S_IMODE(os.stat(repo.path).st_mode) & 0o666 | 0o400
    )
    with open_parts(repo, "meta") as meta:
        target = meta / one.entry
        try:
            os.link(draft, target)
        except FileExistsError:
            # over NFS it may be our own request, repeated
            if not os.path.samestat(os.lstat(draft), os.lstat(target)):
                return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                raise
            if os.path.lexists(target):  # without hard links, only the lock keeps writers apart
                return False
            os.rename(draft, target)
        held.flush(meta)
    return True


def remove_revision(repo: Repo, name: str, revision: int) -> None:
    """Delete a revision's metadata."""
    with open_parts(repo, "meta") as meta:
        os.unlink(meta / f"{name}@{revision}")


def list_layers(repo: Repo) -> Iterator[tuple[str, os.stat_result]]:
    """Yield each layer and its stat(2) result."""
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
    """Delete a layer, and its directory when nothing else is in it."""
    with contextlib.suppress(FileNotFoundError), open_parts(repo, "data") as data:
        with held.hold_below(data, layer[:2]) as folder, contextlib.suppress(FileNotFoundError):
            os.unlink(folder / layer)
        with contextlib.suppress(OSError):
            (data / layer[:2]).rmdir()


def read_pins(repo: Repo) -> set[str]:
    """Return the layers that work in progress needs."""
    pinned: set[str] = set()
    with open_parts(repo, ".tmp") as parent:
        for path in claims.list_notes(parent, WORK_PREFIX):
            with contextlib.suppress(FileNotFoundError):
                pinned.update(_read_start(path).split())
    return pinned


def remove_foreign(repo: Repo, before: float) -> int:
    """Remove what pcocc 0.7 left in .tmp before a time, unless a QEMU has it open; return how many there were."""
    count = 0
    with open_parts(repo, ".tmp") as parent:
        for name in os.listdir(parent):
            info = os.lstat(parent / name)
            if not name.startswith(".") and info.st_ctime < before:
                if not stat.S_ISREG(info.st_mode):
                    tree_removal.remove_tree(parent / name)
                elif not in_use.may_be_in_use(parent / name):
                    os.unlink(parent / name)
                count += 1
    return count


def find_missing(repo: Repo, layers: Sequence[str]) -> str | None:
    """Return the first of the layers that is missing, None when all are there."""
    return next((layer for layer in layers if not layer_file(repo, layer).is_file()), None)


def read_free(repo: Repo) -> int:
    """Return the free bytes of the repository's file system that this user may use."""
    path = repo.path
    while not os.path.exists(path):  # it is not created yet
        path = os.path.dirname(path)
    info = os.statvfs(path)
    return info.f_bavail * info.f_frsize
