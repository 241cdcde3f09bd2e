"""Mistakes that people make: one line each that names what is wrong and says what to do, and the right exit status."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from support.commands import CFSCTL, TIMEOUT, cfsctl
from support.ostree_pull import extensions
from support.peers import require

__all__ = ["extensions"]

pytestmark = pytest.mark.usefixtures("extensions")

OTHER, USAGE, NOT_FOUND, CONFLICT, BAD_DATA, NETWORK, PERMISSION, UNSUPPORTED = 1, 2, 3, 4, 5, 6, 7, 9

# The command line after `cfsctl`, in a directory with the repository repo, its image os/1, and the directory tree;
# the exit status; and words of the answer: what is wrong, and the remedy.
MISTAKES = {
    # The wrong place
    "--repo none images": (NOT_FOUND, "no repository at", "cfsctl init"),
    "--repo tree images": (NOT_FOUND, "no repository at", "cfsctl init"),
    "--repo tree/usr/file images": (NOT_FOUND, "no repository at", "cfsctl init"),
    "--user --system images": (USAGE, "exclude each other", "give one of them"),
    "--insecure --require-verity images": (USAGE, "exclude each other", "give one of them"),
    "--hash sha256 init --algorithm fsverity-sha512-12 new": (USAGE, "contradicts --algorithm", "leave one of them"),
    "--repo repo create-image --from-dump tree/usr/file os/2 os/3": (USAGE, "either a directory or --from-dump", ""),
    "--repo repo mount --fuse yes --upperdir tree --workdir tree os/1 tree": (USAGE, "FUSE", "leave out --fuse yes"),
    "--repo repo mount --fuse yes --idmap /proc/self/ns/user os/1 tree": (USAGE, "nor --idmap", "leave out --fuse yes"),
    "--repo repo mount --read-write os/1 tree": (USAGE, "has nowhere to write to", "--upperdir and --workdir"),
    "--repo repo mount --upperdir tree os/1 tree": (USAGE, "--upperdir and --workdir need each other", "give both"),
    "--repo repo fsck --repair": (USAGE, "--repair and --from need each other", "--from REPO|DIR"),
    "--repo repo fsck --from tree": (USAGE, "--repair and --from need each other", "--from REPO|DIR"),
    "--repo repo fsck --repair --from tree --metadata-only": (USAGE, "does not find the objects", "leave it out"),
    "--repo repo init new": (USAGE, "the repository is named twice", "give PATH, or --repo"),
    "--user init new": (USAGE, "the repository is named twice", "give PATH, or --repo"),
    "--system init new": (USAGE, "the repository is named twice", "give PATH, or --repo"),
    "--repo repo ostree pull http://x/ a --commit-metadata-only --subpath /usr": (
        USAGE,
        "--commit-metadata-only leaves nothing for --subpath to name",
        "give one of the two",
    ),
    "--repo repo ostree remote add o http://x/ --force --if-not-exists": (USAGE, "one of --force and --if-not-", ""),
    "--repo repo oci inspect x --manifest --config": (USAGE, "exclude each other", "without them inspect shows both"),
    "--ext-user root --repo repo ostree images": (USAGE, "root", "leave out --ext-user"),
    "--repo repo --hash sha256 images": (BAD_DATA, "uses sha512, not sha256", "leave out --hash"),
    "--repo repo copy --from none os/1": (NOT_FOUND, "none", "check the path after --from"),
    "--repo repo fsck --repair --from none": (NOT_FOUND, "no directory none", "check the path after --from"),
    "--repo repo mount refs/os/1 none": (NOT_FOUND, "none is not a directory", "mkdir none"),
    "--repo repo mount refs/os/1 tree/usr/file": (NOT_FOUND, "is not a directory", "give a directory"),
    "--repo repo create-image none os/2": (NOT_FOUND, "none does not exist", "check the path"),
    "--repo repo create-image tree/usr/file os/2": (NOT_FOUND, "file is not a directory", "give a directory"),
    "--no-repo compute-id tree/usr/file/": (NOT_FOUND, "file/ is not a directory", "give a directory"),
    "--repo repo create-image --from-dump tree os/2": (OTHER, "reading tree: Is a directory", "give a file"),
    f"--repo repo create-image {'n' * 256} os/2": (OTHER, "n: File name too long", "a name has at most 255 bytes"),
    "--repo repo mount --idmap none os/1 tree": (NOT_FOUND, "none does not exist", "check the path"),
    "--repo repo mount --idmap tree/usr/file os/1 tree": (USAGE, "file is not a user namespace", "/proc/PID/ns/user"),
    "--repo repo create-image --from-dump none os/2": (NOT_FOUND, "none does not exist", "check the path"),
    "--no-repo compute-id clash": (BAD_DATA, "/usr is not a directory", "--no-propagate-usr-to-root"),
    "--no-repo compute-id tree/usr/file/none": (NOT_FOUND, "none does not exist", "check the path"),
    "--ext-read none --repo repo images": (NOT_FOUND, "none does not exist", "check the path"),
    "--repo repo ostree pull-local none x": (NOT_FOUND, "none does not exist", "check the path"),
    "--repo repo ostree pull-local tree/usr/file/none x": (NOT_FOUND, "none does not exist", "check the path"),
    "--repo repo ostree apply-delta none": (NOT_FOUND, "none does not exist", "check the path"),
    "--repo repo ostree commit --tree=tar=none -b x": (NOT_FOUND, "none does not exist", "check the path"),
    "--repo repo ostree commit --tree=tar=tree -b x": (OTHER, "tree: Is a directory", "give a file"),
    "--repo repo ostree commit --tree=tar=- -b x": (NOT_FOUND, "- does not exist", "standard input is not read here"),
    "--repo repo ostree commit --from-dump - -b x": (NOT_FOUND, "- does not exist", "write it to a file"),
    "--repo repo ostree pull http://x/ x --gpg-key none": (NOT_FOUND, "none does not exist", "check the path"),
    "--repo repo oci copy x --from none": (NOT_FOUND, "none does not exist", "check the path"),
    "--repo repo oci pull docker://x/x --authfile none": (NOT_FOUND, "none does not exist", "check the path"),
    "--repo repo ostree list-refs http://x/ --http-header-file tree": (USAGE, "'tree' is a dir", "list-refs --help"),
    "--repo '' images": (USAGE, "--repo': an empty path", "cfsctl --help"),
    "init --reset-metadata --insecure --algorithm fsverity-sha256-12 repo": (
        CONFLICT,
        "repo has sha512 objects",
        "say --algorithm fsverity-sha512-12",
    ),
    "init --insecure --algorithm fsverity-sha256-12 repo": (
        CONFLICT,
        "with fsverity-sha512-12",
        "say --algorithm fsverity-sha512-12 to accept it, or name another place",
    ),
    "init --insecure --erofs-version 2 repo": (CONFLICT, "with EROFS format 1", "cfsctl --erofs-version"),
    "init --algorithm '' new": (BAD_DATA, "unknown digest algorithm ''", "known are fsverity-sha256-12"),
    "init ''": (USAGE, "PATH]': an empty path", "cfsctl init --help"),
    "--repo repo ostree export x ''": (USAGE, "PATH': an empty path", "cfsctl ostree export --help"),
    "--repo repo ostree commit -b x --tree=dir=": (USAGE, "--tree': an empty path", "cfsctl ostree commit --help"),
    "--repo repo oci tag x ''": (USAGE, "NAME': an empty name", "cfsctl oci tag --help"),
    "--repo repo dump-files refs/os/1 //": (USAGE, "invalid file name '//'", "give paths below the root"),
    "--repo repo ls refs/os/1 ''": (USAGE, "PATH]': an empty path", "cfsctl ls --help"),
    # Typing errors
    "image": (USAGE, "'image'", "did you mean 'images'?"),
    "ostre pull a b": (USAGE, "'ostre'", "did you mean 'ostree'?"),
    "ostree pul a": (USAGE, "'pul'", "did you mean 'pull'?"),
    "ostree remote lst": (USAGE, "'lst'", "did you mean 'list'?"),
    "ostree umount mnt": (USAGE, "'umount'", "see 'cfsctl umount --help'"),
    "oci ls fedora": (USAGE, "'ls'", "see 'cfsctl ls --help'"),
    "ostree remote ls": (USAGE, "'ls'", "did you mean 'list'?"),
    "ostree refs": (USAGE, "'refs'", "did you mean 'list-refs' or 'images' or 'tag' or 'untag'?"),
    "ostree show x": (USAGE, "'show'", "did you mean 'inspect'?"),
    "ostree checkout x": (USAGE, "'checkout'", "did you mean 'mount'?"),
    "ostree remote gpg-list-keys o": (USAGE, "'gpg-list-keys'", "did you mean 'show'?"),
    "oci rmi x": (USAGE, "'rmi'", "did you mean 'untag'?"),
    "prune": (USAGE, "'prune'", "did you mean 'gc'?"),
    "ostree prune": (USAGE, "'prune'", "see 'cfsctl gc --help'"),
    "oci prune": (USAGE, "'prune'", "see 'cfsctl gc --help'"),
    "ostree list-refs": (USAGE, "URL or --path", "cfsctl ostree images"),
    "podman": (USAGE, "no such command 'podman'", "see 'cfsctl --help'"),
    "help": (USAGE, "no such command 'help'", "see 'cfsctl --help'"),
    "help ostree": (USAGE, "no such command 'help'", "see 'cfsctl --help'"),
    "version": (USAGE, "no such command 'version'", "see 'cfsctl --version'"),
    "commit": (USAGE, "no such command 'commit'", "see 'cfsctl ostree commit --help'"),
    "pull x": (USAGE, "'pull'", "see 'cfsctl oci pull --help' and 'cfsctl ostree pull --help'"),
    "gc --dryrun": (USAGE, "--dryrun", "--dry-run"),
    "gc --repo repo": (USAGE, "--repo comes before the command", "cfsctl --repo … COMMAND"),
    "images -Z": (USAGE, "no such option '-Z'", "see 'cfsctl images --help'"),
    "--json images": (USAGE, "no such option '--json'", "a command's options come after it; see 'cfsctl --help'"),
    "oci --json images": (USAGE, "'--json'", "a command's options come after it; see 'cfsctl oci --help'"),
    "--hash md5 images": (USAGE, "'md5'", "sha256"),
    "--repo repo diff refs/os/1": (USAGE, "'NEW'", "cfsctl diff --help"),
    "--repo repo copy os/1": (USAGE, "--from", "cfsctl copy --help"),
    "completion tcsh": (USAGE, "'tcsh'", "bash"),
    "--repo repo ostree pull http://x/ a --depth many": (USAGE, "'many'", "integer"),
    "--repo repo ostree pull http://x/ a --depth": (USAGE, "--depth' requires an argument", "ostree pull --help"),
    "gc --root": (USAGE, "--root' requires an argument", "cfsctl gc --help"),
    "--repo repo ostree pull http://x/ a --subpath usr": (USAGE, "usr", "from the root on"),
    "--repo repo ostree pull http://x/ a --sign-key ed25519=abc": (USAGE, "ed25519=abc", "inline:KEY"),
    # What is not there
    "--repo repo mount refs/os/2 tree": (NOT_FOUND, "refs/os/2", "cfsctl ref list"),
    "--repo repo cat os/1": (NOT_FOUND, "no stream 'os/1'", "an image has that name"),
    "--repo repo cat os/9": (NOT_FOUND, "no stream 'os/9'", "`cfsctl ref list` lists the refs"),
    "--repo repo cat x": (NOT_FOUND, "no stream 'x'", "cfsctl ref list"),
    "--repo repo ls os/1 /etc": (NOT_FOUND, "/etc", "cfsctl ls os/1"),
    "--repo repo ref remove os/9": (NOT_FOUND, "'os/9'", "cfsctl ref list"),
    "--repo repo ref remove os/1": (NOT_FOUND, "'os/1'", "ref remove --image os/1"),
    "--repo repo ref remove refs/os/1": (NOT_FOUND, "'refs/os/1'", "ref remove --image os/1"),
    "--repo repo ostree inspect x": (NOT_FOUND, "'x'", "cfsctl ostree images"),
    "--repo repo ostree untag x": (NOT_FOUND, "'x'", "cfsctl ostree images"),
    "--repo repo ostree pull o:x": (NOT_FOUND, "no remote 'o'", "cfsctl ostree remote add"),
    "--repo repo ostree remote show o": (NOT_FOUND, "no remote 'o'", "cfsctl ostree remote list"),
    "--repo repo ostree remote delete o": (NOT_FOUND, "'o'", "cfsctl ostree remote list"),
    "--repo repo ostree remote gpg-import o tree/usr/file": (NOT_FOUND, "'o'", "cfsctl ostree remote list"),
    "--repo repo oci inspect x": (NOT_FOUND, "'x'", "cfsctl oci images"),
    "--repo repo oci inspect docker://a/x": (NOT_FOUND, "'docker://a/x'", "cfsctl oci pull brings it, skopeo"),
    "--repo repo oci tag docker://a/x y": (NOT_FOUND, "'docker://a/x'", "cfsctl oci pull brings it, skopeo"),
    "--repo repo oci untag docker://a/x": (NOT_FOUND, "'docker://a/x'", "(cfsctl oci images lists"),
    "--repo repo oci layer x": (NOT_FOUND, "'x'", "cfsctl oci inspect"),
    "ext show none": (NOT_FOUND, "none", "cfsctl ext list"),
    "ext check ./none": (NOT_FOUND, "no executable ./none", "check the path"),
    "--repo repo umount tree": (NOT_FOUND, "tree", "umount(8)"),
    # Names and forms
    "--repo repo create-image tree /os/2": (BAD_DATA, "'/os/2'", "DIR/NAME"),
    "--repo repo create-image tree ../x": (BAD_DATA, "'../x'", "DIR/NAME"),
    "--repo repo import-image os/2": (USAGE, "standard input is empty", "< FILE"),
    "--repo repo ostree pull http://x/": (USAGE, "nothing to pull", "list-refs"),
    "--repo repo ostree pull http:/x/ main": (USAGE, "'http:/x/'", "begin it with https://"),
    "--repo repo ostree pull tree x": (NOT_FOUND, "'tree'", "remote add"),
    "--repo repo ostree pull /tree x": (USAGE, "'/tree'", "pull-local"),
    "ostree list-refs tree": (NOT_FOUND, "no remote 'tree'", "cfsctl ostree list-refs --path tree"),
    "ostree list-refs ./tree": (USAGE, "'./tree'", "list-refs --path PATH"),
    "ostree list-refs 127.0.0.1:80": (USAGE, "'127.0.0.1:80'", "begin it with https://"),
    "--repo repo ostree pull-local tree x": (NOT_FOUND, "not an ostree repository", "check the path"),
    "--repo repo ostree pull-local repo x": (NOT_FOUND, "not an ostree repository", "cfsctl copy --from PATH"),
    "--repo repo ostree remote add o": (USAGE, "needs a URL", "remote add NAME URL"),
    "--repo repo ostree remote add o example.com": (USAGE, "'example.com'", "https://"),
    "--repo repo ostree commit": (USAGE, "give a tree", "--tree=dir="),
    "--repo repo ostree commit tree -b x": (NOT_FOUND, "no image 'tree'", "--tree=dir=tree"),
    "--repo repo ostree commit --tree=dir=tree --tree=dir=clash -b x": (BAD_DATA, "clash/usr is both", "leave one"),
    "--repo repo ostree commit --tree=tree -b x": (USAGE, "'tree'", "dir=PATH"),
    "--repo repo ostree apply-delta tree/usr/file": (BAD_DATA, "no static delta", "static-delta generate"),
    "--repo repo oci pull alpine": (USAGE, "'alpine'", "docker://"),
    "--repo repo oci pull oci:none": (NOT_FOUND, "none is not a directory", "oci-archive:"),
    f"--repo repo oci pull oci:{'x' * 256}": (NOT_FOUND, "x is not a directory", "oci-archive:"),
    "--repo repo oci pull oci:tree": (NOT_FOUND, "not an OCI layout", "check the path"),
    "--repo repo oci pull oci-archive:tree/usr/file": (BAD_DATA, "not a tar archive", ""),
    "--repo repo oci pull containers-storage:alpine": (UNSUPPORTED, "containers-storage", "skopeo copy"),
    "--repo repo oci pull docker://me:secret@host:5000/x": (USAGE, "a login is no part", "skopeo login host:5000"),
    "--repo repo oci pull docker://me:se@cr/et@host/x": (USAGE, "a login is no part", "skopeo login host;"),
    "--repo repo oci import-layer x": (USAGE, "'x' is not a digest", "sha256:"),
    # No network
    "--repo repo ostree pull http://127.0.0.1:1/repo x": (NETWORK, "http://127.0.0.1:1/repo", "check the URL"),
    "--repo repo ostree pull http://none.invalid/repo x": (NETWORK, "none.invalid", "check the URL"),
    "--repo repo oci pull docker://127.0.0.1:1/x": (NETWORK, "127.0.0.1:1", "check the name"),
    "--repo repo oci pull docker://none.invalid/x": (NETWORK, "none.invalid", "check the name"),
}

# The same for somebody who may read the repository ``locked`` and not write there, nor read ``secret`` and ``unread``.
FORBIDDEN = {
    "--repo locked create-image tree os/2": (PERMISSION, "locked", "check the owner and mode"),
    "--repo locked ref remove --image os/1": (PERMISSION, "locked", "check the owner and mode"),
    "--repo locked gc": (PERMISSION, "locked", "check the owner and mode"),
    "--repo locked fsck --repair --from tree": (PERMISSION, "locked", "check the owner and mode"),
    "--repo locked ostree pull http://127.0.0.1:1/ x": (PERMISSION, "locked", "check the owner and mode"),
    "--repo locked oci pull docker://127.0.0.1:1/x": (PERMISSION, "locked", "check the owner and mode"),
    "--repo locked oci tag a b": (PERMISSION, "locked", "check the owner and mode"),
    "--repo locked init": (CONFLICT, "insecure repository", "--insecure"),
    "init locked/new": (PERMISSION, "locked/new", "check the owner and mode"),
    "--repo secret/repo images": (PERMISSION, "secret/repo", "check the owner and mode"),
    "--repo repo compute-id secret": (PERMISSION, "secret", "check the owner and mode"),
    "--repo repo create-image --from-dump unread": (PERMISSION, "unread", "check the owner and mode"),
    "--repo repo fsck --repair --from secret/none": (PERMISSION, "secret/none", "check the owner and mode"),
    "--repo repo ls os/1 secret": (NOT_FOUND, "secret not found", "cfsctl ls os/1"),
    "--repo repo dump-files os/1 secret": (NOT_FOUND, "/secret not found", "cfsctl ls os/1 DIRECTORY"),
    "--ext-read secret/none --repo repo images": (PERMISSION, "secret/none", "check the owner and mode"),
    "--repo repo ostree pull-local secret x": (PERMISSION, "secret", "check the owner and mode"),
    "--repo repo ostree pull-local secret/none x": (PERMISSION, "secret/none", "check the owner and mode"),
    "--repo repo ostree apply-delta unread": (PERMISSION, "unread", "check the owner and mode"),
    "--repo repo ostree pull http://x/ x --gpg-key unread": (PERMISSION, "unread", "check the owner and mode"),
    "--repo repo oci pull docker://x/x --authfile unread": (PERMISSION, "unread", "check the owner and mode"),
    "--repo repo oci pull oci:secret/layout": (PERMISSION, "secret/layout", "check the owner and mode"),
    "--repo repo oci list-tags oci:secret/layout": (PERMISSION, "secret/layout", "check the owner and mode"),
    "--repo repo oci pull oci-archive:unread": (PERMISSION, "unread", "check the owner and mode"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mistakes")
    (path / "tree" / "usr").mkdir(parents=True)
    (path / "tree" / "usr" / "file").write_text("text\n")
    (path / "clash").mkdir()
    (path / "clash" / "usr").write_text("text\n")
    for name in ("repo", "locked"):
        cfsctl("init", "--insecure", path / name)
        cfsctl("--repo", path / name, "create-image", path / "tree", "os/1")
    (path / "secret").mkdir()
    (path / "unread").write_text("text\n")
    return path


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COMPOSEFS_OCI_RETRIES", "1")
    monkeypatch.setenv("COMPOSEFS_OCI_RETRY_DELAY", "0.01")
    monkeypatch.setenv("COMPOSEFS_OSTREE_REMOTES", str(tmp_path / "none"))


def answers(told: tuple[int, str, str], argv: list[str], place: Path) -> None:
    """Run cfsctl, and hold its answer to what it is to tell."""
    status, wrong, remedy = told
    before = state(place)
    done = subprocess.run(
        argv, cwd=place, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert (done.returncode, done.stdout) == (status, ""), done
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("cfsctl: ")
    assert wrong in done.stderr
    assert remedy in done.stderr
    assert state(place) == before


def state(place: Path) -> dict[str, str]:
    """Every name in the repositories, and where it leads."""
    names = [path for repo in ("repo", "locked") for path in (place / repo).rglob("*") if path.is_symlink()]
    return {str(path.relative_to(place)): os.readlink(path) for path in names}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake(place: Path, line: str) -> None:
    answers(MISTAKES[line], [CFSCTL, *shlex.split(line)], place)


@pytest.mark.root
@pytest.mark.parametrize("line", FORBIDDEN)
def test_what_is_forbidden(place: Path, line: str) -> None:
    # As root without the right to pass over modes: the same as any user, who need not be able to read this checkout.
    plain = [require("setpriv"), "--bounding-set=-dac_override,-dac_read_search,-fowner", CFSCTL]
    for name, mode in {"secret": 0o000, "unread": 0o000, "locked": 0o555, "locked/images": 0o555}.items():
        (place / name).chmod(mode)
    try:
        answers(FORBIDDEN[line], [*plain, *shlex.split(line)], place)
    finally:
        (place / "secret").chmod(0o755)
