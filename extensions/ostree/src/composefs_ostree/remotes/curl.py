"""libcurl, by the C module of pycurl alone.

Around it, newer pycurl has a package with a multi interface for asyncio, which brings dataclasses and inspect: 20 of
the 33 ms that importing it takes, in each process that talks HTTP.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import pycurl

    CurlOptions = tuple[tuple[int, Any], ...]
    """Options of a request, by their numbers in curl, with their values."""
else:

    def _load():
        import sys
        from importlib import import_module
        from importlib.machinery import PathFinder

        package = PathFinder.find_spec("pycurl")
        places = None if package is None else package.submodule_search_locations
        spec = PathFinder.find_spec("pycurl._pycurl", places) if places else None
        if spec is None or spec.loader is None:
            return import_module("pycurl")  # older, or not there
        # It asks datetime for its classes in C.  The module that brings those will do: datetime's own in Python, which
        # are executed first before 3.12, take 2 ms.
        if in_c := "datetime" not in sys.modules:
            sys.modules["datetime"] = import_module("_datetime")
        try:
            module = sys.modules[spec.name] = spec.loader.create_module(spec)
            spec.loader.exec_module(module)
        finally:
            if in_c:
                del sys.modules["datetime"]
        return module

    pycurl = _load()

__all__ = ["pycurl"]
