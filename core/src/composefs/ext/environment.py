"""The environment that an extension gets: what any program needs, and the names its manifest asks for (P-38).

Interpreter and loader variables are never passed on, not even on request: they would turn the caller's environment into
code inside the extension.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

__all__ = ["clean_environment"]

_PASSED = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|LC_[A-Z]+|TZ|TMPDIR|TERM|NO_COLOR|XDG_[A-Z]+_(?:DIRS?|HOME)"
    r"|SSL_CERT_(?:FILE|DIR)|(?:http|https|ftp|all|no)_proxy|(?:HTTP|HTTPS|FTP|ALL|NO)_PROXY"
)
_REFUSED = re.compile(
    r"(?:PYTHON|LD_|DYLD_|BASH_|COMPOSEFS_EXT_PATH).*|ENV|IFS|GCONV_PATH|NODE_OPTIONS|PERL5?(?:LIB|OPT)"
)
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def clean_environment(inherited: Mapping[str, str], wanted: Iterable[str]) -> dict[str, str]:
    """Return the variables of ``inherited`` that pass: those in the table and those ``wanted`` by the manifest."""
    names = frozenset(wanted)
    passed = {
        name: value
        for name, value in inherited.items()
        if (name in names or _PASSED.fullmatch(name)) and not _REFUSED.fullmatch(name)
    }
    passed.setdefault("PATH", _DEFAULT_PATH)
    return passed
