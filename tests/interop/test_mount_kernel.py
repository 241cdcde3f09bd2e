"""Real mounts: the kernel shows the tree of an image with the contents of the objects."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

from composefs.digest import SHA256
from composefs.dumpfile import parse
from composefs.erofs import write
from composefs.errors import (
    ComposefsError,
    CorruptError,
    FormatError,
    NotFoundError,
    PermissionDeniedError,
    UnsupportedError,
    UsageError,
)
from composefs.linux import mountapi
from composefs.linux.closing import Descriptor
from composefs.mount import Options, mount_file, mount_image, unmount
from composefs.mount import erofs as erofs_step
from composefs.repository import Repository
from composefs.repository.publication import ImageName, Publication
from support.commands import TIMEOUT
from support.verity import kernel_verity

pytestmark = pytest.mark.root

CONTENT = b"content that is too long to be inline, as it has more than sixty-four bytes\n"


def tree(object_id: str, *, acl: bool = False) -> bytes:
    path = f"{object_id[:2]}/{object_id[2:]}"
    xattr = (
        r" system.posix_acl_access=\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x04\x00\x04\x00\xff\xff\xff\xff"
        if acl
        else ""
    )
    return (
        "/ 4096 40755 2 0 0 0 1700000000.0 - - -\n"
        f"/big {len(CONTENT)} 100644 1 0 0 0 1700000000.0 {path} - {object_id} user.mine=yes\n"
        f"/small 5 100600 1 7 8 0 1700000000.5 - small -{xattr}\n"
        "/link 3 120777 1 0 0 0 1700000000.0 big - -\n"
    ).encode()


@pytest.fixture
def mountpoint(tmp_path: Path):
    path = tmp_path / "mnt, with: odd\\ characters"
    path.mkdir()
    yield path
    subprocess.run(["umount", path], check=False, capture_output=True)


@pytest.fixture(params=["repo", "repo, with: odd\\ characters"])
def repository(request: pytest.FixtureRequest, tmp_path: Path):
    Repository.init(tmp_path / request.param, algorithm=SHA256, insecure=True)
    with Repository.open(tmp_path / request.param, writable=True) as repository:
        yield repository


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, environment: Path):
    """No temporary mount or directory stays, whatever happens."""
    yield
    # Tests that run beside this one have temporary mounts of their own, elsewhere.
    places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    assert [place for place in places if place.startswith(f"{tempfile.gettempdir()}/composefs-")] == []
    assert os.listdir(environment / "tmp") == []


def image(repository: Repository, *, version: int = 1, acl: bool = False) -> str:
    stored = repository.objects.store_parts([CONTENT])
    found = repository.images.put(write(parse(tree(stored.id, acl=acl), SHA256), version=version))
    repository.publish(Publication(images=[ImageName(found.id, "it")]))
    return found.id


def mounted(path: Path) -> str:
    """The options of what is mounted at a path, or nothing."""
    command = ["findmnt", "--noheadings", "--output", "FSTYPE,VFS-OPTIONS,FS-OPTIONS", "--mountpoint", str(path)]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()


def check_tree(path: Path) -> None:
    assert sorted(os.listdir(path)) == ["big", "link", "small"]
    assert (path / "big").read_bytes() == CONTENT
    assert (path / "small").read_bytes() == b"small"
    assert (path / "link").readlink() == Path("big")
    assert os.getxattr(path / "big", "user.mine") == b"yes"
    status = (path / "small").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (7, 8, 0o600)


@pytest.mark.parametrize("version", [0, 1, 2])
def test_the_tree_of_an_image(repository: Repository, mountpoint: Path, version: int) -> None:
    mount_image(repository, image(repository, version=version), mountpoint)
    check_tree(mountpoint)
    with pytest.raises(OSError, match="Read-only file system"):
        (mountpoint / "new").touch()
    options = mounted(mountpoint)
    assert options.startswith("overlay ro")
    assert "verity" not in options
    subprocess.run(["umount", mountpoint], check=True)
    assert mounted(mountpoint) == ""


def test_who_looks_into_the_image_meanwhile_is_no_hindrance(repository: Repository) -> None:
    """As the system's own programs do with whatever is mounted."""
    with Descriptor(repository.images.open(image(repository))) as fd:
        with erofs_step.mounted_erofs(fd, "it", None) as place:
            looking = os.open(place, os.O_RDONLY)
        os.close(looking)


