"""What callers may ask of a running Perdure, whichever face they come through; `runtime.hall` has a process's own.

`submissions` are what is asked and what is answered, `seats` the engines that new work is given to, `awaited` who waits
for an end; `operations` puts them together.
"""

from runtime.operations.operations import Operations
from runtime.operations.submissions import Accepted, Ended, NotServed, Submission, UnknownInvocation

__all__ = ["Accepted", "Ended", "NotServed", "Operations", "Submission", "UnknownInvocation"]
