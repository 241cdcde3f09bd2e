"""Which objects a dump's image refers to, and which dumps make no image."""

from __future__ import annotations

import pytest

from composefs import dumpfile
from composefs.digest import SHA256
from composefs.errors import FormatError
from composefs.repository.images import image_objects
from composefs.tree import Tree

ID, OTHER = "ab" * 32, "cd" * 32
PATH = f"{ID[:2]}/{ID[2:]}"


def tree(*lines: str) -> Tree:
    text = "".join(f"{line}\n" for line in ("/ 0 40755 2 0 0 0 0.0 - - -", "/d 0 40755 2 0 0 0 0.0 - - -", *lines))
    return dumpfile.parse(text.encode(), SHA256)


def test_what_is_outside_of_the_image_is_referred_to() -> None:
    made = tree(f"/d/a 100 100644 1 0 0 0 0.0 {PATH} - {ID}", "/d/b 3 100644 1 0 0 0 0.0 - abc -")
    assert image_objects(made).keys() == made.objects().keys() == {ID}


def test_the_digest_of_what_is_inside_is_not() -> None:
    made = tree(f"/a 3 100644 1 0 0 0 0.0 - abc {ID}", f"/b 0 100644 1 0 0 0 0.0 - - {OTHER}")
    assert image_objects(made).keys() == made.objects().keys() == set()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            f"/d/a 100 100644 1 0 0 0 0.0 {PATH} - {OTHER}",
            f"/d/a has a PAYLOAD that is not the path of its DIGEST, {OTHER[:2]}/{OTHER[2:]}",
        ),
        (f"/d/a 100 100644 1 0 0 0 0.0 - - {ID}", f"/d/a has a PAYLOAD that is not the path of its DIGEST, {PATH}"),
        (
            f"/d/a 100 100644 1 0 0 0 0.0 {PATH} - {ID}\n/d/b 101 100644 1 0 0 0 0.0 {PATH} - {ID}",
            "/d/b has not the SIZE of another with its DIGEST",
        ),
        (f"/d/a 100 100644 1 0 0 0 0.0 {PATH} - -", "/d/a has neither CONTENT nor DIGEST"),
    ],
)
def test_what_leads_to_no_object_or_another_one_is_refused(line: str, message: str) -> None:
    with pytest.raises(FormatError, match=f"^in the dump, {message}$"):
        image_objects(tree(line))
