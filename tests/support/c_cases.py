"""Dumps that libcomposefs' own tests made us write: odd ones that it takes, and those that it refuses.

``tests/vectors/c-cases.json`` has, for each that is taken, the sha256 of the images that its mkcomposefs 1.0.8 made in
format 0, in format 1 and in the lowest that will do ("auto"), and of what its composefs-info prints of the last one.
"""

from __future__ import annotations

DIGEST = "3f" * 32
_OTHER = "0e" * 32
_ROOT = "/ 4096 40755 2 0 0 0 0.0 - - -\n"
_LONG = "n" * 255


def _many(count: int) -> str:
    return "".join(f"/f{number:04} {number} 100640 1 {number} 7 0 {number}.{number} - - -\n" for number in range(count))


TAKEN: dict[str, str] = {
    "kinds": "/ 4096 40555 3 1 2 0 1700000000.5 - - - trusted.on=root user.empty=\n"
    "/block 0 60660 1 0 6 2049 1.0 - - - trusted.x=\\x00\\xff\n"
    "/char 0 20666 1 0 0 259 1.0 - - -\n"
    "/dir 4096 42775 2 0 0 0 1.999999999 - - - system.posix_acl_default=\\x02\\x00\\x00\\x00\n"
    f"/dir/object 70000 104755 1 0 0 0 2.0 3f/{DIGEST[2:]} - {DIGEST} security.capability=\\x01\n"
    f"/dir/{_LONG} 0 100000 1 4294967295 4294967295 0 -1.0 - - -\n"
    "/fifo 0 10600 1 0 0 0 0.0 - - -\n"
    "/link 6 120777 1 0 0 0 0.0 target - -\n"
    "/odd\\x20\\n\\\\name 3 100644 1 0 0 0 0.0 - \\x00\\xff= -\n"
    "/socket 0 140755 1 0 0 0 0.0 - - -\n",
    "whiteouts": _ROOT + "/a 0 40755 2 0 0 0 0.0 - - -\n"
    "/a/gone 0 20000 1 0 0 0 0.0 - - - user.why=x\n"
    "/b 0 40700 2 0 0 0 0.0 - - - trusted.overlay.opaque=y user.overlay.opaque=y\n"
    "/b/gone 0 20644 1 5 6 0 7.8 - - -\n"
    "/gone 0 20777 1 0 0 0 0.0 - - -\n",
    "escaped attributes": _ROOT
    + "/file 0 100644 1 0 0 0 0.0 - - - trusted.overlay.redirect=/other user.overlay.metacopy= user.overlay.x=1\n"
    "/twice 0 100644 1 0 0 0 0.0 - - - trusted.overlay.overlay.redirect=/a\\x3db user.k=1 user.k=2\n",
    "inline": _ROOT
    + "".join(
        f"/{size} {size} 100644 1 0 0 0 0.0 - {'c' * size} -\n"
        for size in (1, 64, 65, 2047, 2048, 4063, 4064, 4095, 4096, 4097, 5000)
    ),
    "hard links": _ROOT + f"/f 9000 100644 3 0 0 0 0.0 {_OTHER[:2]}/{_OTHER[2:]} - {_OTHER} user.k=v\n"
    "/g 9000 @100644 3 0 0 0 0.0 /f - -\n"
    "/m 0 40755 2 0 0 0 0.0 - - -\n"
    "/m/h 0 @100644 - - - - - /f - -\n"
    "/s 1 120777 2 0 0 0 0.0 x - -\n"
    "/t 1 @120777 2 0 0 0 0.0 /s - -\n",
    "hard links to later lines": _ROOT + "/a 0 @100644 - - - - - /m/real - -\n"
    "/m 0 40755 2 0 0 0 0.0 - - -\n"
    "/m/again 0 @100644 - - - - - m//real - -\n"
    "/m/real 4 100644 3 0 0 0 0.0 - four -\n",
    "hard links to hard links": _ROOT + f"/b 9000 100644 1 0 0 0 0.0 {_OTHER[:2]}/{_OTHER[2:]} - {_OTHER}\n"
    "/c 0 @100644 - - - - - /b - -\n"
    "/d 0 40755 2 0 0 0 0.0 - - -\n"
    "/d/e 0 @100644 - - - - - /c - -\n",
    "no file too large": _ROOT + "/huge 9007199254740992 100644 1 0 0 0 0.0 - - -\n"
    "/huge-too 9001899274941000 100644 1 0 0 0 0.0 - - - user.x=\n"
    "/with-acl 8960932074941261 100644 1 0 0 0 0.0 - - - system.posix_acl_access=x user.overlay.x=y\n",
    "a device with a size": _ROOT + "/char 1 20777 1 0 0 0 0.0 - - -\n/other 77 60777 1 0 0 5 0.0 - - -\n",
    "a whiteout with a size": _ROOT + "/gone 4294967296 20644 1 0 0 0 0.0 - - -\n",
    "long targets": _ROOT
    + "".join(f"/{size} {size} 120777 1 0 0 0 0.0 {'t' * size} - -\n" for size in (1, 1023, 1024, 4000, 4064, 4095))
    + f"/with-attribute 4050 120777 1 0 0 0 0.0 {'t' * 4050} - - trusted.k=v\n",
    "long attributes": _ROOT
    + f"/value 0 100644 1 0 0 0 0.0 - - - user.k={'v' * 30000}\n"
    + f"/name 0 100644 1 0 0 0 0.0 - - - user.{'k' * 250}=v\n"
    + "/many 0 100644 1 0 0 0 0.0 - - -"
    + "".join(f" user.{number}={number}" for number in range(255))
    + "\n",
    "long names to escape": _ROOT
    + f"/a 0 100644 1 0 0 0 0.0 - - - trusted.overlay.{'k' * 239}=v\n"
    + f"/b 0 100644 1 0 0 0 0.0 - - - trusted.overlay.overlay.{'k' * 231}=v\n"
    + f"/c 0 100644 1 0 0 0 0.0 - - - trusted.overlay.overlay.{'k' * 231}=v\n",
    "many files": _ROOT + _many(1000),
    "an odd root": "/ 12345 41777 222 3 4 0 5.6 - - - user.a=b\n",
}

