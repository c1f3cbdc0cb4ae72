"""The supervisor with small real processes: order, restarts, failures, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from runtime import supervisor as supervision
from runtime.servers.process import Process, Step
from runtime.supervisor import Stage, StartFailed, Supervisor
from tests.support.servers import ROOT, wait_until

pytestmark = pytest.mark.servers

STAND_IN = Path(__file__).with_name("stand_in.py")


class House:
    """A diary that the stand-ins write, and what the supervisor said."""

    def __init__(self, directory: Path) -> None:
        self.diary = directory / "diary"
        self.diary.touch()
        self.said: list[tuple[str, str]] = []

    def process(self, name: str, *manners: str, stop_within: float = 20.0, start_within: float = 30.0) -> Process:
        async def answers() -> bool:
            return bool(self.pids(name))

        command = (sys.executable, str(STAND_IN), name, str(self.diary), *manners)
        return Process(name, command, answers, stop_within=stop_within, start_within=start_within)

    def step(self, name: str, *manners: str) -> Step:
        return Step(name, (sys.executable, str(STAND_IN), name, str(self.diary), *manners))

    def events(self) -> list[str]:
        return [line.rpartition(" ")[0] for line in self.diary.read_text().splitlines()]

    def pids(self, name: str) -> list[int]:
        lines = [line.split() for line in self.diary.read_text().splitlines()]
        return [int(pid) for who, event, pid in lines if (who, event) == (name, "started")]

    def tell(self, name: str, line: str) -> None:
        self.said.append((name, line))

    async def live(self, stages: list[Stage], meanwhile: Callable[[Supervisor], Awaitable[None]]) -> None:
        """Run the stages, do something when they are up, and stop them."""
        supervisor = Supervisor(stages, self.tell)
        up = asyncio.Event()

        async def is_up() -> None:
            up.set()

        life = asyncio.create_task(supervisor.run(is_up))
        arrival = asyncio.create_task(up.wait())
        await asyncio.wait({life, arrival}, return_when=asyncio.FIRST_COMPLETED)
        arrival.cancel()
        if not life.done():
            try:
                await meanwhile(supervisor)
            finally:
                supervisor.stop()
        await life


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def nothing(_: Supervisor) -> None:
    pass


async def until(condition: Callable[[], bool], within: float = 30.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.02)


def lives(pid: int) -> bool:
    """Whether a process runs; a zombie, which only waits to be looked at, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_stages_start_in_order_and_stop_in_the_opposite_order(house: House) -> None:
    await house.live([[house.process("one")], [house.step("step", "brief")], [house.process("two")]], nothing)
    assert house.events() == ["one started", "step started", "two started", "two stopped", "one stopped"]


async def test_a_process_that_dies_is_started_again(house: House) -> None:
    async def kill(_: Supervisor) -> None:
        os.kill(house.pids("one")[0], signal.SIGKILL)
        await until(lambda: len(house.pids("one")) == 2)

    await house.live([[house.process("one")]], kill)
    assert ("one", "was ended by SIGKILL; starting it again in 0.5 s") in house.said
    assert house.events() == ["one started", "one started", "one stopped"]


