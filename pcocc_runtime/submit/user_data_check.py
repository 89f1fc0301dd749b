"""What is to be told of the user-data of a job: sentences with the places of what cloud-init would do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache

from pcocc_runtime.documents import wire_steps
from pcocc_runtime.errors import ConfigError, PcoccError, RequestError
from pcocc_runtime.settings.tree import Node, parse_yaml
from pcocc_runtime.submit import cloud_init, jinja
from pcocc_runtime.submit.cloud_config import with_plain_header
from pcocc_runtime.submit.cloud_users import Identities
from pcocc_runtime.submit.fault import Fault
from pcocc_runtime.submit.judging import Told, judge_user_data
from pcocc_runtime.submit.submission import Submission
from pcocc_runtime.submit.user_data_parts import CONFIG, JINJA, Part, parse_parts

_SHOWN = 4  # of a user-data with many cloud-configs, so many are shown to cloud-init
_SENTENCE = re.compile(r"(is|does|has|changes) ")  # its subject is the file
_NO_TEXT = re.compile(r"([0-9.]+|True|False) is not of type 'string'")
_QUOTES = "put that value in quotes: YAML takes a bare 0644 for a number, and a bare yes for true"
_judge = cache(judge_user_data)  # the VMs of a job often have the same text


def check_file(submission: Submission, text: str, path: str) -> None:
    """Tell what is to be told of the user-data of a file; RequestError when it is refused."""
    told = _judge_thoroughly(
        text, _names_of(submission), submission.filling.thorough,
        f"see: cloud-init schema --config-file {path}",
    )
    _tell(submission, told, lambda one: explain_in_file(path, one))


def check_mapping(submission: Submission, text: str, place: Node) -> None:
    """Tell what must be told about the cloud-config in a template's setting; ConfigError when it is refused."""
    told = _judge_thoroughly(
        text, _names_of(submission), True, "see cloud-init's documentation of that module"
    )
    _tell(
        submission, told,
        lambda one: place.at(one.fault.keys).error(one.says + one.fault.message, one.fault.hint),
    )


def _names_of(submission: Submission) -> Identities:
    return Identities(submission.caller.user, submission.filling.chosen.values["command-user"])


def _judge_thoroughly(text: str, names: Identities, thorough: bool, hint: str) -> list[Told]:
    found = list(_judge(text, names))
    if thorough and not any(one.refuses for one in found):
        found += _find_schema_errors(text, hint)
    return found


def _tell(submission: Submission, found: list[Told], explain: Callable[[Told], PcoccError]) -> None:
    """Raise what refuses a user-data, and note the rest; all of it is noted when the user wants it all the same."""
    for one in found:
        error = explain(one)
        if one.refuses and not submission.forces_user_data:
            if error.hint:
                error.hint += f"; --{wire_steps.OPTION_USER_DATA_FORCE} passes it on as it is"
            raise error
        submission.note(error)


def _find_schema_errors(text: str, hint: str) -> Iterator[Told]:
    """Yield what this host's cloud-init says of user-data; the guest's may be another release and say otherwise."""
    for part in [one for one in parse_parts(text) if one.type == CONFIG][:_SHOWN]:
        problem = cloud_init.find_schema_error(with_plain_header(part.text))
        if problem:
            message = f"{problem}, says the cloud-init of this host; the guest's own may take it"
            yield Told(Fault(message, _QUOTES if _NO_TEXT.search(problem) else hint), part, False)


def explain_in_file(path: str, told: Told) -> RequestError:
    """Return a sentence about a file, with line, part and key as far as they are known."""
    part, fault = told.part, told.fault
    name, line, key = f", {part.name}" if part.name else "", told.line, ""
    if fault.keys:
        line, key = _find_place(part, fault)
    where = f"{path}:{line}" if line and part.line is not None else path
    sentence = told.says + fault.message
    if key or not _SENTENCE.match(sentence):
        return RequestError(f"user-data file {where}{name}: {key}{sentence}", fault.hint)
    return RequestError(f"user-data file {where}{name}{',' if name else ''} {sentence}", fault.hint)


def _find_place(part: Part, fault: Fault) -> tuple[int | None, str]:
    """Return the line and the path of what keys lead to in a part, as far as it can be read."""
    text = jinja.render_jinja(part.text).likely if part.type == JINJA else part.text
    try:
        place = parse_yaml("\n" * (part.line or 0) + text, "", []).at(fault.keys)
    except ConfigError:
        return None, f"{fault.keys[0]}: "
    return place.line, f"{place.path}: "
