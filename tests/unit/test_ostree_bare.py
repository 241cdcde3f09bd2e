"""Objects of bare repositories: what is staged is what was hashed, by a copy or by a reflink."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from unittest.mock import Mock

import pytest

from composefs_ext.errors import CorruptError, FormatError, NoSpaceError
from composefs_ext.packs import Packs
from composefs_ext.protocol import PACKS
from composefs_ext.staging import Staging
from composefs_ostree.fetching.bare import USER_META, BareReader, own_xattrs
from composefs_ostree.fetching.stage import SmallContents
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.fileheader import checksum_header, make_head, parse_head
from support.descriptors import descriptors, left_open

LIMIT = 64
UNPACKED = Packs(Staging("."), ())


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    """None is left open: a repository has a million objects, and a process may have a thousand open."""
    before = descriptors()
    yield
    assert not left_open(before)


def an_object(directory: Path, content: bytes) -> bytes:
    """Write an object of a bare-user-only repository; return its id."""
    head = make_head(len(content), 0, 0, 0o100644, b"", b"")
    file_id = sha256(checksum_header(head) + content).digest()
    path = Path(BareReader(str(directory), "bare-user-only", SmallContents(LIMIT, UNPACKED)).path(file_id))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o644)
    return file_id


@pytest.mark.parametrize("size", [0, 1, 64, 65, 131_071, 131_072, 131_073, 1_000_000])
def test_content_of_all_sizes(tmp_path: Path, size: int) -> None:
    content = (bytes(range(251)) * (size // 251 + 1))[:size]
    file_id = an_object(tmp_path, content)
    staged = tmp_path / "staged"
    row = BareReader(str(tmp_path), "bare-user-only", SmallContents(LIMIT, UNPACKED)).read(file_id, str(staged))
    head = make_head(size, 0, 0, 0o100644, b"", b"")
    if size <= LIMIT:
        assert row == (file_id, head + content, size, None)
        assert not staged.exists()
    else:
        assert row == (file_id, head, size, str(staged))
        assert staged.read_bytes() == content


@pytest.mark.parametrize("size", [0, 1, 131_072])
def test_zeros_at_the_end_are_a_hole_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    written: list[int] = []
    write = os.pwrite

    def noted(fd: int, data: memoryview, position: int) -> int:
        written.append(position)
        return write(fd, data, position)

    monkeypatch.setattr(os, "pwrite", noted)
    content = b"x" * size + bytes(131_072)
    file_id = an_object(tmp_path, content)
    row = BareReader(str(tmp_path), "bare-user-only", SmallContents(LIMIT, UNPACKED)).read(
        file_id, str(tmp_path / "staged")
    )
    assert row is not None
    assert row[2] == len(content)
    assert (tmp_path / "staged").read_bytes() == content
    assert written in ([], [0][:size])  # the former where it is reflinked


def test_what_is_not_there(tmp_path: Path) -> None:
    assert BareReader(str(tmp_path), "bare", SmallContents(LIMIT, UNPACKED)).read(bytes(32), "staged") is None


def reflink(change: Callable[[bytes], bytes]) -> Callable[[int, int, int], int]:
    """Stand in for a file system that reflinks; ``change`` is what somebody does to the source just before."""

    def ioctl(fd: int, request: int, source: int) -> int:
        assert request == 0x40049409
        os.write(fd, change(os.pread(source, 1 << 20, 0)))
        os.lseek(fd, 0, os.SEEK_SET)
        return 0

    return ioctl


@pytest.mark.parametrize("size", [262_144, 350_000], ids=["whole reads", "no whole reads"])
def test_a_reflink_is_hashed_as_it_stands_in_staging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    content = (b"content" * 50_000)[:size]
    file_id = an_object(tmp_path, content)
    staged = tmp_path / "staged"
    reader = BareReader(str(tmp_path), "bare-user-only", SmallContents(LIMIT, UNPACKED))
    monkeypatch.setattr(fcntl, "ioctl", reflink(lambda data: data))
    assert reader.read(file_id, str(staged)) == (
        file_id,
        make_head(size, 0, 0, 0o100644, b"", b""),
        size,
        str(staged),
    )
    assert staged.read_bytes() == content
    staged.unlink()
    for change in (lambda data: data[:-1] + b"x", lambda data: data[:-1], lambda data: data + b"x", lambda data: b""):
        monkeypatch.setattr(fcntl, "ioctl", reflink(change))
        with pytest.raises(CorruptError):
            reader.read(file_id, str(staged))
        assert not staged.exists()


@pytest.mark.parametrize("size", [10, 1000, 350_000], ids=lambda size: f"{size} bytes")
def test_a_file_that_grows_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Its id is right in the end, but nothing in that says that the size is."""
    file_id = an_object(tmp_path, b"x" * size)
    reader = BareReader(str(tmp_path), "bare-user-only", SmallContents(LIMIT, Packs(Staging(str(tmp_path)), [PACKS])))
    told = os.fstat

    def before(fd: int) -> os.stat_result:
        values = list(told(fd))
        values[6] -= 1
        return os.stat_result(values)

    monkeypatch.setattr(os, "fstat", before)
    with pytest.raises(CorruptError, match="changed while it was read"):
        reader.read(file_id, str(tmp_path / "staged"))
    assert not (tmp_path / "staged").exists()


