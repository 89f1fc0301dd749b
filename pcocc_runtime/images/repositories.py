"""The repositories of a site and a user, in order of priority."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pcocc_runtime.errors import ConfigError
from pcocc_runtime.images import references
from pcocc_runtime.images.references import Repo
from pcocc_runtime.settings import directories
from pcocc_runtime.settings.checks import Problems
from pcocc_runtime.settings.tree import Node
from pcocc_runtime.system import accounts


def load_repos(
    confdir: str, user_dir: str | None, words: Mapping[str, str], problems: Problems
) -> tuple[Repo, ...]:
    """Return the repositories by priority: the user's, then the site's; one in ~/.pcocc when no file names any."""
    site_tree = directories.read_tree(f"{confdir}/repos.yaml", problems)
    user_tree = directories.read_tree(f"{user_dir}/repos.yaml", problems) if user_dir else Node({}, "", 1, "")
    site = references.parse_repos(site_tree, True, words, problems)
    user = references.parse_repos(user_tree, False, words, problems)
    if not site and not user and not problems:
        return (Repo("user", references.expand_path(references.DEFAULT_PATH, words) or "/nonexistent"),)
    return references.merge_repos(user, site, user_tree, problems)


def read_repos(confdir: str, user_dir: str | None, words: Mapping[str, str]) -> tuple[Repo, ...]:
    """Return the repositories as `load_repos` does; raises the first ConfigError."""
    problems: list[ConfigError] = []
    found = load_repos(confdir, user_dir, words, problems)
    if problems:
        raise problems[0]
    return found


def path_words(environ: Mapping[str, str], user: str, home: str) -> dict[str, str]:
    """Return the values of the %{...} words in paths of repositories."""
    return {
        "user": user, "homedir": home, **{f"env:{name}": value for name, value in environ.items() if value},
    }


def load_own_repos() -> tuple[Repo, ...]:
    """Return the caller's repositories."""
    words = path_words(os.environ, accounts.user_name(), os.path.expanduser("~"))
    return read_repos(directories.site_dir(os.environ, os.geteuid()), directories.user_dir(os.environ), words)
