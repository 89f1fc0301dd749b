"""Images in repositories: found, listed, added to, copied, resized and deleted."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pcocc_runtime import config, imagemeta, qcow2, repos
from pcocc_runtime.errors import ConfigError, PcoccError, RequestError
from pcocc_runtime.imagemeta import Revision
from pcocc_runtime.progress import Progress, silent
from pcocc_runtime.repos import Reference, Repo
from pcocc_runtime.schema import Problems
from pcocc_runtime.system import claims, qemuimg, removal, repository, transfer, userfiles
from pcocc_runtime.yamlfile import Node


@dataclass(frozen=True, slots=True)
class Found:
    """A revision of an image, and the repository that has it."""

    repo: Repo
    revision: Revision

    @property
    def path(self) -> Path:
        """Return the top layer, which is the disk."""
        return repository.layer_file(self.repo, self.revision.layers[-1])

    @property
    def reference(self) -> str:
        """Return what names this revision and no other."""
        return f"{self.repo.name}:{self.revision.entry}"


@dataclass(frozen=True, slots=True)
class Work:
    """A directory for files that are to become layers; it and what it pins are safe from gc as long as it is open."""

    repo: Repo
    path: Path


def load_repos(confdir: str, user_dir: str | None, words: Mapping[str, str], problems: Problems) -> tuple[Repo, ...]:
    """Return the repositories in order of priority: the user's, then the site's; one in ~/.pcocc when no file names any."""
    site_tree = config.read_tree(f"{confdir}/repos.yaml", problems)
    user_tree = config.read_tree(f"{user_dir}/repos.yaml", problems) if user_dir else Node({}, "", 1, "")
    site = repos.parse_repos(site_tree, True, words, problems)
    user = repos.parse_repos(user_tree, False, words, problems)
    if not site and not user and not problems:
        return (Repo("user", repos.expand_path(repos.DEFAULT_PATH, words) or "/nonexistent"),)
    return repos.merge_repos(user, site, user_tree, problems)


def read_repos(confdir: str, user_dir: str | None, words: Mapping[str, str]) -> tuple[Repo, ...]:
    """Return the repositories as `load_repos` does; raises the first ConfigError."""
    problems: list[ConfigError] = []
    found = load_repos(confdir, user_dir, words, problems)
    if problems:
        raise problems[0]
    return found


def path_words(environ: Mapping[str, str], user: str, home: str) -> dict[str, str]:
    """Return the values of %{...} in the paths of repositories."""
    return {"user": user, "homedir": home, **{f"env:{name}": value for name, value in environ.items() if value}}


def list_images(every: Sequence[Repo]) -> dict[str, Repo]:
    """Return the name of every image and the repository it is taken from; opens no file of any image."""
    found: dict[str, Repo] = {}
    for repo in reversed(every):
        with repository.explain(repo):
            found.update(dict.fromkeys(repository.list_entries(repo), repo))
    return found


def list_names(every: Sequence[Repo], problems: list[PcoccError]) -> dict[str, str]:
    """Return the name of every image and its repository's; a repository that cannot be read is added to `problems`."""
    found: dict[str, str] = {}
    for repo in every:
        try:
            found |= {name: repo.name for name in list_images([repo]) if name not in found}
        except PcoccError as error:
            problems.append(error)
    return found


def find_image(reference: Reference, every: Sequence[Repo]) -> Found:
    """Return the revision that a reference means; RequestError when no repository has it."""
    others: list[str] = []
    for repo in every if reference.repo is None else (repos.choose_repo(every, reference.repo),):
        with repository.explain(repo), contextlib.suppress(FileNotFoundError):
            revisions = repository.list_entries(repo).get(reference.name, [])
            wanted = max(revisions, default=None) if reference.revision is None else reference.revision
            if wanted in revisions:
                return Found(repo, repository.read_revision(repo, reference.name, wanted))
            others += [f"{repo.name}:{reference.name}@{revision}" for revision in revisions]
    if others:
        raise RequestError(f"image {reference.name!r} has no revision {reference.revision}", f"it has {_some(others)}")
    place = f"in repository {reference.repo!r}" if reference.repo else f"in any repository ({_some([r.name for r in every])})"
    raise RequestError(f"there is no image {reference.name!r} {place}", "see 'pcocc image list'")


