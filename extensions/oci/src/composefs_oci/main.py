"""The executable: ``cfsctl`` starts it and speaks the extension protocol over its standard input and output."""

from __future__ import annotations

import composefs_ext
from composefs_oci.commands import run

__all__ = ["main"]


def main() -> None:
    """Serve one run and exit."""
    composefs_ext.main(run)
