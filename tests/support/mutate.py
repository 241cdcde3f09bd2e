"""Reproducible damage to images: what a reader must survive."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

from composefs import dumpfile, erofs
from composefs.digest import SHA256
from support.dumps import generate
from support.images import DIGEST, make_image

SUPERBLOCK = 1024
INTERESTING = (
    0,
    1,
    2,
    3,
    4,
    7,
    12,
    13,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0xFFF,
    0x1000,
    0x7FFF,
    0xFFFF,
    2**31,
    2**32 - 1,
    2**63,
)
SIZES = (("<B", 1), ("<H", 2), ("<I", 4), ("<Q", 8))


def seeds() -> list[bytes]:
    """Small images of every format and kind of file: the smaller, the more damage hits something."""
    lines = (
        "/d 0 40755 2 0 0 0 5.6 - - - user.d=e security.selinux=s",
        f"/d/f 99 100644 2 7 8 0 9.1 - - {DIGEST} user.only=here security.selinux=s",
        f"/d/g 9999999 100644 1 0 0 0 0.0 - - {'cd' * 32} security.selinux=s",
        "/d/w 0 20600 1 0 0 0 0.0 - - -",
        "/h 0 @100644 - - - - - /d/f - -",
        "/i 4 100644 1 70000 0 0 0.0 - text - trusted.overlay.opaque=y",
        "/l 6 120777 1 0 0 0 0.0 target - -",
        "/n 0 20644 1 0 0 259 0.0 - - -",
        *(f"/d/{'x' * 100}{number:03} 0 10644 1 0 0 0 0.0 - - -" for number in range(40)),
    )
    images = [bytes(make_image(*lines, version=version)) for version in (0, 1, 2)]
    images.append(bytes(make_image(*lines[:8], version=2)))
    tree = dumpfile.parse(generate("gen_dump.py", 77, 60), SHA256)
    images += [b"".join(erofs.write(tree, version=version)) for version in (1, 2)]
    return images


def mutants(seed: int, count: int) -> Iterator[bytes]:
    """Yield damaged images, always the same for a seed: fields set, bits flipped, pieces moved, ends cut."""
    generator = random.Random(seed)
    sources = seeds()
    # Where there is something to hit: inodes and directories, not the padding.
    places = [[at for at in range(0, len(data), 4) if any(data[at : at + 4])] for data in sources]
    for _ in range(count):
        number = generator.randrange(len(sources))
        image = bytearray(sources[number])
        for _ in range(generator.choice((1, 1, 1, 2, 3, 8))):
            _damage(image, generator, generator.choice(places[number]) + generator.randrange(4))
        yield bytes(image)


def _damage(image: bytearray, generator: random.Random, at: int) -> None:
    choice = generator.randrange(20)
    if choice < 8:
        form, size = generator.choice(SIZES)
        value = generator.choice((*INTERESTING, generator.getrandbits(64), len(image) // 32, at // 32))
        at = min(at & -size, len(image) - size)
        struct.pack_into(form, image, at, value % 2 ** (8 * size))
    elif choice < 13:
        image[min(at, len(image) - 1)] ^= 1 << generator.randrange(8)
    elif choice < 17:  # Directories that name other inodes, attributes that are longer …
        length = generator.choice((4, 8, 12, 32, 64))
        source = generator.randrange(SUPERBLOCK, len(image) - length) & -4
        at = min(at & -4, len(image) - length)
        image[at : at + length] = image[source : source + length]
    elif choice < 19:
        small = generator.randrange(-64, 64)
        image[min(at, len(image) - 1)] = (image[min(at, len(image) - 1)] + small) % 256
    elif len(image) > 8192:
        del image[generator.randrange(4096, len(image)) :]
