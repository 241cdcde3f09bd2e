"""Where the test data is.

``DATA`` is in this tree: seeded generators and the answers that the reference programs gave.  ``VECTORS`` is not: the
repositories recorded from composefs-rs are read from where COMPOSEFS_VECTORS says.
"""

from __future__ import annotations

import os
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "vectors"
VECTORS = Path(os.environ.get("COMPOSEFS_VECTORS", DATA.parent.parent.parent / "shared" / "vectors"))
