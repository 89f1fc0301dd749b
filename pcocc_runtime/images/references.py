"""Image repositories as repos.yaml names them, and references to images: `[REPO:]NAME[@REV]`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pcocc_runtime.errors import RequestError
from pcocc_runtime.images.urls import hide_secrets
from pcocc_runtime.settings import checks
from pcocc_runtime.settings.checks import Problems, Setting
from pcocc_runtime.settings.tree import Node

# what pcocc 0.7 allows: with @REV it must fit in a file's name
_NAME = re.compile(r"(?!\.)[A-Za-z0-9_.-]{1,253}")
# an image can be used as a template, so it is named like one
_NEW_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_FORM = (
    "write [REPO:]NAME[@REVISION], such as debian, site:debian or debian@2, where names have letters, digits,"
    " '_', '.' and '-' and do not begin with '.'; see 'pcocc image list'"
)
_SOURCE = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]*)://.*|(oci|oci-archive|docker-archive|docker-daemon|docker):.*", re.DOTALL
)
DEFAULT_PATH = "%{homedir}/.pcocc/images"


@dataclass(frozen=True, slots=True)
class Repo:
    """A repository: a directory, named by the site's or the user's repos.yaml."""

    name: str
    path: str
    is_site: bool = False


@dataclass(frozen=True, slots=True)
class Reference:
    """What a user calls an image; no `repo` means the first repository that has it, no `revision` the highest."""

    name: str
    repo: str | None = None
    revision: int | None = None

    def __str__(self) -> str:
        repo = f"{self.repo}:" if self.repo else ""
        return f"{repo}{self.name}" if self.revision is None else f"{repo}{self.name}@{self.revision}"


def parse_reference(text: str) -> Reference:
    """Return the reference in `[REPO:]NAME[@REV]`."""
    if "/" in text:
        ensure_no_source(text)
    rest, at, revision = text.partition("@")
    repo, colon, name = rest.rpartition(":")
    if (colon and not _NAME.fullmatch(repo)) or not _NAME.fullmatch(name):
        raise RequestError(f"{_short(text)} is not the name of an image", _FORM)
    if at and not re.fullmatch(r"[0-9]{1,253}", revision, re.ASCII):
        raise RequestError(f"{_short(revision)} in {_short(text)} is not the number of a revision", _FORM)
    return Reference(name, repo or None, int(revision) if at else None)


def ensure_no_source(text: str) -> None:
    """Raise RequestError for a URL or a container image, which must be imported before VMs can boot from it."""
    match = _SOURCE.fullmatch(text)
    if match:
        shown = hide_secrets(text) if match[1] else text
        import_it = (
            f"import it first: pcocc image import {shlex.quote(shown)} NAME, and then use the image NAME"
        )
        raise RequestError(
            f"{_short(shown)} is neither an image in a repository nor a file: VMs cannot boot from it", import_it
        )


def parse_new_reference(text: str) -> Reference:
    """Return the reference of an image to be created: a name that can be typed anywhere, without a revision."""
    reference = parse_reference(text)
    if reference.revision is not None:
        raise RequestError(
            f"the revision of {_short(text)} cannot be chosen", f"write {text.partition('@')[0]}"
        )
    if not _NEW_NAME.fullmatch(reference.name):
        raise RequestError(f"{_short(reference.name)} cannot name an image", checks.name_hint("image"))
    return reference


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def _checked_repo(node: Node) -> dict[str, Any]:
    values: dict[str, Any] = checks.record(_REPO)(node)
    return {**values, "node": node}


_REPO = (
    Setting(
        "name", checks.pattern(_NEW_NAME.pattern, "a name of letters, digits, '_', '.', '-', at most 64"),
        True,
    ),
    Setting("path", checks.text, True),
)
_REPOS = (
    Setting("repos", checks.optional(checks.list_of(_checked_repo))),
    # pcocc 0.7's, for containers
    Setting("cache", checks.optional(checks.record((Setting("path", checks.text, True),)))),
)


def parse_repos(
    tree: Node, is_site: bool, words: Mapping[str, str] | None, problems: Problems
) -> tuple[Repo, ...]:
    """Return one file's repositories in order; `words` are the values of %{...}, None to accept any user's."""
    found: dict[str, Repo] = {}
    for one in checks.read_mapping(tree, _REPOS, problems).get("repos") or ():
        node, name = one["node"], one["name"]
        path = expand_path(one["path"], words)
        if path is None or not path.startswith("/"):
            problems.append(node.value["path"].error(f"{one['path']!r} is not an absolute path", _PATH_HINT))
        elif name in found:
            problems.append(node.value["name"].error(f"two repositories have the name {name!r}"))
        else:
            found[name] = Repo(name, path, is_site)
    return tuple(found.values())


_PATH_HINT = (
    "begin it with '/', '~/' or '%{homedir}/'; you can use %{homedir}, %{user} and %{env:NAME} for variables"
    " that are set"
)


def merge_repos(
    user: Sequence[Repo], site: Sequence[Repo], tree: Node, problems: Problems
) -> tuple[Repo, ...]:
    """Return all repositories in order of priority, the user's first; `tree` is the user's file."""
    taken = {repo.name for repo in site} & {repo.name for repo in user}
    for name in sorted(taken):
        problems.append(
            tree.error(f"the site has a repository with the name {name!r}, too", "give yours another name")
        )
    return (*user, *(repo for repo in site if repo.name not in taken))


_WORD = re.compile(r"%\{([^{}]*)\}")


def expand_path(text: str, words: Mapping[str, str] | None) -> str | None:
    """Return a path with `~` and %{...} filled in, None when it has an unknown word."""
    if text == "~" or text.startswith("~/"):
        text = f"%{{homedir}}{text[1:]}"
    used = _WORD.findall(text)
    known = (
        words
        if words is not None
        else {word: "/any" for word in used if re.fullmatch(r"homedir|user|env:.+", word)}
    )
    if any(word not in known for word in used):
        return None
    return _WORD.sub(lambda match: known[match[1]], text)


def choose_repo(repos: Sequence[Repo], name: str | None) -> Repo:
    """Return the repository with that name, the first one when no name is given."""
    for repo in repos:
        if name in (None, repo.name):
            return repo
    if not repos:
        raise RequestError("no image repository is defined", "name one in ~/.pcocc/repos.yaml")
    raise RequestError(f"there is no image repository {_short(str(name))}", known_repos(repos))


def known_repos(repos: Sequence[Repo]) -> str:
    """Return the hint that lists the repositories."""
    return f"repositories, in order of priority: {', '.join(repo.name for repo in repos) or 'none'}"
