"""All there is to tell about user-data, in any form that cloud-init reads: reasons to refuse it, and notes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pcocc_runtime.errors import ConfigError
from pcocc_runtime.guest import jinja, json_patch
from pcocc_runtime.guest.cloud_config import HEADER, find_merge_obstacle, parse_cloud_config
from pcocc_runtime.guest.cloud_settings import find_empty_files, find_merger_fault
from pcocc_runtime.guest.cloud_users import Identities, find_lockout, find_unmade
from pcocc_runtime.guest.jinja_names import find_unknown_names
from pcocc_runtime.guest.user_data_fault import Fault
from pcocc_runtime.guest.user_data_parts import (
    CONFIG,
    HANDLED,
    INCLUDES,
    JINJA,
    JSON_PATCH,
    PART_HANDLER,
    SCRIPT,
    Broken,
    Part,
    is_mime,
    parse_parts,
    type_of,
)
from pcocc_runtime.guest.user_data_unhandled import find_miss, is_misspelt
from pcocc_runtime.settings.numbers import HINT, find_decimal_modes, find_odd_numbers
from pcocc_runtime.settings.tree import Node, TooMuch, parse_yaml

_WHOLE = Part("", "")
_EMPTY = re.compile(r"\s*(#cloud-config\S*[ \t]*(#.*)?\r?(\n|\Z)|\Z)", re.IGNORECASE)  # hardly meant to say more


class Told(NamedTuple):
    """Something to tell about a part: `refuses` when the guest could not use it, or no command could run in the VM."""

    fault: Fault
    part: Part
    refuses: bool
    line: int | None = None
    says: str = ""  # how the sentence begins: "is not a valid cloud-config: ", or nothing


class Config(NamedTuple):
    """Merged cloud-configs: `sources` has the part that set each key, `unsure` the keys whose value is not sure."""

    tree: dict[Any, Any]
    sources: dict[Any, Part]
    unsure: set[Any]


INVALID = "is not a valid cloud-config: "


def judge_user_data(text: str, names: Identities) -> list[Told]:
    """Return all there is to tell about user-data, the reasons to refuse it first."""
    try:
        parts = parse_parts(text)
    except Broken as error:
        return [Told(error.fault, _WHOLE, True)]
    told, likely, other = list[Told](), Config({}, {}, set()), Config({}, {}, set())
    free = any(part.type == PART_HANDLER for part in parts)  # a handler of the user's may take any type
    for part in parts:
        told += _take(part, likely, other, free)
    if not parts and text.strip():
        form, hint = (
            ("a MIME message", "look at its boundary")
            if is_mime(text)
            else ("an archive", "begin each part with '- |'")
        )
        fault = Fault(f"is {form} without a part, and cloud-init would find nothing in it", hint)
        told.append(Told(fault, _WHOLE, is_mime(text) and "cloud-config" in text.lower()))
    told += _find_obstacles(likely, other, names)
    return sorted(told, key=lambda one: not one.refuses)


def _take(part: Part, likely: Config, other: Config, free: bool) -> Iterator[Told]:
    """Merge a part into the cloud-configs before it; yield what there is to tell about it."""
    if part.doubt:
        yield Told(part.doubt, part, False)
    if part.fault:
        yield Told(part.fault, part, True)
    elif part.type == CONFIG:
        yield from _take_config(part, part.text, [likely, other])
    elif part.type == JSON_PATCH:
        yield from _take_patch(part, [likely, other])
    elif part.type == JINJA:
        yield from _take_template(part, likely, other)
    elif part.type in INCLUDES:
        message = (
            "is fetched by the guest (#include): pcocc cannot look at it, and if it cannot be fetched, no command"
            " can run in the VM"
        )
        yield Told(
            Fault(message, "a cloud-config in it must keep users a list, and must not set vendor_data"), part, False
        )
    elif part.type not in HANDLED and part.text.strip() and not free:
        miss = find_miss(part.text)
        yield Told(miss.fault, part, miss.meant)
    elif part.type == SCRIPT and is_misspelt(part.text):
        yield Told(find_miss(part.text).fault, part, True)
    elif part.type.startswith(SCRIPT) and part.text[:1].isspace() and part.text.lstrip().startswith("#!"):
        fault = Fault("has white space before #!, and the guest could not run it", "make #! its first characters")
        yield Told(fault, part, False)


def _take_config(part: Part, text: str, configs: list[Config]) -> Iterator[Told]:
    try:
        tree, found = _read(part, text)
    except TooMuch as error:
        yield Told(Fault(error.message, error.hint or "", ()), part, True, error.line)
        return
    value, fault = parse_cloud_config("\n" * (part.line or 0) + text)
    if fault:
        yield Told(fault, part, True, None, INVALID)
        return
    if fault := find_merger_fault(value or {}, part.merges):
        yield Told(fault, part, True)
        return
    if value is None and not _EMPTY.match(text):
        message = "has no setting in it, and cloud-init would find nothing to do"
        yield Told(Fault(message, f"write settings below the line {HEADER}"), part, False)
    yield from found
    yield from (_find_numbers(tree, part) if tree else ())
    for fault in find_empty_files(value or {}):
        yield Told(fault, part, False)
    for config in configs:
        _merge(config, value or {}, part)


def _read(part: Part, text: str) -> tuple[Node | None, list[Told]]:
    """Return the tree of a text with its places, and which keys it repeats; TooMuch when it would take all memory."""
    problems = list[ConfigError]()
    try:
        tree = parse_yaml("\n" * (part.line or 0) + text, "", problems)
    except TooMuch:
        raise
    except ConfigError:
        return None, []  # parse_cloud_config reports it, in cloud-init's terms
    twice = [one for one in problems if one.message.startswith("set twice")]
    hint = "the last one counts, and all of the first is lost: put them together"
    return tree, [Told(Fault(f"{one.key} is {one.message}", hint), part, False, one.line) for one in twice]


def _find_numbers(tree: Node, part: Part) -> Iterator[Told]:
    for node in find_odd_numbers(tree, sixties=True):
        yield Told(
            Fault(f"{node.path} is {node.raw}, which is the number {node.value} in YAML", HINT), part, False,
            node.line,
        )
    for node in find_decimal_modes(tree):
        message = f"{node.path} is {node.raw}, which cloud-init takes for mode {node.value:o}"
        fault = Fault(message, f"write '0{node.raw}'")
        yield Told(fault, part, False, node.line)


def _merge(config: Config, tree: Mapping[Any, Any], part: Part) -> None:
    """Merge a part as cloud-init's cloud-config handler does: the last part to set a key wins."""
    how = part.merges or any(key in tree for key in ("merge_how", "merge_type"))
    for key, value in tree.items():
        if how and key in config.tree and config.tree[key] != value:
            config.unsure.add(key)
            old = config.tree[key]
            value = [*old, *value] if isinstance(old, list) and isinstance(value, list) else value
        else:
            config.unsure.discard(key)
        config.tree[key], config.sources[key] = value, part


