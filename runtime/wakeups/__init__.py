"""Wake-ups: hints between processes, after the commit. They carry no order and no truth.

Whatever is hinted at has a row that a poll finds, so a lost, doubled or late hint costs time and nothing else. A socket
carries them where one reaches (`wires`), NOTIFY everywhere else (`notices`); who has something to say need not know
which (`hints`).
"""

from runtime.wakeups.hints import Hints
from runtime.wakeups.kinds import Asker, Item, Kind
from runtime.wakeups.notices import Notice
from runtime.wakeups.wires import Wire, listen

__all__ = ["Asker", "Hints", "Item", "Kind", "Notice", "Wire", "listen"]
