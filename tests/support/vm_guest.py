"""What runs as init of the virtual machine of tests/vm, where the kernel has fs-verity, and the checks made there.

Each function whose name begins with ``check_`` is a test on the host.  Results go, as JSON, to the port named "result".
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import struct
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

DISK = Path("/run/disk")
DEVICE = "/dev/nvme1n1"
CONTENT = b"content that is too long to be inline, as it has more than sixty-four bytes\n" * 100


def fails(error: type[BaseException], call: Callable[[], object]) -> BaseException:
    """Call, and return the error that comes; there is no pytest in the machine."""
    try:
        call()
    except error as found:
        return found
    raise AssertionError(f"{error.__name__} did not come")


def mount(source: str, target: str, kind: str, options: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), target.encode(), kind.encode(), 0, options.encode()):
        raise OSError(ctypes.get_errno(), f"mounting {target}")


def unmount(target: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(target.encode(), 0):
        raise OSError(ctypes.get_errno(), f"unmounting {target}")


def drop_caches() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def repository(name: str, *, insecure: bool = False):
    from composefs.digest import SHA512
    from composefs.repository import Repository

    Repository.init(DISK / name, algorithm=SHA512, insecure=insecure)
    return Repository.open(DISK / name, writable=True)


def image(repo):
    """Store an image with an inline file and one whose content is an object."""
    from composefs.digest import SHA512
    from composefs.dumpfile import parse
    from composefs.erofs import write
    from composefs.repository import ImageName, Publication

    each = repo.objects.store_bytes(CONTENT).id
    text = (
        "/ 4096 40755 2 0 0 0 1700000000.0 - - -\n"
        f"/big {len(CONTENT)} 100644 1 0 0 0 1700000000.0 {each[:2]}/{each[2:]} - {each}\n"
        "/small 5 100644 1 0 0 0 1700000000.0 - small -\n"
    )
    found = repo.images.put(write(parse(text.encode(), SHA512), version=1))
    repo.publish(Publication(images=[ImageName(found.id, "it")]))
    return found.id, each


def mounted(repo, image_id: str, read: Callable[[Path], object]) -> None:
    from composefs.mount import mount_image

    target = Path("/run/mnt")
    target.mkdir(exist_ok=True)
    mount_image(repo, image_id, target)
    try:
        read(target)
    finally:
        unmount(str(target))


def check_the_kernel_computes_what_we_compute() -> None:
    from composefs import fsverity
    from composefs.digest import SHA256, SHA512
    from composefs.errors import BusyError

    for algorithm in (SHA256, SHA512):
        for size in (0, 1, 4095, 4096, 4097, 64 * 4096, 64 * 4096 + 1, 3_000_000):
            path = DISK / f"plain-{algorithm}-{size}"
            path.write_bytes(os.urandom(size))
            with path.open("r+b"), path.open("rb") as file:
                assert fsverity.measure(file.fileno()) is None
                fails(BusyError, partial(fsverity.enable, file.fileno(), algorithm))
            with path.open("rb") as file:
                expected = fsverity.digest_fd(file.fileno(), algorithm)
                assert fsverity.enable(file.fileno(), algorithm)
                assert not fsverity.enable(file.fileno(), algorithm)
                assert fsverity.measure(file.fileno()) == (algorithm, expected)
            fails(PermissionError, partial(path.open, "r+b"))


def check_every_way_into_a_secure_repository() -> None:
    from composefs import fsverity
    from composefs.repository import Publication, Repository, Staging, StreamName

    with repository("secure") as repo, Staging.create(repo) as staging:
        assert repo.secure
        source = DISK / "source"
        source.write_bytes(CONTENT * 50)
        with source.open("rb") as file:
            copied = repo.objects.store_fd(file.fileno())
        (staging.work / "file").write_bytes(b"staged")
        moved = repo.objects.adopt(staging.work_fd, "file", staging.private)
        assert moved.stored == "moved"
        (staging.work / "file").write_bytes(b"staged")
        assert repo.objects.adopt(staging.work_fd, "file", staging.private).stored == "present"
        with (staging.work / "open").open("wb", buffering=0) as writer:
            writer.write(b"still open")
            kept_open = repo.objects.adopt(staging.work_fd, "open", staging.private)
        assert kept_open.stored in ("copied", "reflinked")
        stream = repo.streams.put(1, b"abc", [-3, 0], [copied.id])
        for stored in (repo.objects.store_bytes(CONTENT), copied, moved, kept_open, stream):
            path = repo.objects.path(stored.id)
            with path.open("rb") as file:
                assert fsverity.measure(file.fileno()) == (repo.algorithm, bytes.fromhex(stored.id))
                assert fsverity.digest_fd(file.fileno(), repo.algorithm).hex() == stored.id
            path.chmod(0o644)
            fails(PermissionError, partial(path.open, "r+b"))
            path.chmod(0o444)
        repo.publish(Publication(streams=[StreamName("a", stream.id)]))
        seen: list[bytes] = []
        with repo.streams.open(name="a") as reader:
            repo.streams.cat(reader, lambda piece: seen.append(bytes(piece)))
        assert b"".join(seen) == b"abc" + CONTENT * 50
        assert os.listdir(staging.work) == []
    with Repository.open(DISK / "secure", require_verity=True) as repo:
        assert repo.secure


def check_verity_that_somebody_else_enabled_with_a_salt() -> None:
    from composefs import fsverity
    from composefs.repository import Staging

    with repository("salted") as repo, Staging.create(repo) as staging:
        path = staging.work / "file"
        path.write_bytes(CONTENT)
        salt = ctypes.create_string_buffer(b"salt")
        request = struct.pack("=IIIIQIIQ88x", 1, 2, 4096, 4, ctypes.addressof(salt), 0, 0, 0)
        with path.open("rb") as file:
            fcntl.ioctl(file.fileno(), 0x40806685, request)
        stored = repo.objects.adopt(staging.work_fd, "file", staging.private)
        assert stored.id == fsverity.digest_bytes(CONTENT, repo.algorithm).hex()
        os.close(repo.objects.open(stored.id, verify=True))


def check_mounting_demands_verity() -> None:
    from composefs.errors import CorruptError

    with repository("mounted") as repo:
        image_id, each = image(repo)

        def whole(path: Path) -> None:
            assert "verity=require" in Path("/proc/self/mountinfo").read_text()
            assert (path / "big").read_bytes() == CONTENT
            assert (path / "small").read_bytes() == b"small"

        def refused(path: Path) -> None:
            fails(OSError, (path / "big").read_bytes)
            assert (path / "small").read_bytes() == b"small"

        mounted(repo, image_id, whole)
        path = repo.objects.path(each)
        # The same bytes without fs-verity, then other bytes of the same size with it.
        for content, verity in ((CONTENT, False), (CONTENT[::-1], True)):
            path.unlink()
            path.write_bytes(content)
            if verity:
                from composefs import fsverity

                with path.open("rb") as file:
                    fsverity.enable(file.fileno(), repo.algorithm)
            mounted(repo, image_id, refused)
            fails(CorruptError, lambda: repo.objects.open(each, verify=True))
            assert repo.objects.store_bytes(CONTENT).repaired
            mounted(repo, image_id, whole)


def check_a_tampered_image_is_not_mounted() -> None:
    from composefs.errors import CorruptError

    with repository("tampered") as repo:
        image_id, _ = image(repo)
        path = repo.objects.path(image_id)
        data = bytearray(path.read_bytes())
        path.unlink()
        path.write_bytes(data)
        fails(CorruptError, lambda: mounted(repo, image_id, print))
        path.unlink()
        data[2000] ^= 1
        path.write_bytes(data)
        fails(CorruptError, lambda: mounted(repo, image_id, print))


def check_a_bit_that_flips_on_the_disk() -> None:
    from composefs.errors import ComposefsError

    with repository("flipped") as repo:
        image_id, each = image(repo)
        stream = repo.streams.put(1, chunks=[0], object_refs=[each])
        with repo.objects.path(each).open("rb") as file:
            (block,) = struct.unpack("=i", fcntl.ioctl(file.fileno(), 1, struct.pack("=i", 0)))  # FIBMAP
        os.sync()
    unmount(str(DISK))
    with open(DEVICE, "r+b", buffering=0) as disk:
        assert os.pread(disk.fileno(), len(b"content"), block * 4096) == b"content"
        os.pwrite(disk.fileno(), b"c0ntent", block * 4096)
        os.fsync(disk.fileno())
    mount(DEVICE, str(DISK), "ext4")
    drop_caches()
    from composefs.repository import Repository

    with Repository.open(DISK / "flipped") as repo:
        mounted(repo, image_id, lambda path: fails(OSError, (path / "big").read_bytes))
        with repo.streams.open(id=stream.id) as reader:
            error = fails(ComposefsError, lambda: repo.streams.cat(reader, len))
        assert each in str(error), error


def check_an_insecure_repository_where_verity_would_work() -> None:
    from composefs import fsverity

    with repository("insecure", insecure=True) as repo:
        assert not repo.secure
        image_id, each = image(repo)
        with repo.objects.path(each).open("rb") as file:
            assert fsverity.measure(file.fileno()) is None

        def whole(path: Path) -> None:
            assert "verity" not in Path("/proc/self/mountinfo").read_text()
            assert (path / "big").read_bytes() == CONTENT

        mounted(repo, image_id, whole)


def check_an_image_on_tmpfs_needs_a_loop_device() -> None:
    from composefs.digest import SHA512
    from composefs.repository import Repository

    Repository.init("/run/repo", algorithm=SHA512, insecure=True)
    with Repository.open("/run/repo", writable=True) as repo:
        image_id, _ = image(repo)

        def whole(path: Path) -> None:
            assert (path / "big").read_bytes() == CONTENT

        mounted(repo, image_id, whole)


CHECKS = [name for name in list(globals()) if name.startswith("check_")]


def prepare() -> None:
    for kind, target in (
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
    ):
        mount(kind, target, kind)
    libc = ctypes.CDLL(None, use_errno=True)
    for module in Path("/modules").read_text().split():
        data = Path(module).read_bytes()
        if libc.syscall(175, data, ctypes.c_ulong(len(data)), b""):  # init_module
            raise OSError(ctypes.get_errno(), f"loading {module}")
    DISK.mkdir()
    mount(DEVICE, str(DISK), "ext4")


def main() -> None:
    """Run every check, send the results, and switch the machine off."""
    results: dict[str, str | None] = {}
    try:
        prepare()
        for name in CHECKS:
            try:
                globals()[name]()
                results[name] = None
            except Exception:  # noqa: BLE001 - whatever it is, the host must hear of it
                results[name] = traceback.format_exc()
    except Exception:  # noqa: BLE001 - the same
        results["prepare"] = traceback.format_exc()
    for port in Path("/sys/class/virtio-ports").iterdir():
        if (port / "name").read_text().strip() == "result":
            fd = os.open(f"/dev/{port.name}", os.O_WRONLY)
            data = json.dumps(results).encode() + b"\n"
            while data:
                data = data[os.write(fd, data) :]
    os.sync()
    ctypes.CDLL(None).reboot(0x4321FEDC)  # RB_POWER_OFF


if __name__ == "__main__":
    sys.path.insert(0, "/app")
    main()
