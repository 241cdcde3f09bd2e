r"""Write an extension for cfsctl in Python (standard library only).

    from composefs_ext import main

    def handler(request, core):
        name = core.staging.write(b"hello")
        [stored] = core.object_put([{"name": name}]).result()
        stream = core.stream_put("0123456789abcdef", chunks=[0], object_refs=[stored["id"]]).result()
        core.publish(streams=[{"name": "hello-1", "id": stream["id"]}]).result()
        core.output(f"stored {stored['id']}\n")

    main(handler)

``core`` has the protocol's calls, ``errors`` what to raise, ``dump`` the lines of composefs-dump(5), ``testing`` a core
to test against.
"""

from composefs_ext.core import Core
from composefs_ext.extension import Request, main
from composefs_ext.records import Repository, Stream

__all__ = ["Core", "Repository", "Request", "Stream", "__version__", "main"]

__version__ = "0.1.0"
