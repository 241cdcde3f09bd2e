"""Platforms: what an image is for, and which one of a multi-architecture image fits.

Names are those of Go (``GOOS``, ``GOARCH``), as the OCI image specification wants in image-index.md.  Variants of ARM
and levels of amd64 are ordered: a machine runs what is made for an earlier one.
"""

from __future__ import annotations

import os
import re
import sys

from composefs_ext.errors import UsageError
from composefs_ext.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["Platform", "best", "native", "parse_platform"]

_MACHINES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armv8l": ("arm", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv5tel": ("arm", "v5"),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "ppc64": ("ppc64", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
    "loongarch64": ("loong64", ""),
    "mips64": ("mips64le", ""),
}
"""What uname(2) says, and Go's architecture and variant for it."""

_OF_32_BITS = {"x86_64": "i686", "aarch64": "armv8l"}
"""What runs on a machine whose programs are of 32 bits, though its kernel is of 64."""

_ALIASES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "i386": ("386", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
"""Other names, as containerd reads them: Go's architecture, and the variant that the name itself says."""

_DEFAULT_VARIANT = {"arm": "v7", "arm64": "v8", "amd64": "v1"}
"""What an architecture without a variant means."""

_PART = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NUMBERED = re.compile(r"v([0-9]{1,3})(?:\.[0-9]{1,3})?")


class Platform(NamedTuple):
    """An operating system and an architecture; ``variant`` may be empty."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, self))

    @property
    def is_known(self) -> bool:
        """Whether it is one at all."""
        return self.os not in ("", "unknown")

    @property
    def normal(self) -> Platform:
        """The same with Go's names: in small letters, amd64 for x86_64, arm/v7 for armhf."""
        architecture, variant = self.architecture.lower(), self.variant.lower()
        architecture, own = _ALIASES.get(architecture, (architecture, ""))
        return Platform(self.os.lower(), architecture, own or variant)


def native() -> Platform:
    """Return the platform of this machine."""
    machine = os.uname().machine
    if sys.maxsize < 1 << 32:
        machine = _OF_32_BITS.get(machine, machine)
    return Platform("linux", *_MACHINES.get(machine, (machine, "")))


def parse_platform(text: str) -> Platform:
    """Read OS/ARCHITECTURE[/VARIANT]; raise UsageError."""
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(map(_PART.fullmatch, parts)):
        raise UsageError(
            f"{text[:200]!r} is not a platform",
            hint=f"give it as OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT: {native()}",
        )
    return Platform(*parts).normal


def best(candidates: Sequence[tuple[Platform, T]], wanted: Platform) -> list[T]:
    """Return those of the candidates that fit best, in their order: several only if nothing tells them apart.

    The same system and architecture are needed.  Candidates with other names than Go's count where none with Go's fits.
    Of the variants the wanted one is best, then earlier ones, the latest first.
    """
    fitting = []
    for platform, value in candidates:
        normal = platform.normal
        if normal[:2] == wanted[:2] and (distance := _distance(normal, wanted)) is not None:
            fitting.append(((platform != normal, distance), value))
    nearest = min((key for key, _ in fitting), default=None)
    return [value for key, value in fitting if key == nearest]


def _distance(platform: Platform, wanted: Platform) -> int | None:
    """How far a variant is from the wanted one; None if it does not fit."""
    default = _DEFAULT_VARIANT.get(wanted.architecture, "")
    has, wants = platform.variant or default, wanted.variant or default
    if has == wants:
        return 0 if platform.variant == wanted.variant else 1
    numbers = _NUMBERED.fullmatch(has), _NUMBERED.fullmatch(wants)
    if not numbers[0] or not numbers[1]:
        return None
    difference = int(numbers[1][1]) - int(numbers[0][1])
    return 2 + difference if difference >= 0 else None
