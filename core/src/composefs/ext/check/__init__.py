"""The conformance kit, ``cfsctl ext check``: whether an extension keeps the rules of docs/protocol.md.

The kit plays the core.  It does not imitate it: each run is a real one, in a repository of its own, whose channel
(``tap``) records every line, offers what a later core may offer, cuts, delays and refuses, cancels and closes at any
point.  ``watch`` looks at each message that passes and ``files`` at what it names in staging, ``scenarios`` are the
runs and how each must end, ``kit`` makes them, and ``report`` keeps what was found, rule by rule.
"""
