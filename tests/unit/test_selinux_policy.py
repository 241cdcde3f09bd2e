"""The SELinux policy of a tree: its files, its expressions, what it costs at worst, and the labels it gives."""

from __future__ import annotations

import ctypes
import random
import re

import pytest

from composefs.boot import automaton
from composefs.boot.automaton import Automaton, Rule
from composefs.boot.lookup import Files
from composefs.boot.pattern import parse
from composefs.boot.policy import MAX_LINE, Policy, load
from composefs.boot.program import Work
from composefs.boot.relabel import SELINUX_XATTR, relabel, remove_labels
from composefs.digest import SHA256
from composefs.errors import FormatError, TooLargeError
from composefs.tree import NO_XATTRS, Node, Tree, walk

CONTEXTS = "etc/selinux/t/contexts/files/file_contexts"


def directory(**children: Node) -> Node:
    return Node(0o40755, children={name.encode(): child for name, child in sorted(children.items())})


def file(content: str | bytes = b"") -> Node:
    data = content.encode() if isinstance(content, str) else content
    return Node(0o100644, size=len(data), content=data or None)


def tree_of(files: dict[str, Node | str | bytes]) -> Tree:
    """A tree with these files; directories on the way are made."""
    root = directory()
    for path, content in sorted(files.items()):
        node = root
        *above, name = path.split("/")
        for part in above:
            assert node.children is not None
            node = node.children.setdefault(part.encode(), directory())
        assert node.children is not None
        node.children[name.encode()] = content if isinstance(content, Node) else file(content)
    for _, _, _, node in list(walk(root)):
        if node.children is not None:
            node.children = dict(sorted(node.children.items()))
    return Tree(root, SHA256)


def nothing(path: bytes, node: Node) -> bytes:
    raise AssertionError((path, node))


def policy_of(rules: str, config: str = "SELINUXTYPE=t\n", **files: str) -> Policy | None:
    content: dict[str, Node | str | bytes] = {"etc/selinux/config": config, CONTEXTS: rules}
    return load(Files(tree_of(content | {f"{CONTEXTS}.{suffix}": text for suffix, text in files.items()}), nothing))


def label(policy: Policy | None, path: str, type_: str = "-") -> bytes | None:
    """The label of a path, read name by name as a walk does."""
    assert policy is not None
    state, at = policy.go(policy.start, b"", b"/")
    for name in path.encode().split(b"/")[1:]:
        state, at = policy.go(*policy.below(state, at), name)
    return policy.label(state, at, ord(type_))


def matches(pattern: str, path: str, type_: str = "-") -> bool:
    machine = Automaton([Rule(parse(pattern), None)])
    return machine.winner(machine.read(machine.start, path.encode()), path.encode(), ord(type_)) is not None


@pytest.mark.parametrize(
    ("config", "enabled"),
    [
        ("SELINUXTYPE=t", True),
        ("selinuxtype = t \r\n", True),
        ("# SELINUXTYPE=x\n#SELINUXTYPE=y\nSELINUX=disabled\nSELINUXTYPE=t\nSELINUXTYPE=z\n", True),
        ("SELINUXTYPE\n", False),
        ("XSELINUXTYPE=t\n", False),
        ("", False),
    ],
)
def test_which_policy_is_enabled(config: str, enabled: bool) -> None:
    assert (policy_of("/.* a:b:c\n", config) is not None) == enabled


@pytest.mark.parametrize("name", ["", ".", "..", "../t", "t/contexts", "a\0b"])
def test_a_policy_is_a_directory_beside_its_configuration(name: str) -> None:
    with pytest.raises(FormatError, match="SELINUXTYPE"):
        policy_of("/.* a:b:c\n", f"SELINUXTYPE={name}\n")


def test_no_configuration_no_policy() -> None:
    assert load(Files(tree_of({"etc/x": ""}), nothing)) is None
    assert load(Files(tree_of({}), nothing)) is None


