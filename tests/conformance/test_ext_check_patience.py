"""How long the conformance kit waits for an extension: as long as it does something."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from composefs.ext.check.silence import Activity, Silence
from support.kit import IMPATIENCE, kit, made

if TYPE_CHECKING:
    from pathlib import Path

WORK = {
    "computes": "burn()",
    "has another compute": "subprocess.run(['sh', '-c', 'i=0; while [ $i -lt 500000 ]; do i=$((i+1)); done'])",
    "shows progress": "slowly(lambda: self.notify('progress', id='a', kind='progress'))",
    "tells people": "slowly(lambda: os.write(2, b'still here\\n'))",
    "says more than the core can take in": "for _ in range(20_000): self.notify('log', level='debug', message='…' * 9)",
    "writes files": "slowly(lambda: open('download', 'ab').write(b'more'))",
}
"""What takes longer than the kit is patient."""


@pytest.mark.parametrize("work", WORK)
def test_who_works_for_long_is_waited_for(installed: Path, work: str) -> None:
    report = made(
        installed,
        f"""
        def put(self, name):
            def burn():
                while time.process_time() < {3 * IMPATIENCE}:
                    pass
            def slowly(act):
                for _ in range(8):
                    time.sleep({IMPATIENCE / 3})
                    act()
            {WORK[work]}
            return super().put(name)
        """,
        18,
    )
    assert (report.unfinished, report.findings) == ([], [])


def test_patience_is_used_up_by_sleep_alone() -> None:
    silence = Silence(10)
    asleep = Activity(asleep=True, used=1.0, written=100, names=("it",))
    seconds = [
        (asleep, 0.0),  # that it is asleep, not for how long
        (asleep, 4.0),
        (asleep._replace(asleep=False), 4.0),  # runs, or could
        (asleep._replace(used=1.09), 8.0),  # less than a hundredth of 10 seconds
        (asleep._replace(used=1.11), 0.0),
        (asleep._replace(used=1.11), 4.0),
        (asleep._replace(used=1.11, written=101), 0.0),
        (asleep._replace(used=1.11, written=101), 4.0),
    ]
    for number, (seen, left) in enumerate(seconds):
        assert not silence.count(seen, 4.0 * number)
        assert silence.seconds == left, number
    assert silence.count(seen, 50.0)
    silence.end()
    assert silence.seconds == 0


def test_who_says_nothing_is_asked_whether_it_flushes(installed: Path) -> None:
    [finding] = kit(installed, "p25silent").findings
    assert finding.message.endswith("(is it an extension, and does it end each line with a newline, and flush it?)")