def test_small_content_is_packed_where_nothing_is_reflinked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {an_object(tmp_path, content): content for content in (b"a" * 100, b"b" * 200, bytes(100_000))}
    small, other, large = contents
    packs = Packs(Staging(str(tmp_path)), [PACKS])
    reader = BareReader(str(tmp_path), "bare-user-only", SmallContents(LIMIT, packs))

    def place(file_id: bytes, name: str) -> str | tuple[str, int] | None:
        row = reader.read(file_id, str(tmp_path / name))
        assert row is not None
        return row[3]

    monkeypatch.setattr(fcntl, "ioctl", reflink(lambda data: data))
    assert place(small, "1") == str(tmp_path / "1")

    def cannot(*_arguments: int) -> int:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "ioctl", cannot)
    assert place(large, "2") == str(tmp_path / "2")
    first, second = place(small, "3"), place(other, "4")
    assert isinstance(first, tuple)
    assert isinstance(second, tuple)
    assert first[0] == second[0]
    packs.flush()
    assert (tmp_path / first[0]).read_bytes() == contents[small] + contents[other]
    assert (first[1], second[1]) == (0, 100)
    damaged = Path(reader.path(other))
    damaged.write_bytes(b"c" * 200)
    with pytest.raises(CorruptError, match="checksum"):
        place(other, "5")