def test_a_policy_that_is_enabled_has_rules() -> None:
    """Without any, all labels would go."""
    with pytest.raises(FormatError, match="the SELinux policy has no file /etc/selinux/t/contexts/files/file_contexts"):
        load(Files(tree_of({"etc/selinux/config": "SELINUXTYPE=t\n", f"{CONTEXTS}.local": "/.* a\n"}), nothing))


def test_the_last_rule_of_all_files_wins_whatever_it_looks_like() -> None:
    policy = policy_of("/a first\n/.* second\n", local="/a local\n/b local\n", homedirs="/b home\n")
    assert label(policy, "/a") == b"local"
    assert label(policy, "/b") == b"home"
    assert label(policy, "/c") == b"second"
    assert label(policy_of("/a exact\n/.* any\n"), "/a") == b"any"


def test_types_and_no_label() -> None:
    policy = policy_of("/.* any\n/.* -d dir\n  /x\t--   file  \n/none <<none>>\n/.* -l <<none>>\n# /.* comment\n\n")
    assert [label(policy, "/y", type_) for type_ in "-dbcps"] == [b"any", b"dir", *[b"any"] * 4]
    assert label(policy, "/x") == b"file"
    assert label(policy, "/x", "b") == b"any"
    assert label(policy, "/none") is None
    assert label(policy, "/x", "l") is None


def test_substitutions_replace_whole_paths_and_what_is_below_goes_on_from_there() -> None:
    policy = policy_of(
        "/.* any\n/usr/lib(/.*)? lib\n/x/y xy\n",
        subs="/lib64 /nowhere\n/one /x\n/usr/lib/two /x/y\n",
        subs_dist="# comment\n/lib64\t/usr/lib\n/slash /x/\n",
    )
    assert label(policy, "/lib64", "d") == b"lib"
    assert label(policy, "/lib64/a/b") == b"lib"
    assert label(policy, "/lib64b") == b"any"
    assert label(policy, "/one/y") == b"xy"
    assert label(policy, "/lib64/two") == b"xy"
    assert label(policy, "/slash/y") == b"xy"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("/.*", "there is no label"),
        ("/.* --", "there is no label"),
        ("/.* -- a:b:c d", "something after the label"),
        ("/.* a:b:c d", "something after the label"),
        ("/.* -x a:b:c", "no type of file"),
        ("/.* --- a:b:c", "no type of file"),
        ("/( a:b:c", "not closed"),
        ("/a) a:b:c", "not opened"),
        ("/[a a:b:c", "bracket is not closed"),
        ("/[b-a] a:b:c", "wrong way round"),
        ("/[[:none:]] a:b:c", "no such class"),
        ("/[a[b] a:b:c", "as an escape"),
        ("/[é] a:b:c", "as an escape"),
        ("/[a&&b] a:b:c", "set operations"),
        ("/[a--b] a:b:c", "set operations"),
        ("/[\\d-z] a:b:c", "no end of a range"),
        ("/[\\b] a:b:c", "not supported in a bracket"),
        ("/a{2,1} a:b:c", "wrong way round"),
        ("/a{,3} a:b:c", "no smallest number"),
        ("/a*{2}+? a:b:c", None),
        ("/a++++ a:b:c", "too many quantifiers"),
        ("/(?=a)b++ a:b:c", "possessive"),
        ("/|*a a:b:c", "nothing to repeat"),
        ("/({2}) a:b:c", "nothing to repeat"),
        ("/\\b* a:b:c", "cannot be repeated"),
        ("/(?i)a a:b:c", "not supported"),
        ("/(*UTF8)a a:b:c", "not supported"),
        ("/(?P<n>a) a:b:c", "not supported"),
        ("/\\Qa a:b:c", "not supported"),
        ("/\\<a a:b:c", "not supported"),
        ("/a\\ a:b:c", "not supported"),
        ("/\\x{100} a:b:c", "beyond"),
        ("/\\12 a:b:c", "not supported"),
        ("/(a)\\3 a:b:c", "group that is not there"),
        ("/(?<=a+) a:b:c", "no fixed length"),
        ("/(?<!a|b(c|de)) a:b:c", "no fixed length"),
        ("/(a)(?<=\\2) a:b:c", "no fixed length"),
    ],
)
def test_malformed_rules_are_refused_with_their_line(line: str, reason: str | None) -> None:
    rules = f"# one\n\n{line}\n"
    if reason is None:
        assert policy_of(rules) is not None
        return
    with pytest.raises(FormatError, match=reason) as caught:
        policy_of(rules)
    assert caught.value.offset == 3
    assert caught.value.message.startswith(f"/{CONTEXTS}, line 3: ")
    assert str(caught.value) == caught.value.message


