"""The extension protocol, version 1, without any process: framing, limits, errors, lists and schemas.

docs/protocol.md is the specification; the rules named ``P-n`` in this package are its rules.  composefs.ext is the
host that speaks it with a running extension.

`wire` makes messages of lines and lines of messages, `errors` does that with errors, `limits` bounds both.  `params`
checks the parameters of a call, `lists` those that may be in a file, `staged` opens and makes such files.  `jsontext`
lays out a result of any length; `schemas` has all of this as JSON Schemas, for the conformance kit.
"""

__all__ = ["DRAFTS", "FEATURES", "PACKS", "RESULT_FILE", "SIZES", "VERSIONS"]

VERSIONS = (1,)
"""The protocol versions this core speaks, in order of preference."""

RESULT_FILE = "result_file"
"""The feature by which a result may be a staged file (P-44)."""

PACKS = "packs"
"""The feature by which an object may be a range of a staged file (P-45)."""

DRAFTS = "drafts"
"""The feature by which a dump may come in parts (P-46)."""

SIZES = "sizes"
"""The feature by which the sizes of a stream's objects may be asked for (P-47)."""

FEATURES = (RESULT_FILE, PACKS, DRAFTS, SIZES)
"""The named features this core offers beyond version 1."""