def _some(words: Sequence[str]) -> str:
    return ", ".join([*words[-10:], *([f"and {len(words) - 10} more"] if len(words) > 10 else [])]) or "none"


def find_boot_disk(text: str, every: Sequence[Repo]) -> tuple[str, str]:
    """Return the path of the disk that `[REPO:]NAME[@REV]` means, and its full name; RequestError when VMs cannot run from it."""
    found = find_image(repos.parse_reference(text), every)
    ensure_disk(found)
    return str(found.path), found.reference


def read_images(every: Sequence[Repo], problems: list[PcoccError]) -> list[Found]:
    """Return every revision of every image; a repository or metadata file that cannot be read is added to `problems`."""
    found: list[Found] = []
    for repo in every:
        try:
            with repository.explain(repo):
                found += [Found(repo, one) for one in repository.read_all(repo, problems)]
        except PcoccError as error:
            problems.append(error)
    return found


def read_size(found: Found) -> int | None:
    """Return the size in bytes of an image's disk, None when it has none that can be read."""
    known = found.revision.custom.get("disk")  # pcocc 0.7 carries it on to revisions with another disk
    if isinstance(known, dict) and known.get("layer") == found.revision.layers[-1]:
        size = known.get("size")
        if type(size) is int and 0 < size < 1 << 63:  # a bool is an int too
            return size
    try:
        return read_header(found.path, "image").size if found.revision.kind == "vm" else None
    except PcoccError:
        return None


def stored_sizes(every: Sequence[Found]) -> dict[str, int | None]:
    """Return the bytes each layer takes, None for one that is missing."""
    sizes: dict[str, int | None] = {}
    for found in every:
        for layer in found.revision.layers:
            try:
                sizes[layer] = repository.layer_file(found.repo, layer).stat().st_blocks * 512
            except OSError:
                sizes[layer] = None
    return sizes


def describe_repo(repo: Repo) -> tuple[Repo, str, int, int]:
    """Return a repository with its state in a few words, the number of its images, and the bytes free."""
    try:
        with repository.explain(repo):
            if not repository.is_created(repo):
                return repo, "not created yet", 0, repository.read_free(repo)
            state = "writable" if os.access(repository.work_parent(repo), os.W_OK, effective_ids=True) else "read-only"
            return repo, state, len(repository.list_entries(repo)), repository.read_free(repo)
    except PcoccError as error:
        return repo, f"error: {error.message}", 0, 0


def ensure_disk(found: Found) -> None:
    """Raise RequestError unless the image is a VM's and each layer's backing file is the layer below, and nothing else."""
    if found.revision.kind != "vm":
        raise RequestError(f"image {found.reference} is a container's, not a VM's")
    if len(found.revision.layers) > imagemeta.MAX_LAYERS:
        raise RequestError(f"image {found.reference} has more than {imagemeta.MAX_LAYERS} layers", _flatten_hint(found))
    below: Path | None = None
    for number, layer in enumerate(found.revision.layers):
        path = repository.layer_file(found.repo, layer)
        header = read_header(path, f"layer {number} of image {found.reference},")
        backing = os.path.realpath(path.parent / header.backing_file) if header.backing_file is not None else None
        if backing != (os.path.realpath(below) if below else None):
            raise RequestError(
                f"image {found.reference} is damaged: the backing file of {path} is not the layer below",
                "see 'pcocc image verify'",
            )
        below = path


def _flatten_hint(found: Found) -> str:
    return f"make one layer of them: pcocc image export {found.reference} FILE.qcow2, then import that"


def read_header(path: Path, what: str) -> qcow2.Header:
    """Return the header of a qcow2 file that the caller may read."""
    return qcow2.parse_header(userfiles.read_start(str(path), qcow2.HEAD_SIZE, what), str(path))


