"""The machine under the figures: who used its processors, what memory a system holds, how fast the disk persists."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    parent: int
    cpu: float  # seconds
    command: str


def processes() -> dict[int, Process]:
    """Every process of the machine, by id."""
    found: dict[int, Process] = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            stat = Path(entry.path, "stat").read_text()
            command = Path(entry.path, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended between the two looks
        fields = stat[stat.rindex(")") + 2 :].split()
        pid = int(entry.name)
        found[pid] = Process(pid, int(fields[1]), sum(map(int, fields[11:13])) / TICK, command)
    return found


def tree(root: int, among: Mapping[int, Process]) -> list[int]:
    """The ids of a process, if it lives, and of all its descendants."""
    children: dict[int, list[int]] = defaultdict(list)
    for process in among.values():
        children[process.parent].append(process.pid)
    found = [root] if root in among else []
    for pid in found:
        found.extend(children[pid])
    return found


def memory(pids: Iterable[int]) -> float:
    """MiB held by these processes together: proportional set size, so that shared pages count once."""
    return sum(_memory_of(pid) for pid in pids)


def _memory_of(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))


def busy() -> float:
    """Processor seconds spent by anybody since boot, and those stolen from this machine: both are lost to us."""
    with Path("/proc/stat").open() as file:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICK


def fdatasync_ms(directory: Path, times: int = 200) -> float:
    """Median milliseconds to make one more 8 KiB block durable there, as a database's log does."""
    path = directory / "fdatasync.probe"
    block = os.urandom(8192)
    took: list[float] = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, block * times)
        os.fsync(descriptor)
        for n in range(times):
            start = time.perf_counter()
            os.pwrite(descriptor, block, n * len(block))
            os.fdatasync(descriptor)
            took.append(time.perf_counter() - start)
    finally:
        os.close(descriptor)
        path.unlink()
    return sorted(took)[times // 2] * 1000