def test_malformed_substitutions_are_refused() -> None:
    for line in ("/usr", "/usr /x /y"):
        with pytest.raises(FormatError, match="two paths"):
            policy_of("/.* a\n", subs=f"{line}\n")


def test_a_lookbehind_has_branches_of_one_length_each() -> None:
    assert matches("/(?:ab|c)x(?<!abx|dx)", "/cx")
    assert not matches("/(?:ab|c)x(?<=abx|dx)", "/cx")
    assert matches("/(?:ab|c)x(?<=(?:a|b)[xy]{1}|dx)", "/abx")
    assert matches("/abc(?<=(a|b)c)", "/abc")
    assert matches("/(?=[ab]{2,}x).*", "/aabx")  # what is looked for ahead has any
    assert matches(r"/a(?<=^/a)b(?<=(?=b)\Bb|\A/)", "/ab")  # a condition has none


def test_expressions_that_the_two_engines_of_composefs_rs_see_differently() -> None:
    assert matches("/a.b", "/a\nb")
    assert matches("/a(.|x)b", "/a\nb")
    assert not matches("/a(?=.).b", "/a\nb")  # with lookaround it is for PCRE
    assert not matches("/a.b{", "/a\nb{")  # so is a brace that counts nothing
    assert matches("/a.b{", "/acb{")
    assert matches("/é+", "/éé")  # a character, not its last byte, is repeated
    assert matches("/a*+b", "/aab")
    assert matches("/a++a", "/aaa")  # no possessive quantifier but a group of groups


def test_back_references_count_the_rule_itself() -> None:
    assert not matches(r"/([a-z])\1", "/ee")
    assert matches(r"/([a-z])a\2", "/eae")
    assert not matches(r"/([a-z])a\2", "/eaf")
    assert matches(r"/([a-z]+)\.(x|\2)", "/ab.ab")


def test_word_boundaries_see_the_letter_of_the_type() -> None:
    assert not matches(r"/a\b", "/a", "d")
    assert matches(r"/a\b", "/a", "-")
    assert matches(r"/a\b.*", "/a b")
    assert not matches(r"\b/a", "/a", "d")  # which is behind the path, and not before it
    assert matches(r"\A/a\B", "/a", "d")
    assert not matches(r"/a$", "/a")
    assert not matches(r"/a\z", "/a")
    assert matches(r"^/a", "/a")


def test_escapes_and_classes() -> None:
    assert matches(r"/\x66[[:digit:]][[:^alpha:]]\.\+\-\_", "/f1..+-_")
    assert matches(r"/\x{66}[\]\-\\][^\d][]x]", "/f-a]")
    assert matches(r"/[\d-][b-b]\x{7f}", "/-b\x7f")
    assert not matches(r"/\x{ff}", "/a")
    assert matches(r"/\\-*", "/\\---")
    assert not matches(r"/\\-*", "/\\-\\-")


POSIX_CLASSES = (
    *("alnum", "alpha", "blank", "cntrl", "digit", "graph"),
    *("lower", "print", "punct", "space", "upper", "xdigit"),
)


def test_classes_have_the_members_that_c_and_python_give_them() -> None:
    libc = ctypes.CDLL(None)
    for code in range(128):
        char = chr(code)
        for name in POSIX_CLASSES:
            assert matches(f"/[[:{name}:]]", f"/{char}") == bool(getattr(libc, f"is{name}")(code)), (name, char)
        for escape in (*(r"\d", r"\D", r"\s", r"\S", r"\w", r"\W"), *(r"\n", r"\r", r"\t", r"\f", r"\a")):
            found = re.fullmatch(escape.encode(), char.encode()) is not None
            assert matches(f"/{escape}", f"/{char}") == matches(f"/[{escape}]", f"/{char}") == found, (escape, char)