def test_a_full_disk_is_not_a_missing_feature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file_id = an_object(tmp_path, b"x" * 1000)

    def full(*_arguments: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(fcntl, "ioctl", full)
    with pytest.raises(OSError, match=r"No space.*'staging'"):
        BareReader(str(tmp_path), "bare-user-only", SmallContents(LIMIT, UNPACKED)).read(
            file_id, str(tmp_path / "staged")
        )
    assert not (tmp_path / "staged").exists()


@pytest.mark.parametrize("name", ["EOPNOTSUPP", "EXDEV", "EINVAL", "ENOTTY", "ENOSYS", "EPERM", "ETXTBSY"])
def test_what_cannot_be_reflinked_is_copied_and_no_other_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    tried = []

    def cannot(*arguments: int) -> int:
        tried.append(arguments)
        raise OSError(getattr(errno, name), name)

    monkeypatch.setattr(fcntl, "ioctl", cannot)
    reader = BareReader(str(tmp_path), "bare-user-only", SmallContents(LIMIT, UNPACKED))
    for content in (b"x" * 1000, b"y" * 1000):
        reader.read(an_object(tmp_path, content), f"{tmp_path}/staged")
        assert (tmp_path / "staged").read_bytes() == content
        (tmp_path / "staged").unlink()
    assert len(tried) == 1


def test_a_copy_that_cannot_fit_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file_id = an_object(tmp_path, b"x" * 1000)
    monkeypatch.setattr(os, "fstatvfs", lambda _: Mock(f_bfree=999, f_frsize=1, f_blocks=2000))
    with pytest.raises(NoSpaceError, match="1000 bytes, and 999 are free"):
        BareReader(str(tmp_path), "bare-user-only", SmallContents(LIMIT, UNPACKED)).read(file_id, f"{tmp_path}/staged")
    assert not (tmp_path / "staged").exists()


def test_a_file_that_cannot_be_staged_is_not_called_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file_id = an_object(tmp_path, b"x" * 1000)
    opened = os.open

    def full(path: str, flags: int, *arguments: int, **options: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(OSError, match=r"No space.*'staging'"):
        BareReader(str(tmp_path), "bare-user-only", SmallContents(LIMIT, UNPACKED)).read(
            file_id, str(tmp_path / "staged")
        )


def a_symlink(directory: Path, kept: bytes, target: bytes) -> bytes:
    """Write a symlink of a bare-user repository, whose object has ``kept``; return the id of one with this target."""
    file_id = sha256(checksum_header(make_head(0, 0, 0, 0o120777, target, b""))).digest()
    path = Path(BareReader(str(directory), "bare-user", SmallContents(LIMIT, UNPACKED)).path(file_id))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(kept)
    os.setxattr(path, USER_META, struct.pack(">III", 0, 0, 0o120777))
    return file_id


def test_the_target_of_a_symlink_ends_at_the_first_nul(tmp_path: Path) -> None:
    reader = BareReader(str(tmp_path), "bare-user", SmallContents(LIMIT, UNPACKED))
    for kept in (b"target", b"target\0", b"target\0 and more"):
        file_id = a_symlink(tmp_path, kept, b"target")
        row = reader.read(file_id, str(tmp_path / "staged"))
        assert row is not None
        assert parse_head(row[1]).target == b"target"


def test_a_symlink_without_a_target_is_refused_though_it_has_its_id(tmp_path: Path) -> None:
    file_id = a_symlink(tmp_path, b"\0", b"")
    with pytest.raises(FormatError, match="symlink target of 0 bytes"):
        BareReader(str(tmp_path), "bare-user", SmallContents(LIMIT, UNPACKED)).read(file_id, str(tmp_path / "staged"))


def test_attributes_without_a_value_are_none_as_in_ostree(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, value in (("user.b", b"2"), ("user.empty", b""), ("user.a", b"1")):
        os.setxattr(tmp_path / "file", name, value)
    assert own_xattrs(str(tmp_path / "file")) == ((b"user.a", b"1"), (b"user.b", b"2"))


@pytest.mark.parametrize("target_size", [1, 200, 255, 256, 4095])
@pytest.mark.parametrize("value_size", [0, 100, 200, 215, 216, 217, 60_000, 65_000, 65_536])
def test_heads_are_those_of_the_general_codec(target_size: int, value_size: int) -> None:
    pairs = [(b"user.k\0", b"v" * value_size)] if value_size else []
    xattrs = gvariant.encode("a(ayay)", pairs)
    head = make_head(0, 5, 6, 0o120777, b"t" * target_size, xattrs)
    numbers = [int.from_bytes(number.to_bytes(4, "big"), "little") for number in (5, 6, 0o120777, 0)]
    z = gvariant.encode("(tuuuusa(ayay))", (0, *numbers, "t" * target_size, pairs))
    assert head == len(z).to_bytes(4, "big") + bytes(4) + z
    parsed = parse_head(head)
    assert (parsed.uid, parsed.gid, parsed.target) == (5, 6, b"t" * target_size)


@pytest.mark.parametrize(
    ("target", "mode"), [(b"", 0o120777), (b"x" * 4096, 0o120777), (b"x", 0o100644), (b"", 0o20644)]
)
def test_heads_that_make_no_sense_are_refused(target: bytes, mode: int) -> None:
    with pytest.raises(FormatError):
        parse_head(make_head(0, 0, 0, mode, target, b""))
