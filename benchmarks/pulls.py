"""The main job: a Flatpak runtime over HTTP, pulled, asked for again, and brought up to date."""

from __future__ import annotations

from collections.abc import Iterator

from measure import measure
from rows import CFSCTL, Bench, Row, alternate
from sides import Composefs, Ostree
from webserver import nginx
from workload import BRANCH


def main_jobs(bench: Bench) -> Iterator[Row]:
    made = bench.workload()
    with nginx(made.repo, bench.work / "nginx") as url:
        ours = Composefs(bench.work / "composefs", "pull", url, BRANCH)
        theirs = Ostree(bench.work / "ostree", "pull", "bench", BRANCH, url=url)
        sides = (ours, theirs)
        made.publish(made.first)
        yield alternate("first pull", [(side.name, side.first_pull) for side in sides], bench.rounds)
        yield alternate("nothing new", [(side.name, side.pull) for side in sides], 3 * bench.rounds)
        for side in sides:
            side.save()
        made.publish(made.second)
        yield alternate("3 % changed", [(side.name, side.pull_from_saved) for side in sides], bench.rounds)
    yield alternate("cfsctl --help", [("cfsctl", lambda: measure([CFSCTL, "--help"]))], 3 * bench.rounds)
