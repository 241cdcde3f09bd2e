#!/usr/bin/env python3
"""Write the dump of a tree like an operating system's to stdout: os_tree_dump.py [ENTRIES] [SEED]

Nearly three quarters external files, a SELinux label on everything, a few labels in all, times that repeat by package,
some symlinks, hard links and file capabilities, duplicates of content: the shape of /usr, where the random dumps of
tests/vectors/gen_dump.py are mostly escapes.  The same arguments give the same bytes everywhere.
"""

from __future__ import annotations

import random
import sys

LABELS = ("usr_t", "bin_t", "lib_t", "etc_t", "man_t", "locale_t", "modules_object_t", "fonts_t", "systemd_unit_file_t")
WORDS = (
    "share",
    "lib64",
    "python3",
    "locale",
    "modules",
    "doc",
    "man",
    "icons",
    "firmware",
    "include",
    "kernel",
    "zone",
)
SUFFIXES = (".so", ".py", ".pyc", ".mo", ".ko.xz", ".h", ".1.gz", ".svg", ".conf", "", "")
CAPABILITY = r"\x01\x00\x00\x02\x00\x20\x00\x00" + r"\x00" * 12


def os_tree_dump(entries: int, seed: int = 1) -> str:
    """Return the text of a dump of ``entries`` lines."""
    rng = random.Random(seed)
    times = [f"{1_700_000_000 + rng.randrange(10**6)}.0" for _ in range(max(1, entries // 40))]
    directories = [""]
    files: list[str] = []

    def tail(label: str) -> str:
        return rf" security.selinux=system_u:object_r:{label}:s0\x00"

    lines = [f"/ 0 40755 2 0 0 0 {times[0]} - - -{tail('root_t')}"]
    digest = ""
    while len(lines) < entries:
        parent = rng.choice(directories[-30:])
        path = f"{parent}/{rng.choice(WORDS)}-{len(lines)}"
        if rng.randrange(12) == 0:
            path += "-component" * 3
        label, time, roll = tail(rng.choice(LABELS)), rng.choice(times), rng.randrange(100)
        if roll < 9 and path.count("/") < 9:
            directories.append(path)
            lines.append(f"{path} 0 40755 2 0 0 0 {time} - - -{label}")
        elif roll < 18:
            target = "../" * rng.randrange(3) + rng.choice(WORDS) + ".so.1"
            lines.append(f"{path} {len(target)} 120777 1 0 0 0 {time} {target} - -{label}")
        elif roll < 25:
            content = "".join(rng.choices("abcdef=:/_", k=rng.randrange(1, 64)))
            lines.append(f"{path} {len(content)} 100644 1 0 0 0 {time} - {content} -{label}")
        elif roll < 26 and files:
            lines.append(f"{path} 0 @120000 - - - - 0.0 {rng.choice(files)} - -")
        else:
            path += rng.choice(SUFFIXES)
            digest = digest if rng.randrange(50) == 0 and digest else rng.randbytes(32).hex()
            mode = 755 if rng.randrange(8) == 0 else 644
            label += f" security.capability={CAPABILITY}" if rng.randrange(400) == 0 else ""
            size = int(rng.paretovariate(0.7) * 700) % 80_000_000 + 65
            lines.append(f"{path} {size} 100{mode} 1 0 0 0 {time} {digest[:2]}/{digest[2:]} - {digest}{label}")
            files.append(path)
    return "".join([line + "\n" for line in lines])


if __name__ == "__main__":
    if "--help" in sys.argv:
        sys.exit(__doc__)
    sys.stdout.write(os_tree_dump(*[int(argument) for argument in sys.argv[1:3]] or [40_000]))
