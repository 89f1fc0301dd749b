"""The parts that cloud-init makes of user-data before its handlers see them (user_data.py, handlers/__init__.py)."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from pcocc_runtime.errors import ConfigError
from pcocc_runtime.guest.user_data_fault import YAML_HINT, Fault
from pcocc_runtime.settings.tree import parse_yaml

if TYPE_CHECKING:
    from email.message import Message

CONFIG, JSON_PATCH, JINJA, ARCHIVE = (
    "text/cloud-config", "text/cloud-config-jsonp", "text/jinja2", "text/cloud-config-archive",
)
INCLUDES = ("text/x-include-url", "text/x-include-once-url")
PART_HANDLER = "text/part-handler"
SCRIPT = "text/x-shellscript"
HANDLED = frozenset({
    CONFIG, JSON_PATCH, JINJA, PART_HANDLER, SCRIPT, "text/cloud-boothook",
    "text/x-shellscript-per-boot", "text/x-shellscript-per-instance", "text/x-shellscript-per-once",
})  # fmt: skip
# how a text of each type begins, the longer first (handlers.INCLUSION_TYPES_MAP)
_BEGINNINGS = {
    "text/x-shellscript-per-instance": "text/x-shellscript-per-instance",
    "text/x-shellscript-per-boot": "text/x-shellscript-per-boot",
    "text/x-shellscript-per-once": "text/x-shellscript-per-once",
    "#cloud-config-archive": ARCHIVE,
    "#cloud-config-jsonp": JSON_PATCH,
    "## template: jinja": JINJA,
    "#cloud-boothook": "text/cloud-boothook",
    "#include-once": "text/x-include-once-url",
    "#cloud-config": CONFIG,
    "#part-handler": PART_HANDLER,
    "#include": "text/x-include-url",
    "#!": SCRIPT,
}
# types whose text says what it really is
_UNNAMED = ("text/plain", "text/x-not-multipart", SCRIPT)
_GZIPPED = frozenset(
    f"application/{name}"
    for name in (
        "gzip", "gzip-compressed", "gzipped", "x-compress", "x-compressed", "x-gunzip", "x-gzip",
        "x-gzip-compressed",
    )
)
_HEADER = re.compile("[!-9;-~]+")  # RFC 5322, 2.2
_MIME_HEAD = 4096  # bytes in which cloud-init looks for the mark of a MIME message
_MOST_UNPACKED = 4 << 20
_MOST_PARTS = 256
_KEYS_OF_ENTRIES = {
    "content", "filename", "type", "launch-index", "content-disposition", "number-attachments",
    "content-type",
}


class Part(NamedTuple):
    """A piece of user-data as a handler is given it.

    `name` is empty for a part that is the whole user-data; `line` is the number of lines before it in the
    file, None where the file has it encoded; `merges` is its header about merging; `fault` says why
    cloud-init leaves it out, `doubt` why some guests' would.
    """

    type: str
    text: str
    name: str = ""
    line: int | None = 0
    merges: str = ""
    fault: Fault | None = None
    doubt: Fault | None = None


class Broken(Exception):
    """cloud-init fails on the user-data as a whole, and then reads no vendor-data either."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def type_of(text: str, default: str = "") -> str:
    """Return the content type that a text's beginning tells, as cloud-init does (handlers.type_from_starts_with)."""
    start = text.lstrip()[:32].lower()
    return next((kind for word, kind in _BEGINNINGS.items() if start.startswith(word)), default)


def is_mime(text: str) -> bool:
    """Tell whether cloud-init takes a text for a MIME message (user_data.convert_string)."""
    return b"mime-version:" in text[:_MIME_HEAD].encode(errors="replace")[:_MIME_HEAD].lower()


def unpack(data: bytes) -> bytes:
    """Return data in gzip's format unpacked, all its members, up to 4 MiB of it.

    ValueError when it is damaged, or in another format.
    """
    found = b""
    while len(found) < _MOST_UNPACKED:
        machine = zlib.decompressobj(31)
        try:
            found += machine.decompress(data, _MOST_UNPACKED - len(found))
        except zlib.error as error:
            raise ValueError(str(error)) from None
        if not machine.eof and not machine.unconsumed_tail and len(found) < _MOST_UNPACKED:
            raise ValueError("it is cut short")
        data = machine.unused_data
        if not data.startswith(b"\x1f\x8b"):
            break
    return found


def parse_parts(text: str) -> list[Part]:
    """Return the parts of user-data in their order; Broken when cloud-init would fail to take it apart."""
    if not is_mime(text):
        return [*_open(Part(type_of(text, "text/x-not-multipart"), text), text)]
    import email  # 20 ms

    leaves = [
        one for one in email.message_from_string(text).walk() if one.get_content_maintype() != "multipart"
    ]
    if len(leaves) > _MOST_PARTS:
        raise Broken(Fault(f"it has more than {_MOST_PARTS} parts", "use fewer parts"))
    parts = list[Part]()
    for number, leaf in enumerate(leaves, 1):
        parts += _open(_read_leaf(leaf, f"part {number}" if len(leaves) > 1 else "", text), text)
    return parts