@pytest.mark.parametrize("version", [0, 1, 2])
def test_acls_are_kept_when_there_are_any(repository: Repository, mountpoint: Path, version: int) -> None:
    mount_image(repository, image(repository, version=version), mountpoint)
    subprocess.run(["umount", mountpoint], check=True)
    mount_image(repository, image(repository, version=version, acl=True), mountpoint)
    check_tree(mountpoint)
    held = [name for name in os.listdir(mountpoint) if "system.posix_acl_access" in os.listxattr(mountpoint / name)]
    assert held == ["small"]


@pytest.mark.parametrize(
    "name", ["a, b: c", "back\\slash\\\\", f"{'long' * 50}/{'longer' * 40}"], ids=["odd", "escape", "long"]
)
def test_an_upper_directory_takes_what_is_written(
    repository: Repository, mountpoint: Path, tmp_path: Path, name: str
) -> None:
    upper, work = tmp_path / "upper" / name, tmp_path / "work" / name
    upper.mkdir(parents=True)
    work.mkdir(parents=True)
    image_id = image(repository)
    mount_image(repository, image_id, mountpoint, upperdir=upper, workdir=work, read_write=True)
    (mountpoint / "new").write_bytes(b"new")
    with (mountpoint / "big").open("ab") as file:
        file.write(b"more")
    subprocess.run(["umount", mountpoint], check=True)
    assert (upper / "new").read_bytes() == b"new"
    assert (upper / "big").read_bytes() == CONTENT + b"more"
    mount_image(repository, image_id, mountpoint, upperdir=upper, workdir=work)
    assert (mountpoint / "big").read_bytes() == CONTENT + b"more"
    with pytest.raises(OSError, match="Read-only file system"):
        (mountpoint / "newer").touch()
    assert not list(repository.path.glob("objects/*/*more*"))


def refuse(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, number: int, *, only: str | None = None) -> None:
    """Let a call of the mount API fail as on a kernel that lacks it."""
    real = getattr(owner, name)

    def call(*arguments: object) -> object:
        if only is None or only in arguments:
            raise OSError(number, os.strerror(number))
        return real(*arguments)

    monkeypatch.setattr(owner, name, call)