@contextlib.contextmanager
def open_work(repo: Repo) -> Iterator[Work]:
    """Begin to add to a repository, which is created when it is not there; all that fails in the block is explained."""
    with repository.explain(repo, changing=True):
        if not repository.is_created(repo):
            repository.make_root(repo)
        if not repository.is_created(repo) or not repository.work_parent(repo).is_dir():
            with locked(repo):
                repository.complete(repo)
        removal.sweep(repo)
        with claims.open_work(repository.work_parent(repo), repository.WORK_PREFIX, shared=True) as path:
            yield Work(repo, path)


def locked(repo: Repo) -> contextlib.AbstractContextManager[None]:
    """Hold a repository's lock: for single steps, not for work that takes long."""
    return claims.locked(repository.lock_path(repo), f"repository {repo.name!r}")


def pin(work: Work, layers: Sequence[str]) -> list[str]:
    """Keep these layers from gc as long as `work` is open; return those that the repository lacks."""
    with locked(work.repo):
        draft = work.path / "pins"
        draft.write_text("".join(f"{layer}\n" for layer in layers))
        draft.chmod(0o644)
        return [layer for layer in layers if not repository.has_layer(work.repo, layer)]


def ensure_new(repo: Repo, name: str) -> None:
    """Raise RequestError when the repository has an image of that name."""
    with repository.explain(repo):
        if name in repository.list_entries(repo):
            raise _taken(repo, name)


def ensure_vms(repo: Repo, name: str) -> None:
    """Raise RequestError when the repository has an image of that name that is no VM's."""
    with repository.explain(repo), contextlib.suppress(FileNotFoundError):
        revisions = repository.list_entries(repo).get(name, [])
        if revisions and repository.read_revision(repo, name, revisions[-1]).kind != "vm":
            raise RequestError(f"image {repo.name}:{name} is a container's, not a VM's", "take another name")


def _taken(repo: Repo, name: str) -> RequestError:
    return RequestError(
        f"repository {repo.name!r} has an image {name!r} already",
        f"take another name, or delete it first: pcocc image delete {repo.name}:{name}",
    )