def _read_leaf(leaf: Message, name: str, whole: str) -> Part:
    """Return a part of a MIME message; a gzipped one is unpacked, and its type told by its text (_process_msg)."""
    file = leaf.get_filename()
    name = f"{name} ({file})" if name and file else name
    kind, payload = leaf.get_content_type(), _decode(leaf)
    if kind in _GZIPPED:
        try:
            data = payload.encode("utf-8", "surrogateescape") if isinstance(payload, str) else payload
            payload, kind = unpack(data).decode(), "text/plain"
        except ValueError as error:
            message = f"{name or 'it'} cannot be unpacked: {error}".replace(
                "codec can't decode", "cannot decode"
            )
            raise Broken(Fault(message, "pack it with gzip, and encode it as base64")) from None
    text = payload if isinstance(payload, str) else payload.decode("utf-8", "surrogateescape")
    if kind in _UNNAMED:
        kind = type_of(text, kind)
    at = whole.find(text) if text else -1
    line = whole.count("\n", 0, at) if at >= 0 else None
    return Part(kind, text, name, line, str(leaf.get("Merge-Type") or leaf.get("X-Merge-Type") or ""))


def _decode(leaf: Message) -> str | bytes:
    """Return a part's content as util.fully_decoded_payload does: letters that are not ASCII may come out wrong."""
    payload: Any = leaf.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return str(payload or "")
    return payload.decode("utf-8", "surrogateescape") if leaf.get_content_maintype() == "text" else payload


def _open(part: Part, whole: str) -> Iterator[Part]:
    """Yield a part, or what is in it where it is an archive (_explode_archive)."""
    if part.type != ARCHIVE:
        yield part
        return
    import yaml

    try:
        tree = parse_yaml(part.text, "", [])
        entries = yaml.safe_load(part.text)
        entries = [] if entries is None else entries
    except (
        ConfigError, yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError,
        RecursionError,
    ) as error:
        said = (
            error.message
            if isinstance(error, ConfigError)
            else (str(error).splitlines() or [type(error).__name__])[0]
        )
        yield part._replace(fault=Fault(f"as an archive it is not valid YAML: {said}", YAML_HINT))
        return
    if not isinstance(entries, list | set):
        yield part._replace(
            fault=Fault("as an archive it must be a list of texts and mappings", "begin each part with '- |'")
        )
        return
    for number, entry in enumerate(entries, 1):
        found = _read_entry(entry, f"{part.name}, entry {number}".removeprefix(", "))
        if found:
            place = tree.at([number - 1, *(["content"] if isinstance(entry, dict) else [])])
            exact = part.line is not None and part.text in whole and "\n" in found.text
            yield found._replace(line=place.line + (part.line or 0) if exact else None)


def _read_entry(entry: Any, name: str) -> Part | None:
    """Return an archive entry's part; None for one that cloud-init skips, Broken for one that it fails on."""
    if isinstance(entry, str):
        entry = {"content": entry}
    if not isinstance(entry, dict):
        return None
    content, kind = entry.get("content", ""), entry.get("type")
    if isinstance(content, bytes):
        content = content.decode("utf-8", "surrogateescape")
    others = [
        value for key, value in entry.items() if isinstance(key, str) and key.lower() not in _KEYS_OF_ENTRIES
    ]
    right = (
        isinstance(content, str)
        and isinstance(kind or "", str)
        and all(isinstance(one, str | None) for one in others)
    )
    if not right or not all(isinstance(key, str) for key in entry) or (kind and "/" not in kind):
        message = f"{name} cannot be read by cloud-init, which would then read none of the others either"
        raise Broken(
            Fault(message, "write its content as text, such as {type: text/cloud-config, content: '...'}")
        )
    merges = next((value for key, value in entry.items() if key.lower() in ("merge-type", "x-merge-type")), None)
    file = f"{name} ({entry['filename']})" if entry.get("filename") else name
    return Part(kind or type_of(content, CONFIG), content, file, None, merges or "", None, _doubt_keys(entry, name))


def _doubt_keys(entry: dict[str, Any], name: str) -> Fault | None:
    """Return a note if a key of an entry cannot be the name of a header, as which email.message uses it."""
    odd = next((key for key in entry if key.lower() not in _KEYS_OF_ENTRIES and not _HEADER.fullmatch(key)), None)
    if odd is None:
        return None
    message = f"{name} has the key {odd!r}: with Python 3.14 or newer cloud-init reads nothing of the archive"
    return Fault(message, "use printable ASCII without spaces and colons in keys, or leave that one out")
