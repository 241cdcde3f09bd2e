"""The order of GLib's dictionaries: what GLib 2.84 answered; the interop tests ask the one that is here."""

from __future__ import annotations

import random
from hashlib import sha256

import pytest

from composefs_ostree.committing.dictorder import dict_order


@pytest.mark.parametrize(
    ("keys", "order"),
    [
        ([], []),
        (["a"], ["a"]),
        (
            ["version", "ostree.ref-binding", "ostree.bootable", "ostree.linux"],
            ["ostree.linux", "version", "ostree.bootable", "ostree.ref-binding"],
        ),
        # Eight make the table grow.
        (list("abcdefgh"), list("bhagfedc")),
        (["grüße", "é", "a", "z"], ["grüße", "z", "é", "a"]),
    ],
    ids=range(5),
)
def test_the_order_of_a_few_keys(keys: list[str], order: list[str]) -> None:
    assert dict_order(keys) == order


def test_the_order_of_thousands_of_keys() -> None:
    order = dict_order([f"k{number}" for number in range(3000)])
    assert sha256("\n".join(order).encode()).hexdigest() == (
        "9c0fad8fec72aa78a90619310cd844380a877c47e9ab07e87d947531db68519b"
    )


def test_no_key_is_lost_and_the_order_of_putting_matters() -> None:
    chooser = random.Random(2026)
    changed = 0
    for count in range(1, 120):
        keys = [f"{chooser.random()}" for _ in range(count)]
        order = dict_order(keys)
        assert sorted(order) == sorted(keys)
        changed += dict_order(keys[::-1]) != order
    assert changed > 60
