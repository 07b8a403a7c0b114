# SPDX-License-Identifier: GPL-2.0-or-later
"""What a program's file tells: its functions, its code, and its tables.

Only what a witness by uprobes needs of the ELF format is read (System V ABI,
AMD64 supplement): symbols, the memory image, and relocations that are
relative to where the program is loaded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.errors import SourceError
from vfio_p2p.foreign import read_file
from vfio_p2p.trace import printable

_MAGIC = b"\x7fELF\x02\x01"     # 64 bits, little endian
_X86_64 = 62
_SYMBOL_TABLES = (2, 11)        # SHT_SYMTAB, SHT_DYNSYM
_RELOCATIONS = 4                # SHT_RELA
_RELATIVE = 8                   # R_X86_64_RELATIVE
_LOADED = 1                     # PT_LOAD
_SEGMENT_BYTES = 56             # the size of struct Elf64_Phdr
_SECTION_BYTES = 64             # the size of struct Elf64_Shdr
_LONGEST_TEXT = 256
_LONGEST_NAME = 4096
_MAX_BYTES = 1 << 30             # QEMU with debug information has 200 MiB


@dataclass(frozen=True, slots=True)
class _Section:
    kind: int
    offset: int
    size: int
    link: int


class Elf:
    """A 64-bit program for x86, that need not be for this machine.

    :ivar symbols: The address and the size in bytes of each function and
        variable that the file has the name of.

    :param path: Its file.
    :raise SourceError: When it cannot be read, or is no such program.
    """

    def __init__(self, path: Path) -> None:
        self.name = printable(str(path))
        try:
            self._data = read_file(path, _MAX_BYTES)
        except OSError as err:
            raise SourceError(
                f"{self.name}: {err.strerror}",
                "Give the file of a QEMU that can be read.",
            ) from err
        if (
            not self._data.startswith(_MAGIC)
            or len(self._data) < 64
            or self._numbers("H", 18)[0] != _X86_64
        ):
            raise SourceError(
                f"{self.name} is no program for x86-64",
                "Give the file of a QEMU itself, and not a script that "
                "starts one.",
            )
        try:
            self._read()
        except (struct.error, IndexError, OverflowError, ValueError) as err:
            raise SourceError(
                f"{self.name} is damaged", "Give a whole file."
            ) from err

    def code(self, name: str) -> bytes:
        """Return the machine code of a function.

        :param name: Its name, one of `symbols`.
        :raise SourceError: When the file does not hold it.
        """
        address, size = self.symbols[name]
        return self._memory(address, size)

    def number(self, address: int, size: int) -> int:
        """Return a number of the program's data.

        :param address: Where it is.
        :param size: Its size in bytes.
        :raise SourceError: When the file does not hold it.
        """
        return int.from_bytes(self._memory(address, size), "little")

    def pointer(self, address: int) -> int:
        """Return the address that a pointer of the program's data has.

        :param address: Where the pointer is.
        :raise SourceError: When the file does not hold it.
        """
        # Without a relocation it is in its place, also with packed ones.
        found = self._relocated.get(address)
        return self.number(address, 8) if found is None else found

    def text(self, address: int) -> str:
        """Return a text of the program's data that ends with a zero.

        :param address: Where it is.
        :raise SourceError: When the file does not hold it.
        """
        data = self._memory(address, _LONGEST_TEXT, short=True)
        found, end, _ = data.partition(b"\0")
        if not end or not found.isascii():
            raise SourceError(
                f"{self.name} has no text at {address:#x}",
                "Give the file of a QEMU.",
            )
        return found.decode()

    def _read(self) -> None:
        # The header's fields are in elf.h, struct Elf64_Ehdr.
        segments, sections = self._numbers("QQ", 32)
        segment_size, segment_count = self._numbers("HH", 54)
        section_size, section_count = self._numbers("HH", 58)
        if (segment_count and segment_size != _SEGMENT_BYTES) or (
            section_count and section_size != _SECTION_BYTES
        ):
            raise ValueError("entries of another size")
        self._segments = []
        for number in range(segment_count):
            at = segments + number * segment_size
            kind, _, offset, address, _, size = self._numbers("IIQQQQ", at)
            if kind == _LOADED:
                self._segments.append((address, size, offset))
        found = []
        for number in range(section_count):
            at = sections + number * section_size
            _, kind, _, _, offset, size, link = self._numbers("IIQQQQI", at)
            found.append(_Section(kind, offset, size, link))
        tables = (*_SYMBOL_TABLES, _RELOCATIONS)
        if sum(x.size for x in found if x.kind in tables) > len(self._data):
            # One table that many sections name would be read many times.
            raise ValueError("the tables do not fit into the file")
        self.symbols: dict[str, tuple[int, int]] = {}
        for section in found:
            if section.kind in _SYMBOL_TABLES:
                names = found[section.link]
                self.symbols.update(self._symbols(section, names))
        self._relocated = {
            address: addend
            for section in found
            if section.kind == _RELOCATIONS
            for address, info, addend in self._entries("QQq", section)
            if info & 0xFFFFFFFF == _RELATIVE
        }

    def _symbols(
        self, section: _Section, names: _Section
    ) -> Iterator[tuple[str, tuple[int, int]]]:
        texts = self._data[names.offset : names.offset + names.size]
        for name, _, _, index, address, size in self._entries(
            "IBBHQQ", section
        ):
            if not index:
                continue
            end = texts.find(b"\0", name, name + _LONGEST_NAME)
            if end >= 0:
                text = texts[name:end].decode("ascii", "replace")
                yield text, (address, size)
            elif name + _LONGEST_NAME >= len(texts):
                raise ValueError("a name without an end")

    def _entries(
        self, layout: str, section: _Section
    ) -> Iterator[tuple[int, ...]]:
        data = self._data[section.offset : section.offset + section.size]
        return struct.iter_unpack(f"<{layout}", data)

    def _numbers(self, layout: str, offset: int) -> tuple[int, ...]:
        return struct.unpack_from(f"<{layout}", self._data, offset)

    def _memory(
        self, address: int, size: int, *, short: bool = False
    ) -> bytes:
        """Return a part of the memory image, or a shorter one if allowed."""
        for begin, length, offset in self._segments:
            if begin <= address < begin + length:
                at = offset + address - begin
                end = min(at + size, offset + length)
                if short or end == at + size:
                    return self._data[at:end]
        raise SourceError(
            f"{self.name} holds no {size} bytes for {address:#x}",
            "Give the file of a QEMU.",
        )
