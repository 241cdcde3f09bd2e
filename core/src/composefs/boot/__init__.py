"""Trees to boot from: what must be in them, and the SELinux labels that their files get.

``bootable`` is the transform; ``entries`` checks what can be booted, ``policy`` reads the SELinux policy,
``relabel`` applies it.  Below the policy are its regular expressions: ``pattern`` reads them into the tree of
``syntax``, ``program`` and ``automaton`` run them.
"""

from composefs.boot.bootable import make_bootable

__all__ = ["make_bootable"]