def add_revision(
    work: Work,
    name: str,
    layer: Path,
    parent: Found | None,
    *,
    digest: str | None = None,
    new: bool = False,
    description: str = "",
    custom: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> Revision:
    """Make `layer`, a qcow2 file in `work` that nobody writes any more, the next revision of an image.

    Its backing file is the disk of `parent`, or it has none when `parent` is None. The parent may be in another
    repository: what is missing here is copied. `digest` is the layer's sum when it names its backing file right already.
    `new` refuses a name that is taken.
    """
    below = parent.revision.blobs if parent else ()
    if parent:
        ensure_layers_left(parent)
    fetched = fetch_layers(work, parent, progress) if parent else {}
    if parent and digest is None:
        qemuimg.name_backing(layer, imagemeta.backing_name(parent.revision.layers[-1]))
    header = read_header(layer, "the new layer")
    if header.backing_file is not None and not parent:
        raise RequestError(f"the new layer {layer} has the backing file {header.backing_file!r}", "say which image it builds on")
    digest = digest or transfer.hash_file(layer, progress("computing its checksum"))
    facts = {**(custom or {}), "disk": {"layer": digest, "size": header.size}}
    one = Revision(name, 0, "vm", user_name(), time.time(), (*below, digest), facts, description)
    return publish(work, one, {**fetched, digest: layer}, new=new, progress=progress)


def ensure_layers_left(parent: Found) -> None:
    """Raise RequestError when no layer can be put upon those of an image."""
    count = len(parent.revision.blobs)
    if count >= imagemeta.MAX_LAYERS:
        message = f"image {parent.reference} has {count} layers, an image can have {imagemeta.MAX_LAYERS}"
        raise RequestError(message, _flatten_hint(parent))


def fetch_layers(work: Work, source: Found, progress: Progress) -> dict[str, Path]:
    """Copy the layers of an image of any repository that this one lacks into `work`, and pin those it has."""
    fetched = {}
    missing = pin(work, source.revision.layers)
    for layer in source.revision.layers:
        if layer not in missing and not _is_cut_short(work.repo, source.repo, layer):
            continue
        fetched[layer] = work.path / layer
        with repository.open_layer(source.repo, layer) as (read, size):
            _length, digest = transfer.copy(read, fetched[layer], size, progress(f"copying layer {layer[:12]}"))
        if digest != layer:
            raise RequestError(
                f"image {source.reference} is damaged: the content of layer {layer} is not what its name says",
                f"see 'pcocc image verify {source.reference}'",
            )
    return fetched


def _is_cut_short(repo: Repo, source: Repo, layer: str) -> bool:
    """Tell whether a repository's layer is shorter than the same one of another repository."""
    here, there = repository.find_length(repo, layer), repository.find_length(source, layer)
    return here is None or (there is not None and here < there)


def publish(work: Work, one: Revision, files: Mapping[str, Path], *, new: bool, progress: Progress = silent) -> Revision:
    """Put `files` (by sha256) and then the metadata in place, under the next free number; return what was stored.

    A layer that is there already is read, and replaced when it is damaged; a sound one stays, for VMs may have it open.
    """
    damaged = set()
    for layer, path in files.items():  # before the lock: it may take long
        repository.flush(path)
        if repository.is_damaged(work.repo, layer, path.stat().st_size, progress(f"comparing layer {layer[:12]}")):
            damaged.add(layer)
    with locked(work.repo):
        repository.refresh(work.repo)
        revisions = repository.list_entries(work.repo).get(one.name, [])
        if new and revisions:
            raise _taken(work.repo, one.name)
        missing = repository.find_missing(work.repo, [layer for layer in one.layers if layer not in files])
        if missing:
            raise RequestError(f"layer {missing} has gone from repository {work.repo.name!r} meanwhile", "try again")
        for layer, path in files.items():
            repository.put_layer(work.repo, path, layer, layer in damaged)
        number = imagemeta.next_revision(revisions)
        while not repository.put_revision(work.repo, stored := replace(one, revision=number), work.path):
            number += 1
    return stored


def user_name() -> str:
    """Return the caller's name."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def copy_image(source: Found, target: Reference, every: Sequence[Repo], progress: Progress) -> Found:
    """Make a new image of another one's layers, in any repository."""
    repo = repos.choose_repo(every, target.repo)
    ensure_new(repo, target.name)
    with open_work(repo) as work:
        fetched = fetch_layers(work, source, progress)
        one = replace(source.revision, name=target.name, owner=user_name(), timestamp=time.time())
        return Found(repo, publish(work, one, fetched, new=True, progress=progress))


def resize_image(found: Found, change: str, progress: Progress) -> Found:
    """Make a revision with a larger disk; `change` is a size such as 20G, or +5G for that much more."""
    ensure_disk(found)
    old = read_header(found.path, "image").size
    size = imagemeta.parse_size(change, old)
    if size == old:
        raise RequestError(f"image {found.reference} has {imagemeta.render_size(old)} already", "say how large it is to be")
    if size > qcow2.MAX_SIZE:
        raise RequestError(f"{change} is too large: a disk can have {imagemeta.render_size(qcow2.MAX_SIZE)}")
    if size < old:
        raise RequestError(
            f"image {found.reference} has {imagemeta.render_size(old)}, and a disk cannot be made smaller",
            "the file systems in it would be cut off",
        )
    with open_work(found.repo) as work:
        pin(work, found.revision.layers)
        layer = work.path / "layer"
        qemuimg.create_above(found.path, size, layer)
        one = add_revision(
            work,
            found.revision.name,
            layer,
            found,
            description=found.revision.description,
            custom=found.revision.custom,
            progress=progress,
        )
    return Found(found.repo, one)
