"""Whether a site lets its users set what a template of theirs, or the command line, says."""

from __future__ import annotations

from pcocc_runtime.errors import RequestError
from pcocc_runtime.site.limits import is_among, is_below
from pcocc_runtime.submit.entry import Entry
from pcocc_runtime.submit.submission import Submission
from pcocc_runtime.system import user_files
from pcocc_runtime.templates.row import Limit


def ensure_allowed(submission: Submission, entry: Entry, limit: Limit) -> None:
    """Raise RequestError when the site does not let users set this; a path is judged by where it really leads."""
    patterns = submission.site.users_may_set.patterns(limit.key)
    if patterns is None:
        return
    hint = f"allowed: {', '.join(patterns) or 'nothing'}"
    text, filled = entry.text, [submission.filling.words_in(pattern) for pattern in patterns]
    if limit.allows != "text":
        text, filled = user_files.real_path(text), [user_files.real_path(pattern) for pattern in filled]
    if limit.allows == "below":
        if not is_below(text, filled):
            raise RequestError(f"{entry.noun} {entry.text} may not be given to VMs at this site", hint)
    elif not is_among(text, filled):
        raise RequestError(f"this site does not let users set {text!r} here", hint)