OTHERWISE = "hard links to later lines"
"""The image that its own dump makes is another one, also with libcomposefs: the first name has become the real one."""

LAX: dict[str, str] = {
    "no newline at the end": _ROOT + "/a 0 100644 1 0 0 0 0.0 - - -",
    "a line that ends early": _ROOT + "/a 0 20720777 1 0 0 0 0.0 " + "a" * 1000 + "\n/b 0 40755 1 0 0 0 0.0\n",
    "a target of another size": _ROOT + "/link 5 120777 1 0 0 0 0.0 " + "t" * 70 + " - -\n",
    "a device number where none belongs": _ROOT + "/a 0 100644 1 0 0 7 0.0 - - -\n",
}
"""Taken only without CFS_PARSE_STRICT."""

# Two that libcomposefs takes, and makes images of which no kernel or reader is fond: a hard link to a directory, and a
# name that ends at a NUL.
REFUSED: dict[str, str] = {
    "too much inline": _ROOT + f"/a 5001 100644 1 0 0 0 0.0 - {'x' * 5001} -\n",
    "a directory as a hard link": _ROOT + "/a 0 @40755 2 0 0 0 0.0 / - -\n",
    "a hard link to a directory": _ROOT + "/d 0 40755 2 0 0 0 0.0 - - -\n/a 0 @100644 2 0 0 0 0.0 /d - -\n",
    "dot": _ROOT + "/. 0 40755 2 0 0 0 0.0 - - -\n",
    "dot dot": _ROOT + "/.. 0 100644 1 0 0 0 0.0 - - -\n",
    "dot dot above": _ROOT + "/../a 0 100644 1 0 0 0 0.0 - - -\n",
    "no target": _ROOT + "/a 0 120777 1 0 0 0 0.0 - - -\n",
    "no name": _ROOT + "// 0 40755 2 0 0 0 0.0 - - -\n",
    "no attribute name": _ROOT + "/a 0 100644 1 0 0 0 0.0 - - - =v\n",
    "a long attribute": _ROOT + f"/a 0 100644 1 0 0 0 0.0 - - - user.k={'v' * 65536}\n",
    "a long attribute name": _ROOT + f"/a 0 100644 1 0 0 0 0.0 - - - user.{'k' * 251}=v\n",
    "attributes too long together": _ROOT
    + f"/a 0 100644 1 0 0 0 0.0 - - - user.a={'v' * 20000} user.b={'v' * 20000}\n",
    "a long target": _ROOT + f"/a 4096 120777 1 0 0 0 0.0 {'t' * 4096} - -\n",
    "a long name": _ROOT + f"/{'n' * 256} 0 100644 1 0 0 0 0.0 - - -\n",
    "no file type": _ROOT + "/a 3 0 1 0 0 0 0.0 foo - -\n",
    "a hard link to itself": _ROOT + "/a 0 @63340777 2 0 0 0 0.0 /a - -\n",
    "a hard link to nothing": _ROOT + "/a 0 @100644 2 0 0 0 0.0 /b - -\n",
    "too large": _ROOT + "/a 9500000000000000 100644 1 0 0 0 0.0 - - -\n",
    "a NUL in a name": _ROOT + "/a\\x00b 0 100644 1 0 0 0 0.0 - - -\n",
    "an unknown escape": _ROOT + "/a\\z 0 100644 1 0 0 0 0.0 - - -\n",
    "a name twice": _ROOT + "/a 0 100644 1 0 0 0 0.0 - - -\n" * 2,
    "no directory": _ROOT + "/a/b 0 100644 1 0 0 0 0.0 - - -\n",
    "no root": "/a 0 100644 1 0 0 0 0.0 - - -\n",
    "nothing": "",
    "content of another size": _ROOT + "/a 5 100644 1 0 0 0 0.0 - four -\n",
    "a file in a file": _ROOT + "/a 0 100644 1 0 0 0 0.0 - - -\n/a/b 0 100644 1 0 0 0 0.0 - - -\n",
}
