"""Commits that the composefs repository holds, or is to hold: found, read and stored, as trees and as text.

A whole commit is the stream ``ostree-commit-ID``, one that is here in part ``ostree-partial-ID``.  A commit's stream
names what belongs to it: its image (none if only the commit object is here), its detached metadata, and, if it was
pulled with ``--depth``, its parent's stream.

Detached metadata is what comes beside a commit and is no part of its id, the signatures above all.  It is kept as a
stream of its own, ``ostree-commitmeta-ID``, which holds the bytes of ``.commitmeta`` (``a{sv}``).  So it is there as
long as the commit, and the commit's stream has the same content with it and without.
"""
