"""What cfsctl has loaded when it starts an extension, and what it has not (docs/decisions/start-order.md)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LATE = {
    "ast",  # which inspect loads
    "dataclasses",
    "gettext",
    "hashlib",
    "ipaddress",  # which pathlib loads
    "locale",  # which gettext loads
    "pathlib",
    "platform",  # which uuid loads
    "pluggy",
    "zstandard",
    "click.shell_completion",
    "composefs.ext.calls",
    "composefs.ext.session",
    "composefs.repository.objects",
}

SCRIPT = """
import os, sys
before = set(sys.modules)
from composefs.ext import launch

def spawn(*_, **__):
    print(*sorted(set(sys.modules) - before))
    sys.stdout.flush()
    os._exit(0)

launch.spawn = spawn
from composefs.cli.start import main
main()
"""


def test_an_extension_is_started_before_what_serves_it_is_loaded(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE"))}
    environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def run(*command: str) -> set[str]:
        argv = [sys.executable, str(script), "--repo", str(tmp_path / "repo"), *command]
        done = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, check=True, text=True)
        return set(done.stdout.split())

    run("init", "--insecure")
    loaded = run("ostree", "pull", "http://127.0.0.1:9/", "ref")
    assert "composefs.ext.process" in loaded
    assert not loaded & LATE


def test_help_and_completion_of_an_extension_need_nothing_that_opens_files() -> None:
    script = """
import sys
import composefs.cli.extension
import composefs.cli.kinds
import composefs.ext.discovery
composefs.ext.discovery.search_path()
print(*{"fcntl", "composefs.linux.files"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True, text=True)
    assert done.stdout == "\n"


def test_what_a_pull_of_ostree_loads_needs_no_regular_expression() -> None:
    script = """
import sys
import composefs_ostree.main
from composefs_ostree.commands import pull
from composefs_ostree.sources import source, url
from composefs_ostree.remotes import limits, summaries
from composefs_ostree.signatures.policy import options_of, policy_of
print(*{"re", "enum", "json", "datetime", "functools"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-I", "-c", script], stdout=subprocess.PIPE, check=True, text=True)
    assert done.stdout.split() == []


def test_what_gives_an_image_a_name_loads_nothing_to_read_manifests() -> None:
    script = """
import sys
from composefs_oci.commands import tags
print(*{"composefs_oci.formats.descriptors", "composefs_oci.formats.platform"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-I", "-c", script], stdout=subprocess.PIPE, check=True, text=True)
    assert done.stdout == "\n"


def test_what_gives_a_layer_out_loads_nothing_to_take_one_in() -> None:
    script = """
import sys
from composefs_oci.commands import layers
print(*(name for name in sys.modules if name.startswith(("composefs_ext.workers", "composefs_oci.sources"))))
"""
    done = subprocess.run([sys.executable, "-I", "-c", script], stdout=subprocess.PIPE, check=True, text=True)
    assert done.stdout == "\n"


def test_what_hashes_small_files_loads_nothing_to_map_large_ones() -> None:
    script = """
import sys
from composefs import fsverity
from composefs.digest import SHA512
fsverity.prepare(SHA512)
print(*{"mmap", "composefs.linux.window"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True, text=True)
    assert done.stdout == "\n"


def test_a_module_asked_for_its_parameters_alone_is_loaded_when_it_is_used() -> None:
    script = """
import sys
from composefs.cli.start import _import_when_used
parameters = _import_when_used("uuid", UUID=object)
import click
parameters.clear()
assert "platform" not in sys.modules
made = click.UUID.convert("12345678-1234-5678-1234-567812345678", None, None)
import uuid
assert type(made) is uuid.UUID and uuid.__spec__.name == "uuid"
assert _import_when_used("uuid", UUID=object) and sys.modules["uuid"] is uuid and uuid.UUID is type(made)
print("ok")
"""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True, text=True)
    assert done.stdout == "ok\n"


def test_what_stands_for_a_module_does_so_for_click_alone() -> None:
    script = """
import sys
from importlib import import_module
from composefs.cli.start import _english, _Instead
with _Instead(datetime=import_module("_datetime"), gettext=_english()):
    import click
assert not {"datetime", "gettext", "locale"} & set(sys.modules)
import datetime, gettext
assert datetime.__spec__.name == "datetime" and gettext.__spec__.name == "gettext"
assert type(click.DateTime().convert("2026-11-27", None, None)) is datetime.datetime
with _Instead(datetime=import_module("_datetime"), gettext=_english()):
    assert sys.modules["datetime"] is datetime and sys.modules["gettext"] is gettext
assert sys.modules["datetime"] is datetime and sys.modules["gettext"] is gettext
print("ok")
"""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True, text=True)
    assert done.stdout == "ok\n"


def test_what_is_loaded_late_is_the_module_itself() -> None:
    script = """
import sys
from composefs.cli.start import _import_when_used
_import_when_used("inspect")
import inspect as first
import inspect as again
assert first is again and "ast" not in sys.modules
assert first.cleandoc("  a") == "a"
import inspect as now
assert now.__spec__.name == "inspect" and first.signature is now.signature
try:
    first.nothing
except AttributeError:
    print("ok")
"""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True, text=True)
    assert done.stdout == "ok\n"


@pytest.mark.parametrize(
    "modules",
    [
        "composefs_ostree.commands.pull, composefs_ostree.sources.source, composefs_ostree.remotes.http",
        "composefs_oci.commands.pull, composefs_oci.sources.registry.source",
    ],
)
def test_what_an_extension_loads_before_its_first_request_does_not_import_typing(modules: str) -> None:
    script = f"""
import sys
import {modules}
ours = [module for name, module in sys.modules.items() if name.partition(".")[0].startswith("composefs_")]
import typing
for module in ours:
    for name, value in vars(module).items():
        if name != "TYPE_CHECKING" and name in typing.__all__ and value is getattr(typing, name):
            print(module.__name__, name)
"""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True, text=True)
    assert done.stdout == ""