def _take_patch(part: Part, configs: list[Config]) -> Iterator[Told]:
    """Apply a JSON patch (RFC 6902) to what the cloud-configs before it come to, as far as that is sure."""
    try:
        steps = json_patch.parse_patch(part.text.lstrip()[len("#cloud-config-jsonp") :])
    except json_patch.NotPatch as error:
        message = f"is not a JSON patch, and cloud-init would leave it out: {error}"
        hint = 'write a list such as [{"op": "add", "path": "/packages", "value": ["vim"]}]'
        yield Told(Fault(message, hint), part, True)
        return
    for config in configs:
        try:
            tree = json_patch.apply_patch(config.tree, steps)
        except json_patch.NotApplied as error:
            if config.unsure:
                config.unsure.update(step.place[0] for step in steps if step.place)
            elif config is configs[0]:
                message = f"cannot be applied, and cloud-init would leave all of it out: {error}"
                yield Told(Fault(message, "a patch can change only what the parts before it have set"), part, False)
            continue
        if not isinstance(tree, dict):
            fault = Fault("turns the cloud-config into something that is no mapping", "let it change single keys")
            yield Told(fault, part, True)
            return
        config.unsure.difference_update(step.place[0] for step in steps if len(step.place) == 1)
        changed = [key for key, value in tree.items() if key not in config.tree or config.tree[key] != value]
        config.sources.update(dict.fromkeys(changed, part))
        config.tree.clear()
        config.tree.update(tree)


def _take_template(part: Part, likely: Config, other: Config) -> Iterator[Told]:
    fault = jinja.find_head_fault(part.text)
    if fault:
        yield Told(fault, part, True)
        return
    fault = jinja.find_syntax_fault(part.text)
    if fault:
        yield Told(fault, part, True)
        return
    yield from (Told(note, part, False) for note in find_unknown_names(part.text))
    rendered = jinja.render_jinja(part.text)
    kind = type_of(rendered.likely)
    if kind == CONFIG:
        for text, config in ((rendered.likely, likely), (rendered.other, other)):
            found = list(_take_config(part, text, [config]))
            yield from (
                []
                if config is other
                else found if rendered.exact else [one._replace(refuses=False) for one in found]
            )
    elif kind in (JINJA, JSON_PATCH):
        message = "is a template of a kind of text that cloud-init does not take from a template: it is left out"
        yield Told(Fault(message, f"begin its second line with {HEADER} or #!"), part, rendered.exact)
    elif kind not in HANDLED and rendered.likely.strip():
        miss = find_miss(rendered.likely)
        yield Told(miss.fault, part, miss.meant and rendered.exact)


def _find_obstacles(likely: Config, other: Config, names: Identities) -> Iterator[Told]:
    """Yield why no command could run in the VM; it is refused only if that is so however a template is rendered."""
    fault = find_merge_obstacle(likely.tree, names)
    if fault:
        key = fault.keys[0]
        value = likely.tree.get(key)
        known = key not in likely.unsure and not (isinstance(value, str) and jinja.STAND_IN in value)
        yield Told(
            fault, likely.sources.get(key, _WHOLE),
            known and find_merge_obstacle(other.tree, names) is not None,
        )
    elif fault := find_merge_obstacle(other.tree, names):
        yield Told(fault, other.sources.get(fault.keys[0], _WHOLE), False)
    elif names.command_user and (fault := find_lockout(likely.tree, names, names.command_user)):
        message = f"{fault.message}, if the image's own user is {names.command_user}"
        yield Told(fault._replace(message=message), likely.sources.get(fault.keys[0], _WHOLE), False)
    elif fault := find_unmade(likely.tree, names):
        yield Told(fault, likely.sources.get(fault.keys[0], _WHOLE), False)
