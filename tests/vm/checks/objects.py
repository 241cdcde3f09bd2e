"""Everything that comes into a secure repository gets fs-verity, and what has lost it is not believed."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from pathlib import Path

from composefs import fsverity
from composefs.digest import SHA512
from composefs.errors import CorruptError, InputOutputError
from composefs.repository import Repository, Staging
from composefs.repository.adoption import Adoption
from composefs.repository.publication import Publication, StreamName
from composefs.splitstream import Parts
from vm import lab
from vm.checks.common import BIG, SOME, fails, measured, replace


def _repository(path: Path) -> Repository:
    Repository.init(path, algorithm=SHA512)
    return Repository.open(path, writable=True)


def check_every_way_in(directory: Path) -> None:
    with _repository(directory / "repo") as repository, Staging.create(repository.store) as staging:
        source = directory / "source"
        source.write_bytes(BIG)
        with source.open("rb") as file:
            copied = repository.objects.store_fd(file.fileno())
        Path(staging.place, "file").write_bytes(b"staged")
        moved = Adoption(repository, staging.work_fd, staging.private).take("file")
        assert moved.stored == "moved"
        Path(staging.place, "file").write_bytes(b"staged")
        assert Adoption(repository, staging.work_fd, staging.private).take("file").stored == "present"
        with Path(staging.place, "open").open("wb", buffering=0) as writer:
            writer.write(b"still open")
            kept_open = Adoption(repository, staging.work_fd, staging.private).take("open")
        assert kept_open.stored in ("copied", "reflinked")
        stream = repository.streams.put(Parts(1, b"abc", [-3, 0], [copied.id]))
        for stored in (repository.objects.store_parts([SOME]), copied, moved, kept_open, stream):
            assert measured(repository.objects.path(stored.id)) == stored.id
        repository.publish(Publication(streams=[StreamName("a", stream.id)]))
        seen = bytearray()
        with repository.streams.open(repository.streams.resolve("a")) as reader:
            repository.streams.cat(reader, seen.extend)
        assert seen == b"abc" + BIG


def check_verity_that_somebody_enabled_with_a_salt(directory: Path) -> None:
    """Its digest is not an id; the content is what counts."""
    with _repository(directory / "repo") as repository, Staging.create(repository.store) as staging:
        path = Path(staging.place, "file")
        path.write_bytes(SOME)
        salt = ctypes.create_string_buffer(b"salt")
        request = struct.pack("=IIIIQIIQ88x", 1, SHA512.number, 4096, 4, ctypes.addressof(salt), 0, 0, 0)
        with path.open("rb") as file:
            fcntl.ioctl(file.fileno(), 0x40806685, request)  # FS_IOC_ENABLE_VERITY
        stored = Adoption(repository, staging.work_fd, staging.private).take("file")
        assert stored.id == fsverity.digest_bytes(SOME, SHA512).hex()
        os.close(repository.objects.open(stored.id, verify=True))


def check_what_lost_its_verity_is_refused_and_repaired(directory: Path) -> None:
    with _repository(directory / "repo") as repository:
        stored = repository.objects.store_parts([SOME])
        path = repository.objects.path(stored.id)
        for content, algorithm in ((SOME, None), (SOME.upper(), SHA512)):
            replace(path, content, algorithm)
            fails(CorruptError, lambda: repository.objects.open(stored.id, verify=True))
            assert repository.objects.store_parts([SOME]).stored == "copied"
            assert measured(path) == stored.id


def check_a_flipped_bit_is_an_error_that_names_the_object(directory: Path) -> None:
    with _repository(directory / "repo") as repository:
        stored = repository.objects.store_parts([BIG])
        stream = repository.streams.put(Parts(1, chunks=[0], object_refs=[stored.id]))
        path = repository.objects.path(stored.id)
    lab.flip(path, 5 * 4096 + 17)
    fd = os.open(path, os.O_RDONLY)
    try:
        assert os.pread(fd, 4096, 0) == BIG[:4096]
        fails(OSError, lambda: os.pread(fd, 4096, 5 * 4096))
    finally:
        os.close(fd)
    with Repository.open(directory / "repo") as repository, repository.streams.open(stream.id) as reader:
        error = fails(InputOutputError, lambda: repository.streams.cat(reader, len))
        assert stored.id in str(error), error
