"""The trees that ``commit`` is to lay over one another, and what it is to change of them, from its options."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from composefs_ext import Core, Request
from composefs_ext.errors import FormatError, UsageError
from composefs_ostree.committing.changes import Changes
from composefs_ostree.committing.chosen import read_chosen
from composefs_ostree.committing.layers import Layers

__all__ = ["given_changes", "read_trees"]

_MAX_ID = 0xFFFFFFFF


def given_changes(request: Request, core: Core) -> Changes:
    """Return what the options change of owners, modes and attributes."""
    uid, gid = request.get("owner_uid"), request.get("owner_gid")
    for option, value in (("--owner-uid", uid), ("--owner-gid", gid)):
        if value is not None and not 0 <= value <= _MAX_ID:
            raise UsageError(f"{option} {value} is no user or group id")
        if value and request.get("canonical_permissions"):
            raise UsageError(f"--canonical-permissions lets root own everything, and {option} somebody else")
    is_canonical = bool(request.get("canonical_permissions"))
    return Changes(
        uid,
        gid,
        # Which ostree leaves out with canonical permissions too, whatever the mode of its repository.
        not request.get("no_xattrs") and not is_canonical,
        is_canonical,
        bool(request.get("mode_ro_executables")),
        read_chosen(request, core),
    )


def read_trees(request: Request, core: Core, changes: Changes) -> Layers:
    """Read the trees that the request names, as far as that is done before the contents.

    Of different options nobody knows the order, so that they have one: the base, an image, a dump, commits, and what
    --tree gives.
    """
    base, image, dump = request.get("base"), request.get("image"), request.get("from_dump")
    commits, trees = request.get("tree_ref", ()), request.get("tree", ())
    if base is None and image is None and dump is None and not commits and not trees:
        raise UsageError(
            "give a tree to commit: an image, --tree, --tree-ref, --base or --from-dump",
            hint="cfsctl ostree commit --tree=dir=DIRECTORY --branch=NAME",
        )
    autocreate, rename = _tar_options(request, trees)
    layers = Layers()
    if base is not None:
        _add_commit(core, base, layers)
    layers.changes = changes  # from now on: the base stays as it is
    if image is not None:
        from composefs_ostree.committing.dumps import image_listing

        layers.add(image_listing(core, image, layers))
    if dump is not None:
        from composefs_ostree.committing.dumps import dump_listing

        layers.add(dump_listing(core, dump, layers))
    for each in commits:
        _add_commit(core, each, layers)
    for each in trees:
        kind, _, path = each.partition("=")
        if kind == "dir":
            from composefs_ostree.committing.directory import DirectoryListing

            layers.add(DirectoryListing(core, path, layers))
        else:
            from composefs_ostree.committing.tarball import tar_listing

            layers.add(tar_listing(core, path, layers, autocreate=autocreate, rename=rename))
    changes.paths.check_used()
    if layers.root.meta is None:  # there are archives only, and that is no mistake of any one of them
        from composefs_ostree.committing.tarball import TAR_REMEDY

        paths = ", ".join(each.partition("=")[2] for each in trees)
        raise FormatError(f"{paths}: there is no entry for the root", hint=TAR_REMEDY)
    return layers


def _tar_options(request: Request, trees: Sequence[str]) -> tuple[bool, Callable[[str], str] | None]:
    """Return whether directories are made that archives lack, and what gives other names to members."""
    autocreate, renaming = bool(request.get("tar_autocreate_parents")), request.get("tar_pathname_filter")
    if (autocreate or renaming is not None) and not any(each.startswith("tar=") for each in trees):
        option = "--tar-autocreate-parents" if autocreate else "--tar-pathname-filter"
        raise UsageError(f"{option} is for --tree=tar=FILE")
    if renaming is None:
        return autocreate, None
    from composefs_ostree.committing.renaming import renamer

    return autocreate, renamer(renaming)


def _add_commit(core: Core, name: str, layers: Layers) -> None:
    from composefs_ostree.committing.recommit import commit_listing

    layers.add(commit_listing(core, name, layers))
