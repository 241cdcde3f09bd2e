"""The core as an extension sees it: what ``initialize`` told, and the protocol's calls as methods.

Every method that is a call returns a :class:`~composefs_ext.connection.Pending`; ``.result()`` waits for the answer.
So ``core.object_has(ids).result()`` is a plain call, and a fetcher that keeps several batches on their way sends first
and asks later.  What the core refuses ``.result()`` raises, as an error of :mod:`composefs_ext.errors`; a failure that
nobody asks about is not lost: it fails the run at its end.  Ids are lower-case hexadecimal digits, without a prefix.

Lists may have any length: what does not fit a message is staged, and the file removed after the answer.
"""

from __future__ import annotations

from composefs_ext.connection import Connection, Pending
from composefs_ext.errors import TooLargeError, UnsupportedError, from_wire
from composefs_ext.progress import Progress
from composefs_ext.protocol import FEATURES, LINE_LIMIT, PROGRESS_PER_SECOND, PROTOCOL_VERSION, ROWS, UNANSWERED
from composefs_ext.records import Repository, Stream
from composefs_ext.staging import Staging

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from composefs_ext.rows import (
        FileRow,
        ImageName,
        NamedStream,
        Published,
        RefRemoval,
        RefRow,
        RefUpdate,
        Stored,
        StoredRow,
        StreamName,
        Transforms,
    )

__all__ = ["Core"]

_INLINE_CHARACTERS = LINE_LIMIT // 4
"""A list of strings longer than this in sum is staged although it has few rows."""


