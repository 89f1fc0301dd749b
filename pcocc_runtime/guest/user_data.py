"""The user-data of a file: its text, and the sentences that tell what cloud-init would make of it.

What is typed is read when a job is submitted, and what is an array task's own when its VMs boot.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from pcocc_runtime.documents import wire_steps
from pcocc_runtime.documents.cluster import MAX_USER_DATA
from pcocc_runtime.errors import ConfigError, PcoccError, RequestError
from pcocc_runtime.guest import jinja
from pcocc_runtime.guest.user_data_fault import Fault
from pcocc_runtime.guest.user_data_judging import Told
from pcocc_runtime.guest.user_data_parts import JINJA, Part, unpack
from pcocc_runtime.settings.tree import parse_yaml

_GZIP = b"\x1f\x8b"
_PACKED = {b"\xfd7zXZ": "xz", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstd", b"PK\3\4": "zip", b"7z\xbc\xaf": "7-zip"}
_CONTROLS = bytes({*range(32)} - {*b"\t\n\r\f"})
_SENTENCE = re.compile(r"(is|does|has|changes) ")  # its subject is the file


def parse_user_data(data: bytes, path: str) -> str:
    """Return the text of a user-data file, unpacked as cloud-init does; RequestError when it is too large, or no text.

    Of a larger file than MAX_USER_DATA, that many bytes and one suffice.
    """
    what = f"user-data file {path}"
    if data.startswith(_GZIP) and len(data) <= MAX_USER_DATA:
        try:
            data = unpack(data)
        except ValueError as error:
            raise RequestError(f"{what} is packed by gzip, and damaged: {error}", "pack it again") from None
    if len(data) > MAX_USER_DATA:
        hint = "let it fetch the rest, for example with cloud-init's '#include'"
        raise RequestError(f"{what} is larger than {MAX_USER_DATA >> 10} KiB", hint)
    packer = next((name for begin, name in _PACKED.items() if data.startswith(begin)), None)
    if packer:
        raise RequestError(f"{what} is packed by {packer}, which cloud-init does not unpack", "unpack it, or use gzip")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"{what} is not UTF-8 text (byte {error.start})", _find_encoding(data)) from None
    if _is_wide(data):
        raise RequestError(f"{what} is not UTF-8 text (byte {data.index(0)})", _find_encoding(data))
    return text


def _is_wide(data: bytes) -> bool:
    """Tell whether data are text of UTF-16, with a byte-order mark or without."""
    return data.startswith((b"\xff\xfe", b"\xfe\xff")) or 3 * data[:600].count(0) > len(data[:600])


def _find_encoding(data: bytes) -> str:
    """Return what to do with data that are no UTF-8: text of another encoding has no control characters."""
    is_text = _is_wide(data) or len(data.translate(None, _CONTROLS)) == len(data)
    return "save it as UTF-8" if is_text else "binary user-data cannot be used; gzip's format and MIME can"


def tell_faults(
    found: Iterable[Told], explain: Callable[[Told], PcoccError], forced: bool, notes: list[str]
) -> None:
    """Raise what refuses a user-data, and add the rest to `notes`, once; all of it when it is `forced`."""
    for one in found:
        error = explain(one)
        if one.refuses and not forced:
            if error.hint:
                error.hint += f"; --{wire_steps.OPTION_USER_DATA_FORCE} passes it on as it is"
            raise error
        text = f"{error} ({error.hint})" if error.hint else str(error)
        if text not in notes:
            notes.append(text)


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