def test_a_kernel_without_file_backed_erofs(
    repository: Repository, mountpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = mountapi.Context.create

    def create(context: mountapi.Context) -> None:
        source = os.readlink(f"/proc/self/fd/{context.fd}")
        assert source
        if not loops:
            loops.append("")
            raise OSError(errno.ENOTBLK, "Block device required")
        real(context)

    loops: list[str] = []
    monkeypatch.setattr(mountapi.Context, "create", create)
    real_loop = erofs_step.loop_device

    def loop(fd: int) -> tuple[int, str]:
        device, path = real_loop(fd)
        loops.append(path)
        return device, path

    monkeypatch.setattr(erofs_step, "loop_device", loop)
    mount_image(repository, image(repository), mountpoint)
    check_tree(mountpoint)
    told = Path(f"/sys/block/{Path(loops[1]).name}/loop/backing_file")
    image_file = told.read_text()
    assert str(repository.path) in image_file
    subprocess.run(["umount", mountpoint], check=True)
    # The kernel gives it back when nobody has it open any more: the system's own programs look at new devices.
    until = time.monotonic() + TIMEOUT
    with suppress(FileNotFoundError):  # or it is another's already
        while told.read_text() == image_file:
            assert time.monotonic() < until, "the loop device is not given back"
            time.sleep(0.01)


@pytest.mark.parametrize("name", ["lowerdir+", "datadir+"])
def test_a_kernel_whose_overlayfs_wants_one_string(
    repository: Repository, mountpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    refuse(monkeypatch, mountapi.Context, "string", errno.EINVAL, only=name)
    image_id = image(repository)
    mount_image(repository, image_id, mountpoint)
    check_tree(mountpoint)
    subprocess.run(["umount", mountpoint], check=True)
    for each in ("upper", "work"):
        (tmp_path / each).mkdir()
    mount_image(
        repository, image_id, mountpoint, upperdir=tmp_path / "upper", workdir=tmp_path / "work", read_write=True
    )
    (mountpoint / "new").write_bytes(b"new")
    assert (tmp_path / "upper/new").read_bytes() == b"new"


def test_verity_is_tried_where_the_kernel_may_not_know_it(
    repository: Repository, mountpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = repository.images.open(image(repository))
    options = Options(objects=[str(repository.path / "objects")], verity="try")
    try:
        mount_file(fd, mountpoint, options, "it")
        assert "verity=require" in mounted(mountpoint)
        unmount(mountpoint)
        with monkeypatch.context() as patch:
            refuse(patch, mountapi.Context, "string", errno.EINVAL, only="verity")
            mount_file(fd, mountpoint, options, "it")
        check_tree(mountpoint)
        unmount(mountpoint)
        refuse(monkeypatch, mountapi.Context, "string", errno.EINVAL, only="lowerdir+")
        real = mountapi.mount

        def mount(source: str, path: str, kind: str, attributes: frozenset[str], text: str) -> None:
            if "verity" in text:
                raise OSError(errno.EINVAL, "Invalid argument")
            real(source, path, kind, attributes, text)

        monkeypatch.setattr(mountapi, "mount", mount)
        mount_file(fd, mountpoint, options, "it")
        check_tree(mountpoint)
    finally:
        os.close(fd)


def test_a_kernel_where_overlayfs_takes_any_parameter(
    repository: Repository, mountpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = mountapi.Context.string
    monkeypatch.setattr(
        mountapi.Context,
        "string",
        lambda context, name, value: None if "probe" in name else real(context, name, value),
    )
    mount_image(repository, image(repository), mountpoint)
    check_tree(mountpoint)


def test_a_kernel_without_data_only_layers(
    repository: Repository, mountpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, mountapi.Context, "string", errno.EINVAL, only="lowerdir+")
    real = mountapi.mount
    tried: list[str] = []

    def mount(source: str, path: str, kind: str, flags: int, options: str) -> None:
        tried.append(options)
        if "::" in options:
            raise OSError(errno.EINVAL, "Invalid argument")
        real(source, path, kind, flags, options)

    monkeypatch.setattr(mountapi, "mount", mount)
    mount_image(repository, image(repository), mountpoint)
    assert len(tried) == 2
    assert (mountpoint / "big").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("number", "error", "hint"),
    [
        (errno.ENODEV, UnsupportedError, "modprobe erofs"),
        (errno.EPERM, PermissionDeniedError, "run as root"),
        (errno.EINVAL, UnsupportedError, ""),
        (errno.ENOSYS, UnsupportedError, "lacks this system call"),  # so that FUSE is tried
        (errno.ENOMEM, ComposefsError, ""),
    ],
)
def test_what_the_kernel_refuses_is_said(
    repository: Repository,
    mountpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    error: type[ComposefsError],
    hint: str,
) -> None:
    refuse(monkeypatch, mountapi, "Context", number, only="erofs")
    image_id = image(repository)
    with pytest.raises(
        error, match=f"mounting image {image_id} in {re.escape(str(repository.path))}: the EROFS image: "
    ) as caught:
        mount_image(repository, image_id, mountpoint)
    assert hint in str(caught.value.hint)
    assert mounted(mountpoint) == ""


def test_objects_that_are_gone(repository: Repository, mountpoint: Path) -> None:
    image_id = image(repository)
    (repository.path / "objects").rename(repository.path / "elsewhere")
    try:
        with pytest.raises(NotFoundError, match=r"datadir\+"):
            mount_image(repository, image_id, mountpoint)
    finally:
        (repository.path / "elsewhere").rename(repository.path / "objects")
    assert mounted(mountpoint) == ""
    mount_image(repository, image_id, mountpoint)
    for path in repository.path.glob("objects/*/*"):
        if path.read_bytes() == CONTENT:
            path.unlink()
    assert (mountpoint / "small").read_bytes() == b"small"
    with pytest.raises(FileNotFoundError):
        (mountpoint / "big").read_bytes()


def test_a_tampered_image_is_not_mounted(repository: Repository, mountpoint: Path) -> None:
    image_id = image(repository)
    path = repository.objects.path(image_id)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(2000)
        file.write(b"X")
    with pytest.raises(CorruptError, match=image_id):
        mount_image(repository, image_id, mountpoint)
    assert mounted(mountpoint) == ""


def test_only_named_images_are_mounted(repository: Repository, mountpoint: Path) -> None:
    stored = repository.objects.store_parts([CONTENT])
    unnamed = repository.images.put(write(parse(tree(stored.id), SHA256), version=1))
    with pytest.raises(NotFoundError, match="there is no image"):
        mount_image(repository, unnamed.id, mountpoint)
    (repository.path / "images" / unnamed.id).symlink_to(f"../objects/{stored.id[:2]}/{stored.id[2:]}")  # another
    with pytest.raises(NotFoundError, match="there is no image"):
        mount_image(repository, unnamed.id, mountpoint)
    for data, message in ((CONTENT, "is not a composefs image"), (b"short", "too short")):
        other = repository.images.put([data])
        repository.publish(Publication(images=[ImageName(other.id)]))
        with pytest.raises(FormatError, match=message):
            mount_image(repository, other.id, mountpoint)


def test_arguments_that_do_not_go_together(repository: Repository, mountpoint: Path, tmp_path: Path) -> None:
    image_id = image(repository)
    for arguments in ({"upperdir": tmp_path}, {"workdir": tmp_path}, {"read_write": True}):
        with pytest.raises(UsageError):
            mount_image(repository, image_id, mountpoint, **arguments)
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "none"):
        with pytest.raises(NotFoundError, match="is not a directory"):
            mount_image(repository, image_id, path)
        with pytest.raises(NotFoundError, match="is not a directory"):
            mount_image(repository, image_id, mountpoint, upperdir=path, workdir=tmp_path)
        with pytest.raises(NotFoundError, match="is not a directory"):
            mount_image(repository, image_id, mountpoint, upperdir=tmp_path, workdir=path)


def test_an_upper_directory_that_overlayfs_refuses(repository: Repository, mountpoint: Path, tmp_path: Path) -> None:
    """The kernel writes the reason to its log only, and what it said about our probe is not the reason."""
    (tmp_path / "upper/work").mkdir(parents=True)
    with pytest.raises(UnsupportedError, match="overlayfs") as caught:
        mount_image(
            repository,
            image(repository),
            mountpoint,
            upperdir=tmp_path / "upper",
            workdir=tmp_path / "upper/work",
            read_write=True,
        )
    assert str(caught.value).endswith(f"overlayfs at {mountpoint}: Invalid argument")
    assert "dmesg" in str(caught.value.hint)


def test_the_kernels_own_words() -> None:
    with mountapi.Context("overlay") as context:
        with pytest.raises(OSError, match="Invalid argument"):
            context.string("no-such-parameter", "1")
        assert context.messages() == ["overlay: Unknown parameter 'no-such-parameter'"]
        assert context.messages() == []


def test_a_secure_repository_demands_verity_of_the_kernel(
    tmp_path: Path, mountpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The objects have fs-verity only in our double of the kernel, so the real one lets nobody read them."""
    with kernel_verity(monkeypatch):
        Repository.init(tmp_path / "secure", algorithm=SHA256)
        with Repository.open(tmp_path / "secure", writable=True) as repository:
            image_id = image(repository)
            mount_image(repository, image_id, mountpoint)
            assert "verity=require" in mounted(mountpoint)
            assert (mountpoint / "small").read_bytes() == b"small"
            with pytest.raises(OSError, match="Input/output error"):
                (mountpoint / "big").read_bytes()
            subprocess.run(["umount", mountpoint], check=True)
            refuse(monkeypatch, mountapi.Context, "string", errno.EINVAL, only="verity")
            with pytest.raises(UnsupportedError, match="verity=require") as caught:
                mount_image(repository, image_id, mountpoint)
            assert "Linux 6.6" in str(caught.value.hint)