class Core(Connection):
    """The other end of the wire.  ``main`` makes one and passes it to the handler.

    ``repository`` is None for a command whose manifest asks for none; ``staging`` hands out and reads staged files;
    ``cache`` is a directory for what makes the next run cheap (None: no cache; it may be emptied at any time);
    ``limits`` and ``features`` are as ``initialize`` announced and agreed them.
    """

    def __init__(self, read_fd: int, write_fd: int) -> None:
        super().__init__(read_fd, write_fd)
        self.repository: Repository | None = None
        self.staging = Staging(".")
        self.cache: str | None = None
        self.limits: dict[str, int] = {}
        self.features: tuple[str, ...] = ()
        self.debug = False  # the user asked for everything: send log messages of level debug too

    def accept(self, params: dict[str, Any], features: Sequence[str] = ()) -> dict[str, Any]:
        """Take in the parameters of ``initialize`` and return the result to answer it with."""
        if PROTOCOL_VERSION not in params.get("versions", ()):
            raise UnsupportedError(
                f"this extension speaks protocol version {PROTOCOL_VERSION}, cfsctl offers {params.get('versions')}",
                hint="update the one of the two that is older",
            )
        wanted = {*FEATURES, *features}
        self.features = tuple(feature for feature in params.get("features", ()) if feature in wanted)
        repository = params.get("repository")
        self.repository = Repository(repository) if repository else None
        self.staging = Staging(params["staging"])
        self.cache = params.get("cache")
        self.limits = params.get("limits") or {}
        self.unanswered = self.limits.get("unanswered", UNANSWERED)
        self.stray_field = params.get("strict") is True
        return {"version": PROTOCOL_VERSION, "features": list(self.features)}

    @property
    def repo(self) -> Repository:
        """The repository, in a command whose manifest asks for one."""
        assert self.repository is not None
        return self.repository

    # Objects

    def object_put(self, files: Sequence[FileRow]) -> Pending[list[Stored]]:
        """Give staged files to the core, which takes those that it stores out of staging, but for packs.

        The result has a row for each file, in the same order; the first row that failed raises its error (the other
        rows were stored all the same; ``object_put_each`` shows them).
        """
        return self._object_put(files, _all_stored)

    def object_put_each(self, files: Sequence[FileRow]) -> Pending[list[StoredRow]]:
        """Like ``object_put``, but a failed row is returned, with its ``error``; see ``errors.from_wire``."""
        return self._object_put(files, lambda answer: answer["objects"])

    def object_has(self, ids: Sequence[str], sizes: Sequence[int | None] | None = None) -> Pending[list[bool]]:
        """Ask which of these objects the repository holds.

        ``sizes`` are what the objects should have, None where unknown: one of another size counts as not held (a power
        cut may have left it short), so that it is fetched and put again.
        """
        params, staged = self._lists(ids=ids, sizes=sizes or ())
        if not ids:
            params["ids"] = []  # which must be there
        decode = self._listed("present", params, many=len(ids) > self._rows)
        return self.send("object.has", params, decode=decode, staged=staged)

    def object_get(self, object_id: str, into: str) -> Pending[int]:
        """Have an object copied (or reflinked) to the new staged file ``into``; the result is its size in bytes.

        MissingObjectError when it is not there, ExistsError when the file is.
        """
        return self.send("object.get", {"id": object_id, "into": into}, decode=lambda answer: answer["size"])

    # Streams

    def stream_put(
        self,
        content_type: str,
        *,
        chunks: Sequence[int],
        object_refs: Sequence[str] = (),
        named_refs: Sequence[tuple[str, str | Pending[Stored]]] = (),
        inline: str | None = None,
    ) -> Pending[Stored]:
        """Store a splitstream without naming it.

        ``content_type`` is 16 hex digits; ``inline`` names the staged file with the inline bytes; ``object_refs`` are
        the objects in the order of their numbers, without duplicates; ``named_refs`` are (name, id) pairs.  Instead of
        an id there may be the ``Pending`` of the call that stores the thing, which is waited for.
        MissingObjectError for an id that the repository does not hold.
        """
        params, staged = self._lists(chunks=chunks, object_refs=object_refs)
        ids = [(each, of if isinstance(of, str) else of.result()["id"]) for each, of in named_refs]
        named, more = self._lists(named_refs=ids)
        params |= named
        staged += more
        params["content_type"] = content_type
        if inline is not None:
            params["inline"] = inline
        return self.send("stream.put", params, staged=staged)

    def stream_get(
        self,
        *,
        name: str | None = None,
        id: str | None = None,
        ref: str | None = None,
        source: str | None = None,
        inline: bool = False,
        chunks: bool = False,
        object_refs: bool = False,
        named_refs: bool = False,
        sizes: bool = False,
    ) -> Pending[Stream]:
        """Read a stream that is given by exactly one of name, id and ref (DIR/NAME); ``source`` is another repository.

        The flags say which of its parts are wanted; the ``sizes`` of its objects, with the feature of this name.  The
        named refs come in any case, but more of them than a message holds (1,000) only where they are wanted.
        NotFoundError when there is none of that name or ref.
        """
        params = _without_none({"name": name, "id": id, "ref": ref, "from": source})
        wanted = {
            "inline": inline,
            "chunks": chunks,
            "object_refs": object_refs,
            "named_refs": named_refs,
            "sizes": sizes,
        }
        files = {part: self.staging.new_name(part) for part, is_wanted in wanted.items() if is_wanted}
        params.update({f"{part}_into": file for part, file in files.items()})

        def decode(answer: dict[str, Any]) -> Stream:
            lists = {part: self.staging.read_rows(file) for part, file in files.items() if part != "inline"}
            return Stream({**answer, **lists, "inline": files.get("inline")})

        return self.send("stream.get", params, decode=decode)

    def stream_cat(
        self,
        *,
        name: str | None = None,
        id: str | None = None,
        ref: str | None = None,
        into: str | None = None,
    ) -> Pending[int]:
        """Reassemble a stream into the new staged file ``into``, or onto standard output; returns its size in bytes."""
        params = _without_none({"name": name, "id": id, "ref": ref, "into": into})
        if into is None:
            params["stdout"] = True
        return self.send("stream.cat", params, decode=lambda answer: answer["size"])

    def stream_list(
        self, prefix: str | None = None, content_type: str | None = None, source: str | None = None
    ) -> Pending[list[NamedStream]]:
        """List named streams."""
        params = _without_none({"prefix": prefix, "content_type": content_type, "from": source})
        return self.send("stream.list", params, decode=self._listed("streams", params))

    # Images

    def image_put(
        self,
        dump: str,
        draft: str | None = None,
        *,
        erofs_format: int | None = None,
        expect: str | None = None,
        transforms: Transforms | None = None,
    ) -> Pending[Stored]:
        """Make an image of the staged dumpfile and store it, without a name; its objects must be in the repository.

        It may be the rest of a ``draft`` (``composefs_ext.drafts``).  ``transforms`` are done to the tree first.
        FormatError for a bad dump, MissingObjectError, and CorruptError for another id than ``expect``.
        """
        options = {"format": erofs_format, "expect": expect, "transforms": transforms}
        params = _without_none({"dump": dump, "draft": draft, **options})
        return self.send("image.put", params)

    def image_digest(
        self,
        dump: str,
        draft: str | None = None,
        *,
        erofs_format: int | None = None,
        transforms: Transforms | None = None,
    ) -> Pending[Stored]:
        """Tell what ``image_put`` would return, and store nothing."""
        params = _without_none({"dump": dump, "draft": draft, "format": erofs_format, "transforms": transforms})
        return self.send("image.digest", params)

    def image_dump(
        self,
        dump: str | None,
        into: str,
        draft: str | None = None,
        *,
        name: str | None = None,
        id: str | None = None,
        paths: Sequence[bytes] = (),
        transforms: Transforms | None = None,
    ) -> Pending[int]:
        """Write the canonical text of a staged dumpfile, or else of an image, to the new staged file ``into``.

        ``transforms`` are done to a dumpfile's tree first.  ``paths``, raw and absolute, are what to write, each with
        all that is below it; none: everything.  The result is the text's size in bytes.
        """
        from composefs_ext.dump import escape

        params, staged = self._lists(paths=[escape(path).decode("ascii") for path in paths])
        params |= _without_none({"dump": dump, "draft": draft, "name": name, "id": id, "into": into})
        params |= _without_none({"transforms": transforms})
        return self.send("image.dump", params, decode=lambda answer: answer["size"], staged=staged)

    def image_objects(self, *, name: str | None = None, id: str | None = None) -> Pending[list[str]]:
        """List the ids of the objects that an image refers to, sorted."""
        params = _without_none({"name": name, "id": id})
        return self.send("image.objects", params, decode=self._listed("ids", params))

    def image_mount(
        self,
        path: str,
        *,
        name: str | None = None,
        id: str | None = None,
        **options: object,
    ) -> Pending[dict[str, Any]]:
        """Mount an image on ``path`` (needs the permission ``mount``); options: upperdir, workdir, read_write."""
        params = _without_none({"path": path, "name": name, "id": id, "options": _without_none(options) or None})
        return self.send("image.mount", params)

    # Names

    def publish(
        self,
        *,
        streams: Sequence[StreamName] = (),
        images: Sequence[ImageName] = (),
        refs: Sequence[RefUpdate] = (),
        remove_refs: Sequence[str | RefRemoval] = (),
    ) -> Pending[Published]:
        """Make things visible: one durability barrier, then the names in this order; all of the call or nothing.

        ConflictError for a broken ``expect``, ExistsError for a stream's name that may not be replaced, NotFoundError
        for a ref to no stream, MissingObjectError.
        """
        params, staged = self._lists(streams=streams, images=images, refs=refs, remove_refs=remove_refs)
        keys = ("streams", "images", "refs", "remove_refs")
        lists = {key: self._listed(key, params, many=f"{key}_file" in params) for key in keys}

        def decode(answer: dict[str, Any]) -> Published:
            return {key: read(answer) for key, read in lists.items()}  # type: ignore[return-value]

        return self.send("publish", params, decode=decode, staged=staged)

    def ref_get(self, name: str, source: str | None = None) -> Pending[RefRow]:
        """Look up a ref, DIR/NAME; NotFoundError when there is none."""
        return self.send("ref.get", _without_none({"name": name, "from": source}))

    def ref_list(self, prefix: str | None = None, source: str | None = None) -> Pending[list[RefRow]]:
        """List refs whose name starts with ``prefix``."""
        params = _without_none({"prefix": prefix, "from": source})
        return self.send("ref.list", params, decode=self._listed("refs", params))

    # The repository

    def repo_fsck(
        self, streams: Sequence[str] | None = None, *, metadata_only: bool = False
    ) -> Pending[dict[str, Any]]:
        """Check these streams with all that they need, or everything; returns what ``cfsctl fsck --json`` prints."""
        params, staged = self._lists(streams=streams or ())
        if streams is not None and not streams:
            params["streams"] = []  # none, which is not all
        params["metadata_only"] = metadata_only
        errors = self._listed("errors", params)
        return self.send("repo.fsck", params, decode=lambda answer: {**answer, "errors": errors(answer)}, staged=staged)

    def repo_copy(
        self, source: str, *, streams: Sequence[str] = (), images: Sequence[str] = ()
    ) -> Pending[dict[str, Any]]:
        """Copy streams and images of the repository ``source``, with all that they name; publish names them.

        ``streams`` and ``images`` of the result are rows with the ids there and here, and a stream's name there.
        """
        params, staged = self._lists(streams=streams, images=images)
        params["from"] = source
        lists = {key: self._listed(key, params) for key in ("streams", "images")}

        def decode(answer: dict[str, Any]) -> dict[str, Any]:
            return {**answer, **{key: read(answer) for key, read in lists.items()}}

        return self.send("repo.copy", params, decode=decode, staged=staged)

    # What the user sees

    def progress(self, label: str, *, total: int | None = None, unit: str = "items") -> Progress:
        """Start a line of progress; ``unit`` is ``bytes`` or ``items``."""
        interval = 1 / self.limits.get("progress_per_second", PROGRESS_PER_SECOND)
        return Progress(self.notify, label, total=total, unit=unit, interval=interval)

    def log(self, level: str, message: str) -> None:
        """Tell the user something: level ``debug`` (sent only where wanted), ``info``, ``warning`` or ``error``."""
        if level != "debug" or self.debug:
            self.notify("log", {"level": level, "message": message[: LINE_LIMIT // 16]})

    def output(self, text: str) -> None:
        """Print to the user's standard output.  With --json the core drops it and prints the run's result instead."""
        try:
            self.notify("output", {"text": text})
        except TooLargeError:
            self.output_file(self.staging.write(text.encode("utf-8", "surrogateescape"), "output"))

    def output_file(self, name: str) -> None:
        """Print a staged file to the user's standard output; the core removes it."""
        self.notify("output", {"file": name})

    # Lists of any length

    @property
    def _rows(self) -> int:
        return self.limits.get("rows", ROWS)

    def _lists(self, **lists: Sequence[Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return parameters that hold the lists inline or name staged files, and the paths of those files."""
        params: dict[str, Any] = {}
        staged: list[str] = []
        for key, rows in lists.items():
            if len(rows) > self._rows or _characters(rows) > _INLINE_CHARACTERS:
                params[f"{key}_file"] = self.staging.write_rows(rows, key)
                staged.append(self.staging.path_of(params[f"{key}_file"]))
            elif rows:
                params[key] = list(rows)
        return params, tuple(staged)

    def _listed(self, key: str, params: dict[str, Any], *, many: bool = True) -> Callable[[dict[str, Any]], list[Any]]:
        """Ask, in ``params``, for the list ``key`` in a file if there may be many; return what reads the answer."""
        if not many:
            return lambda answer: answer[key]
        into = params[f"{key}_into"] = self.staging.new_name(key)
        # An older core, which knows no file for this list, puts it into the answer.
        return lambda answer: answer[key] if key in answer else self.staging.read_rows(into)

    def _object_put(self, files: Sequence[FileRow], decode: Callable[[dict[str, Any]], Any]) -> Pending[Any]:
        if len(files) <= self._rows:
            return self.send("object.put", {"files": files}, decode=decode)
        params, staged = self._lists(files=files)
        read = self._listed("objects", params)
        return self.send("object.put", params, decode=lambda a: decode({"objects": read(a)}), staged=staged)


def _all_stored(answer: dict[str, Any]) -> list[Any]:
    rows: list[Any] = answer["objects"]
    for row in rows:
        if "error" in row:
            raise from_wire(row["error"])
    return rows


def _characters(rows: Sequence[Any]) -> int:
    """Estimate what the rows take in a message; exact where it matters, for strings."""
    if rows and type(rows[0]) is int:
        return 12 * len(rows)
    return sum(len(row) if isinstance(row, str) else 12 if isinstance(row, int) else 200 for row in rows)


def _without_none(members: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in members.items() if value is not None}
