"""Whether a site lets its users give a VM a file or directory of the host, as it says of templates (users-may-set)."""

from __future__ import annotations

import os

from pcocc_runtime.errors import RequestError
from pcocc_runtime.settings.directories import site_dir
from pcocc_runtime.site.limits import is_below
from pcocc_runtime.site.site import read_site
from pcocc_runtime.system import accounts, user_files
from pcocc_runtime.templates.fill import fill_pattern


def ensure_path_allowed(path: str, noun: str) -> None:
    """Raise RequestError when the site does not; a path is judged by where it really leads."""
    patterns = read_site(site_dir(os.environ, os.geteuid())).users_may_set.patterns("host-paths")
    if patterns is None:
        return
    account = accounts.read_account(os.geteuid())
    words = {"user": account.pw_name, "clusteruser": account.pw_name}
    filled = [user_files.real_path(fill_pattern(one, words, account.pw_dir)) for one in patterns]
    if not is_below(user_files.real_path(path), filled):
        raise RequestError(
            f"{noun} {path} may not be given to VMs at this site", f"allowed: {', '.join(patterns) or 'nothing'}"
        )
