"""What may look into a run from inside: the conformance kit, which sees every line and meddles with some."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from composefs.ext.channel import Channel
    from composefs.ext.process import Ended
    from composefs.observe import Observers
    from composefs.protocol.limits import Limits

__all__ = ["Probe"]


class Probe(Protocol):
    """Given to ``run_extension``, is asked for the channel of the conversation, and told how the process ended."""

    def channel(self, read_fd: int, write_fd: int, limits: Limits, observer: Observers, /) -> Channel:
        """Return the channel over the descriptors of a process that has just been started."""

    def ended(self, ended: Ended, interrupts: int, /) -> None:
        """Learn how the process ended and what it left behind, and how many signals asked us to stop."""