STEPS = 300_000
HOSTILE = {
    "as many states as paths": [r"/[abcdx/]*a[abcdx/]{900}"],
    "nested repetitions": [r"/((a*)*)*b", r"/(a+)+$", r"/(.*.*.*.*.*)\b"],
    "back references": [r"/(a|aa|[b-x/])*\2x\2"],
    "many lookarounds": [rf"(?!q).*(?<!z)x{number}" for number in range(300)],
    "nested lookarounds": [r"/(?=.*(?=.*(?=.*zz)))(.*)*q"],
    "repetitions of nothing": [r"/((){1000}){1000}"],
    "repetitions of repetitions": [r"/(((a{1000}){1000}){1000})"],
    "many optional bytes": [f"/(.?){{1000}}{number}" for number in range(50)],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_expressions_cost_bounded_work(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With so few steps, states and instructions, each of them is refused; a backtracker would not come back at all."""
    monkeypatch.setattr(automaton, "MAX_STATES", 500)
    monkeypatch.setattr(automaton, "MAX_INSTRUCTIONS", 100_000)
    rng = random.Random(name)
    paths = [b"/" + bytes(rng.choice(b"aaaabcdx/") for _ in range(rng.randrange(20, 200))) for _ in range(1000)]
    work = Work(STEPS)

    def run() -> None:
        machine = Automaton([Rule(parse(text), None) for text in HOSTILE[name]], work)
        for path in paths:
            machine.winner(machine.read(machine.start, path), path, ord("-"))

    with pytest.raises(TooLargeError, match="SELinux policy"):
        run()
    assert work.left > -STEPS


@pytest.mark.parametrize("length", [1000, 3000])
@pytest.mark.parametrize("last", ["x", "y"])
def test_each_run_of_the_backtracker_is_paid_for(last: str, length: int) -> None:
    """Also a short one, whether it finds something or not: there may be one for each path and pattern."""
    work = Work(100_000)
    path = b"/" + b"a" * length + b"x"
    machine = Automaton([Rule(parse(f"/(?=a*{last}).*"), None)], work)
    state = machine.read(machine.start, path)
    before = work.left
    assert machine.winner(state, path, ord("-")) == (0 if last == "x" else None)
    assert before - work.left > 2 * length


def test_groups_cost_nothing_that_nothing_refers_to() -> None:
    """A machine that notes where 800 groups begin and end takes seconds for a path, however few steps it counts."""
    path = b"/" + b"a/" * 800
    machine = Automaton([Rule(parse("/" + "(a/?)" * 800 + r"\2?"), None)], Work(5000))
    assert machine.winner(machine.read(machine.start, path), path, ord("-")) == 0


def test_what_the_backtracker_keeps_of_one_path_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    text, path = r"/(a|aa|[b-x/])*\2x\2", "/" + "a" * 30
    assert not matches(text, path)
    monkeypatch.setattr("composefs.boot.program.MAX_STATES", 100)
    with pytest.raises(TooLargeError, match="does not get done with a path"):
        matches(text, path)


def test_forgetting_states_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = [Rule(parse(text), None) for text in (r"/(a|b)*x.*", r"/.*b[^/]*", "/ab", r"/a.*x\b.*")]
    rng = random.Random(1)
    paths = [b"/" + bytes(rng.choice(b"abx/") for _ in range(rng.randrange(8))) for _ in range(500)]
    answers = []
    for kept in (100_000, 3):
        monkeypatch.setattr(automaton, "MAX_STATES", kept)
        machine = Automaton(rules)
        answers.append([machine.winner(machine.read(machine.start, path), path, ord("-")) for path in paths])
    assert answers[0] == answers[1]
    assert set(answers[0]) == {None, 0, 1, 2, 3}


def test_sizes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("/" + "a" * 4096, "/" + "(" * 40 + ")" * 40, "/a{1001}"):
        with pytest.raises(TooLargeError):
            parse(text)
    assert parse("/" + "a" * 4095)
    assert policy_of(f"/.* {'a' * (MAX_LINE - 4)}\n")
    with pytest.raises(TooLargeError, match="line 1"):
        policy_of(f"/.* {'a' * (MAX_LINE - 3)}\n")
    monkeypatch.setattr("composefs.boot.policy.MAX_LINES", 5)
    with pytest.raises(TooLargeError, match="line 6"):
        policy_of("/.* a\n" * 6)
    monkeypatch.setattr("composefs.boot.policy.MAX_FILE", 10)
    with pytest.raises(TooLargeError, match="more than 10"):
        policy_of("/.* aaaaaaaaaa\n")
    monkeypatch.setattr(automaton, "MAX_STEMS", 5)
    with pytest.raises(TooLargeError, match="too many"):
        Automaton([Rule(parse("/abcdef"), None)])


def labels_of(tree: Tree) -> dict[str, bytes | None]:
    return {path.decode(): node.xattrs.get(SELINUX_XATTR) for path, _, _, node in walk(tree.root)}


def linked(tree: Tree, *paths: str) -> Node:
    """One inode under several names."""
    node = file("linked")
    for path in paths:
        parent = tree.root
        *above, name = path.encode().split(b"/")
        for part in above:
            assert parent.children is not None
            parent = parent.children[part]
        assert parent.children is not None
        parent.children[name] = node
        parent.children = dict(sorted(parent.children.items()))
        node.home = node.home or (parent, name)
    node.nlink = len(paths)
    return node


def test_every_name_with_another_label_than_the_first_becomes_an_inode_of_its_own() -> None:
    tree = tree_of({f"{name}/x": "" for name in "abc"})
    node = linked(tree, "a/1", "a/2", "b/1", "b/2", "c/1")
    relabel(tree, policy_of("/a.* A\n/b.* B\n/c.* A\n") or pytest.fail("no policy"))
    found = {path.decode(): each for path, _, _, each in walk(tree.root)}
    assert found["/a/1"] is found["/a/2"] is found["/c/1"] is node
    assert node.nlink == 3
    one, two = found["/b/1"], found["/b/2"]
    assert one is not two  # they agree, and still
    assert (one.home, two.home, one.nlink) == (None, None, 1)
    assert one.content == two.content == b"linked"
    assert labels_of(tree)["/b/2"] == b"B"


def test_labels_are_replaced_and_removed_and_other_attributes_stay_shared() -> None:
    shared = {b"user.x": b"1", SELINUX_XATTR: b"old"}
    tree = tree_of({"a": "", "b": "", "c": ""})
    assert tree.root.children is not None
    for node in tree.root.children.values():
        node.xattrs = shared
    relabel(tree, policy_of("/[ab] new\n") or pytest.fail("no policy"))
    a, b, c = tree.root.children.values()
    assert a.xattrs is b.xattrs
    assert dict(a.xattrs) == {b"user.x": b"1", SELINUX_XATTR: b"new"}
    assert dict(c.xattrs) == {b"user.x": b"1"}
    assert dict(shared) == {b"user.x": b"1", SELINUX_XATTR: b"old"}
    remove_labels(tree)
    assert set(labels_of(tree).values()) == {None}
    only = tree_of({"a": ""})
    only.root.xattrs = {SELINUX_XATTR: b"x"}
    remove_labels(only)
    assert only.root.xattrs is NO_XATTRS


def test_a_file_of_no_known_type_has_no_label() -> None:
    tree = tree_of({"a": Node(0o000644)})
    with pytest.raises(FormatError, match="/a has an unknown file type"):
        relabel(tree, policy_of("/.* A\n") or pytest.fail("no policy"))


def test_a_deep_tree_costs_no_recursion() -> None:
    tree = tree_of({})
    node = tree.root
    for _ in range(3000):
        node.children = {b"d": directory()}
        node = node.children[b"d"]
    relabel(tree, policy_of("/(d/)*d A\n") or pytest.fail("no policy"))
    assert node.xattrs[SELINUX_XATTR] == b"A"
    remove_labels(tree)
