"""Store files in a repository without an extension: in_process.py REPO FILES SIZE prints the seconds that it took."""

from __future__ import annotations

import os
import sys
import time

from composefs.repository import Repository
from composefs.repository.adoption import Adoption
from composefs.repository.staging import Staging

if __name__ == "__main__":
    path, files, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with Repository.open(path, writable=True) as repository, Staging.create(repository.store) as staging:
        rows = []
        for number in range(files):
            name = f"file-{number}"
            with open(f"{staging.place}/{name}", "xb", buffering=0) as file:
                file.write(number.to_bytes(8, "little") * (size // 8 + 1))
            rows.append((name, os.path.getsize(f"{staging.place}/{name}")))
        time.sleep(0.1)
        start = time.perf_counter()
        adoption = Adoption(repository, staging.work_fd, staging.private)
        stored = [adoption.take(name, size=length) for name, length in rows]
        print(time.perf_counter() - start)
        assert len({each.id for each in stored}) == files
