"""Whether a server gets requests: what its answers make of it, in time. Pure."""

from __future__ import annotations

import math

from .health import SECONDS, Answer, Kind

#: Bad answers after each other with which a server gets nothing any more.
_BAD = 2
#: Good ones with which it gets requests again; twice as many for each fall in the last minute, so
#: that one that comes and goes is left alone. A change that `up` makes is no fall.
_GOOD, _MOST_GOOD, _RECENT = 2, 8, 60.0
#: Seconds without an answer after which its connections are ended: what waits there goes to others.
CUT_SECONDS = 10.0
#: Seconds between two questions to a server.
INTERVAL = 1.0
#: Seconds that pass at most until it is known that a server is back: a question that gets no
#: answer, the time to the next one, and that one's answer.
_NEWS = 2 * SECONDS + INTERVAL
#: Seconds for which a server that `up` changes counts as coming back: it loads its model.
_CHANGE = 120.0


class ServerState:
    """A server in the watcher's eyes; all times are seconds of one clock."""

    def __init__(self, now: float) -> None:
        #: By its answers; before the first one it is not known.
        self._works = False
        #: Whether it refuses the stack's key, and so what clients without a key of their own send.
        self.refuses_key = False
        self.since = now
        self.last = Answer(Kind.SILENT, "was not asked yet")
        self._known = self._changed = False
        self._good = self._bad = 0
        self._answered = now
        self._was_good = self._drained = -math.inf
        self._falls: list[float] = []

    def observe(self, answer: Answer, now: float) -> None:
        """Take an answer into account."""
        self.last = answer
        if answer.kind in (Kind.GOOD, Kind.NOT_READY, Kind.DRAINING):
            self._answered = now
        good = answer.kind is Kind.GOOD
        if good:
            self._was_good = now
        if answer.kind is Kind.DRAINING:
            self._drained = now
        self._changed = not good and (self._changed or answer.kind is Kind.DRAINING)
        self._good, self._bad = (self._good + 1, 0) if good else (0, self._bad + 1)
        if not self._known:
            self._known = True
            self._turn(good, now)
        elif self._works and self._bad >= _BAD:
            if not self._changed:
                self._falls.append(now)
            self._turn(False, now)
        elif not self._works and self._good >= self._needed(now):
            self._turn(True, now)

    def take_key(self, accepted: bool, now: float) -> None:
        """Take into account whether it accepts the stack's key."""
        if self.refuses_key == accepted:
            self.refuses_key, self.since = not accepted, now

    def _turn(self, works: bool, now: float) -> None:
        self._works, self.since = works, now

    def _needed(self, now: float) -> int:
        self._falls = [fall for fall in self._falls if now - fall < _RECENT]
        return min(_GOOD << max(len(self._falls) - 1, 0), _MOST_GOOD)

    @property
    def serving(self) -> bool:
        """Whether it is in the list."""
        return self._works and not self.refuses_key

    @property
    def usable(self) -> bool:
        """Whether it may be asked where no other one is left: its last answer was good."""
        return self.last.kind is Kind.GOOD

    def may_answer(self, now: float) -> bool:
        """Whether requests are let in for it, if no other server works.

        It was good a moment ago: another server may be back without being known to be, as when
        ``up`` changes one after the other. Or ``up`` changes this one: requests wait at its port,
        which systemd holds.
        """
        changes = self._changed and now - self._drained < _CHANGE
        return changes or now - self._was_good < _NEWS

    def to_cut(self, now: float) -> bool:
        """Whether its connections are to be ended: nothing will come of them."""
        if self._works:
            return False
        if self.last.kind is Kind.STALLED:
            return True
        return now - self._answered >= CUT_SECONDS

    @property
    def why(self) -> str:
        """Why it gets nothing; empty where it does."""
        if self.serving:
            return ""
        if self._works:
            return "does not accept the key of this stack"
        return self.last.why or "has just come back"
