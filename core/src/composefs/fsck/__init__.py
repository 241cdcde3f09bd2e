"""Checking a repository: every object's content, every symlink, and all that streams and images refer to.

`checking` makes the Report, `hashing` reads the objects in several processes, `damage` finds the names that bad objects
take with them, `repair` puts good objects back.
"""

from composefs.fsck.checking import check
from composefs.fsck.repair import check_and_repair
from composefs.fsck.report import Report

__all__ = ["Report", "check", "check_and_repair"]
