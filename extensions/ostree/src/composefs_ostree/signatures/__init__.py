"""Signatures of commits and summaries: whose are wanted, whether they are there, and making them.

A signature is detached: it stands beside what it signs, under a key of an ``a{sv}`` (``.commitmeta``, ``summary.sig``),
and signs the bytes as they are.  There are three kinds: OpenPGP (``ostree.gpgsigs``), and ed25519 and SPKI
(``ostree.sign.ed25519``, ``ostree.sign.spki``).  The libraries that check them are loaded only when there is something
to check; without them nothing passes.

Source: ostree(1), ostree-sign(1), ostree.repo-config(5).
"""
