"""What there is to tell about a job's user-data, as sentences: what cloud-init would do, and because of which line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from pcocc_runtime.guest.cloud_config import with_plain_header
from pcocc_runtime.guest.cloud_users import Identities
from pcocc_runtime.guest.user_data import explain_in_file, tell_faults
from pcocc_runtime.guest.user_data_fault import Fault
from pcocc_runtime.guest.user_data_judging import Told, judge_user_data
from pcocc_runtime.guest.user_data_parts import CONFIG, parse_parts
from pcocc_runtime.settings.tree import Node
from pcocc_runtime.submit import cloud_init
from pcocc_runtime.submit.submission import Submission

_SHOWN = 4  # cloud-configs of one user-data that are shown to cloud-init, if it has many
_NO_TEXT = re.compile(r"([0-9.]+|True|False) is not of type 'string'")
_QUOTES = "put that value in quotes: YAML takes a bare 0644 for a number, and a bare yes for true"
_judge = cache(judge_user_data)  # the VMs of a job often have the same text


def check_file(submission: Submission, text: str, path: str) -> None:
    """Note what there is to tell about a file of user-data; RequestError when it is refused."""
    told = _judge_thoroughly(
        text, _names_of(submission), submission.filling.thorough,
        f"see: cloud-init schema --config-file {path}",
    )
    tell_faults(
        told, lambda one: explain_in_file(path, one), submission.forces_user_data, submission.notes
    )


def check_mapping(submission: Submission, text: str, place: Node) -> None:
    """Note what there is to tell about the cloud-config in a template's setting; ConfigError when it is refused."""
    told = _judge_thoroughly(
        text, _names_of(submission), True, "see cloud-init's documentation of that module"
    )
    tell_faults(
        told, lambda one: place.at(one.fault.keys).error(one.says + one.fault.message, one.fault.hint),
        submission.forces_user_data, submission.notes,
    )


def _names_of(submission: Submission) -> Identities:
    return Identities(submission.caller.user, submission.filling.chosen.values["command-user"])


def _judge_thoroughly(text: str, names: Identities, thorough: bool, hint: str) -> list[Told]:
    found = list(_judge(text, names))
    if thorough and not any(one.refuses for one in found):
        found += _find_schema_errors(text, hint)
    return found


def _find_schema_errors(text: str, hint: str) -> Iterator[Told]:
    """Yield what this host's cloud-init says of user-data; the guest's may be another release and say otherwise."""
    for part in [one for one in parse_parts(text) if one.type == CONFIG][:_SHOWN]:
        problem = cloud_init.find_schema_error(with_plain_header(part.text))
        if problem:
            message = f"{problem}, says the cloud-init of this host; the guest's own may take it"
            yield Told(Fault(message, _QUOTES if _NO_TEXT.search(problem) else hint), part, False)
