"""Who submits what: all that decides how a template's settings are chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pcocc_runtime.submit.request import Request, RequestPart
from pcocc_runtime.templates.fill import Filling

if TYPE_CHECKING:
    from pcocc_runtime.site.site import Site


@dataclass(frozen=True, slots=True)
class Caller:
    """Who submits, from where: what '~', '%{user}', relative paths and names of images mean.

    The user and `own_home` are the account's; `home` is what the environment says, as in a shell.
    """

    user: str
    home: str
    own_home: str | None
    directory: str
    environ: Mapping[str, str]
    find_image: Callable[[str], tuple[str, str]]  # [REPO:]NAME[@REV] -> the path of its disk, REPO:NAME@REV


@dataclass(frozen=True, slots=True)
class Submission:
    """The VMs of one group: what is asked for, by whom, at which site, and the texts of their template."""

    part: RequestPart
    request: Request
    site: Site
    caller: Caller
    filling: Filling
    user_data: str | None = None  # the text of the file that was typed
    user_data_path: str = ""  # and its path
    notes: list[str] = field(default_factory=list)  # what is good to know, and refuses nothing
    drives: dict[str, str] = field(default_factory=dict)  # the drives so far: real path to the path they were named by

    @property
    def forces_user_data(self) -> bool:
        """Tell whether user-data is passed on whatever is wrong with it."""
        return self.request.user_data_force or bool(self.filling.chosen.values["user-data-force"])