async def test_the_pause_grows_while_it_keeps_dying(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE", 0.01)

    async def kill(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        await until(lambda: house.pids("one")[-1] != pid)

    async def kill_again_and_again(supervisor: Supervisor) -> None:
        for _ in range(3):
            await kill(house.pids("one")[-1])

    await house.live([[house.process("one")]], kill_again_and_again)
    pauses = [line.split()[-2] for name, line in house.said if "again" in line]
    assert pauses[:3] == ["0.01", "0.02", "0.04"]


async def test_what_a_dead_process_had_started_is_swept_before_the_next_is_started(house: House) -> None:
    async def kill(_: Supervisor) -> None:
        os.kill(house.pids("one")[0], signal.SIGKILL)
        await until(lambda: len(house.pids("one")) == 2)
        assert not lives(house.pids("one-child")[0])

    await house.live([[house.process("one", "parent")]], kill)
    await until(lambda: not any(lives(pid) for pid in house.pids("one-child")))


async def test_a_failed_step_stops_what_was_started_and_its_words_are_told_once(house: House) -> None:
    with pytest.raises(StartFailed, match="step ended with exit code 1") as failure:
        await house.live([[house.process("one")], [house.step("step", "broken")], [house.process("two")]], nothing)
    assert house.said.count(("step", "no such table")) == 1
    assert failure.value.hint == ""
    assert house.events() == ["one started", "one stopped"]


async def test_a_process_that_cannot_start_is_tried_a_few_times_and_then_given_up(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE", 0.01)
    with pytest.raises(StartFailed, match="two ended with exit code 1, 4 times") as failure:
        await house.live([[house.process("one"), house.process("two", "broken")]], nothing)
    assert failure.value.hint == ""
    assert house.said.count(("two", "no such table")) == 4
    assert [line for name, line in house.said if name == "two"].count("two says hello") == 4
    assert house.events() in (["one started", "one stopped"], [])  # stopped, or not even started yet


async def test_a_process_that_never_answers_is_given_up_when_its_time_is_over(house: House) -> None:
    silent = Process("mute", house.process("mute").command, never, start_within=0.3)
    with pytest.raises(StartFailed, match=r"mute does not answer after 0\.3 s"):
        await house.live([[silent]], nothing)
    assert not any(lives(pid) for pid in house.pids("mute"))


async def never() -> bool:
    return False


async def test_a_missing_program_is_named(house: House) -> None:
    with pytest.raises(StartFailed, match=r"ghost cannot be started: .*no-such-program"):
        await house.live([[Process("ghost", ("no-such-program",), never)]], nothing)


async def test_a_process_that_does_not_stop_in_time_is_killed(house: House) -> None:
    await house.live([[house.process("one", "stubborn", stop_within=0.2)]], nothing)
    assert ("one", "has not stopped within 0.2 s: killed") in house.said
    assert not lives(house.pids("one")[0])


async def test_told_to_stop_a_second_time_it_kills(house: House) -> None:
    async def impatient(supervisor: Supervisor) -> None:
        supervisor.stop()
        supervisor.stop()

    async with asyncio.timeout(30):  # and not the minute that it may take
        await house.live([[house.process("one", "stubborn", stop_within=60)]], impatient)
    assert not lives(house.pids("one")[0])


async def test_told_to_stop_while_starting_it_stops(house: House) -> None:
    supervisor = Supervisor(
        [[house.process("one")], [Process("mute", house.process("mute").command, never)]], house.tell
    )

    async def is_up() -> None:
        pytest.fail("it never was up")

    life = asyncio.create_task(supervisor.run(is_up))
    await until(lambda: bool(house.pids("mute")))
    supervisor.stop()
    await life
    assert house.events() == ["one started", "mute started", "mute stopped", "one stopped"]


async def test_lines_are_told_with_the_name_of_who_said_them(house: House) -> None:
    await house.live([[house.process("one"), house.process("two")]], nothing)
    assert {("one", "one says hello"), ("two", "two says hello")} <= set(house.said)


ORPHANS = """
    import asyncio, sys
    from pathlib import Path
    from tests.house.test_supervisor import House
    from runtime.supervisor import Supervisor

    house = House(Path(sys.argv[1]))
    stages = [[house.process("one"), house.process("two", "parent")]]

    async def is_up():
        print("up", flush=True)

    asyncio.run(Supervisor(stages, lambda name, line: None).run(is_up))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child's life to its parent's")
def test_killed_itself_it_leaves_nobody_behind(house: House) -> None:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'sdk'}"}
    command = [sys.executable, "-c", textwrap.dedent(ORPHANS), str(house.diary.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == b"up\n"
        supervisor.kill()
        supervisor.wait()
        wait_until(lambda: not any(lives(pid) for name in ("one", "two") for pid in house.pids(name)))
    os.kill(house.pids("two-child")[0], signal.SIGKILL)  # a grandchild is its parent's business


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_stops_everything_in_order(house: House, number: signal.Signals) -> None:
    async def send(_: Supervisor) -> None:
        os.kill(os.getpid(), number)
        await until(lambda: "one stopped" in house.events())

    await house.live([[house.process("one")], [house.process("two")]], send)
    assert house.events() == ["one started", "two started", "two stopped", "one stopped"]
