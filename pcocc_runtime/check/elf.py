"""A value in a shared object, read without opening it: Debian's are bound at once (BIND_NOW), and lack Slurm then."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

_SYMBOLS = 11  # SHT_DYNSYM of elf(5)
_LOAD = 1  # PT_LOAD


class _Section(NamedTuple):
    kind: int
    offset: int
    size: int
    link: int


class SharedObject:
    """A 64-bit ELF file, as elf(5) describes it; ValueError where it is none, or a damaged one."""

    def __init__(self, data: bytes) -> None:
        if data[:5] != b"\x7fELF\x02" or data[5:6] not in (b"\x01", b"\x02"):
            raise ValueError("it is no 64-bit ELF file")
        self._data, self._order = data, "<" if data[5] == 1 else ">"
        self._segments_at, self._sections_at = self._read("QQ", 32)
        _size, self._segments, _each, self._sections, _names = self._read("HHHHH", 54)

    def read_value(self, name: str) -> bytes | None:
        """Return the bytes of a variable that the file exports, None when it exports none of that name."""
        for section in self._list_sections():
            if section.kind == _SYMBOLS:
                for at in range(section.offset, section.offset + section.size, 24):
                    text, _info, _other, place, value, size = self._read("IBBHQQ", at)
                    if place and self._name(section.link, text) == name.encode():
                        offset = self._find_offset(value)
                        return self._data[offset : offset + size]
        return None

    def _list_sections(self) -> Iterator[_Section]:
        for number in range(self._sections):
            yield self._section(number)

    def _section(self, number: int) -> _Section:
        _name, kind, _flags, _address, offset, size, link = self._read("IIQQQQI", self._sections_at + 64 * number)
        return _Section(kind, offset, size, link)

    def _name(self, strings: int, at: int) -> bytes:
        begin = self._section(strings).offset + at
        return self._data[begin : self._data.find(b"\0", begin)]

    def _find_offset(self, address: int) -> int:
        """Return where in the file an address of the loaded object is."""
        for number in range(self._segments):
            kind, _flags, offset, start, _physical, size = self._read("IIQQQQ", self._segments_at + 56 * number)
            if kind == _LOAD and start <= address < start + size:
                return int(offset + address - start)
        raise ValueError("a symbol leads nowhere in it")

    def _read(self, form: str, at: int) -> tuple[int, ...]:
        try:
            return struct.unpack_from(self._order + form, self._data, at)
        except struct.error:
            raise ValueError("it is cut off") from None
