"""The option ``--compat``, which every command has that makes images or ids of them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from composefs_ext import Request

__all__ = ["wants_nul"]


def wants_nul(request: Request) -> bool | None:
    """Tell whether the images are to be those of composefs-rs 0.9.0; None if the user does not say."""
    compat = request.get("compat")
    return None if compat is None else bool(compat == "composefs-rs")
