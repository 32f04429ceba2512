"""Mixed traffic for a long time: does anything grow?

usage: soak.py FOLDER [--seconds N] [--seed N] [--share 0.5] [--churn S] [--reload S] [--sample S] [--keep PREFIX]

Run it in namespaces of its own (tests/namespaces.rs does); iofog-connector must be in PATH. Two daemons, one with TLS
and one in dev mode, each with an agent that has five services; the script plays the users and is the service.

First it measures capacity: how many sessions a second come about if 96 users start the next one as soon as theirs has
ended. Then new sessions come at `--share` of that, at random moments. Every `--churn` seconds a public and a private
mapping are replaced by new ones, and an agent is killed and started again; every `--reload` seconds daemons and agents
get SIGHUP. At the end all traffic stops, and everything must be back where it began. Status 1 if a session ended other
than it should (but for seconds in which the machine stood still), or something is left. `--keep` names the CSV and the
SVG to write.
"""

import argparse
import asyncio
import collections
import csv
import hashlib
import itertools
import multiprocessing
import os
import pathlib
import random
import signal
import socket
import struct
import sys
import time

import plot
from connector import PATIENCE, Agent, Daemon, run, service

SERVICE = 9000
POOL = 40
WORKERS = 96
HEAD = struct.Struct("!cII")
# How a session goes: its weight among a thousand.
STEADY = {"echo": 700, "download": 140, "upload": 140, "long": 20}
ROUGH = {"reset": 30, "leave": 30, "silent": 20, "handshake": 10, "passcode": 10}
P99 = ("public", "private", "ping")
# Of all sessions these are rough ones.
ROUGH_SHARE = 0.12
LONG = 30.0
NO_DELAY_AT_CLOSE = struct.pack("ii", 1, 0)
# If this very script was not run for so long, the machine stood still: for some seconds deadlines mean nothing.
STALL, AFTER_STALL = 1.0, 15.0


def content(size, seed):
    return random.Random(seed).randbytes(size)


# ---- the service behind the agents ----


async def serve_one(reader, writer):
    try:
        kind, size, seed = HEAD.unpack(await reader.readexactly(HEAD.size))
        if kind == b"D":
            writer.write(content(size, seed))
        elif kind == b"U":
            digest = hashlib.sha256()
            while size > 0:
                piece = await reader.readexactly(min(size, 65536))
                digest.update(piece)
                size -= len(piece)
            writer.write(digest.digest())
        else:
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def serve():
    server = await asyncio.start_server(serve_one, "127.0.0.1", SERVICE, backlog=1024)
    await server.serve_forever()


# ---- daemons, their mappings and agents ----


class Mapping:
    def __init__(self, name, private, answer):
        self.name, self.private = name, private
        self.id, self.ports = answer["id"], [answer["port1"], answer["port2"]]
        self.passcodes = [answer["passcode1"], answer["passcode2"]]
        # No new sessions, and those that are may be cut.
        self.retired = False
        self.listen = None

    def services(self):
        mode = {"mode": "private"} if self.private else {}
        yield service(f"{self.name}", self.ports[0], self.passcodes[0], to=f"127.0.0.1:{SERVICE}") | mode
        if self.private:
            listen = f"127.0.0.1:{self.listen}"
            yield service(f"{self.name} end", self.ports[1], self.passcodes[1], listen=listen) | mode


class Side:
    """A daemon with its mappings and agents."""

    def __init__(self, folder, name, address, tls):
        self.name = name
        self.daemon = Daemon(folder / name, address, tls)
        self.listen = itertools.count(int(address.rsplit(".")[-1]) * 2000 + 26000)
        self.context = self.daemon.context
        self.numbers = itertools.count()
        self.rough = self.add(False)
        self.steady = [self.add(private) for private in (False, False, True, True)]
        self.agent = Agent(self.daemon, "agent", self.services(), connections=POOL)
        self.guest = None
        self.start_guest()

    def add(self, private):
        name = f"{'private' if private else 'public'} {next(self.numbers)}"
        mapping = Mapping(name, private, self.daemon.add(private, connections=POOL))
        mapping.listen = next(self.listen) if private else None
        return mapping

    def services(self):
        return [line for mapping in self.steady for line in mapping.services()]

    def start_guest(self):
        if self.guest:
            self.guest.kill()
            self.guest.child.wait()
        self.guest = Agent(self.daemon, "guest", list(self.rough.services()), connections=POOL)

    def ready(self, mapping):
        """Sessions that could begin now. A private mapping needs an agent of each side for one."""
        status = self.daemon.status(mapping.id)
        return min(status["freeport1"], status["freeport2"]) if mapping.private else status["free"]

    def processes(self):
        return {self.name: self.daemon, f"{self.name} agent": self.agent}


class Soak:
    def __init__(self, options):
        self.options = options
        self.random = random.Random(options.seed)
        self.folder = pathlib.Path(options.folder)
        self.sides = [
            Side(self.folder, "TLS", "127.0.0.1", True),
            Side(self.folder, "dev", "127.0.0.2", False),
        ]
        self.outcomes = collections.Counter()
        self.faults = []
        self.times = {"public": [], "private": [], "ping": []}
        self.finished = 0
        # The longest time since the last sample that this script was not run, and when it was not for long.
        self.lag, self.stalled = 0.0, -AFTER_STALL
        self.tasks = set()
        self.traffic = True

    # ---- sessions ----

    async def connect(self, side, mapping):
        if mapping.private:
            return await asyncio.open_connection("127.0.0.1", mapping.listen)
        address = side.daemon.address
        return await asyncio.open_connection(address, mapping.ports[1], ssl=side.context)

    async def converse(self, side, mapping, kind, chance):
        """One session that must be complete."""
        start = time.monotonic()
        reader, writer = await self.connect(side, mapping)
        try:
            if kind == "echo":
                said = content(chance.randrange(64, 2048), chance.random())
                writer.write(HEAD.pack(b"E", 0, 0) + said)
                heard = await reader.readexactly(len(said))
            elif kind == "download":
                size, seed = int(chance.lognormvariate(11, 1)), chance.getrandbits(32)
                writer.write(HEAD.pack(b"D", size, seed))
                said, heard = content(size, seed), await reader.read(-1)
            elif kind == "upload":
                body = content(int(chance.lognormvariate(11, 1)), chance.random())
                writer.write(HEAD.pack(b"U", len(body), 0) + body)
                said, heard = hashlib.sha256(body).digest(), await reader.read(-1)
            else:
                writer.write(HEAD.pack(b"E", 0, 0))
                said = heard = b""
                end = time.monotonic() + chance.expovariate(1 / LONG)
                while time.monotonic() < end and self.traffic and said == heard:
                    await asyncio.sleep(chance.uniform(0.5, 1.5))
                    said, asked = content(64, chance.random()), time.monotonic()
                    writer.write(said)
                    heard = await reader.readexactly(len(said))
                    self.times["ping"].append(time.monotonic() - asked)
            if said != heard:
                raise ValueError(f"{len(heard)} bytes instead of {len(said)}, or others")
            if kind == "echo":
                self.times["private" if mapping.private else "public"].append(time.monotonic() - start)
        finally:
            writer.close()

    async def misbehave(self, side, kind, chance):
        address, ports = side.daemon.address, side.rough.ports
        from_elsewhere = {"local_addr": (f"127.7.{chance.randrange(256)}.{chance.randrange(1, 255)}", 0)}
        raw = kind in ("handshake", "passcode")
        port = ports[0] if kind == "passcode" else ports[1]
        reader, writer = await asyncio.open_connection(
            address, port, ssl=None if raw and kind == "handshake" else side.context, **from_elsewhere
        )
        try:
            if kind in ("reset", "leave"):
                writer.write(HEAD.pack(b"D", 1 << 20, chance.getrandbits(32)))
                await reader.readexactly(chance.randrange(1, 1 << 19))
            elif kind == "handshake":
                writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            elif kind == "passcode":
                writer.write(b"01234567-89ab-cdef-0123-456789abcdef")
            await asyncio.sleep(chance.uniform(0, 0.5))
            if kind == "reset":
                linger = (socket.SOL_SOCKET, socket.SO_LINGER, NO_DELAY_AT_CLOSE)
                writer.get_extra_info("socket").setsockopt(*linger)
                writer.transport.abort()
        finally:
            writer.close()

    async def session(self, seed):
        chance = random.Random(seed)
        side = chance.choice(self.sides)
        rough = chance.random() < ROUGH_SHARE
        kinds = ROUGH if rough else STEADY
        kind = chance.choices(list(kinds), kinds.values())[0]
        mapping = side.rough if rough else chance.choice(side.steady)
        outcome = "complete"
        try:
            if rough:
                await self.misbehave(side, kind, chance)
            else:
                await asyncio.wait_for(self.converse(side, mapping, kind, chance), 10 * LONG)
        except (OSError, asyncio.IncompleteReadError, ValueError, asyncio.TimeoutError) as fault:
            outcome = "cut"
            if time.monotonic() < self.stalled + AFTER_STALL:
                outcome = "cut as the machine stood still"
            elif not rough and not mapping.retired:
                outcome = "failed"
                self.faults.append(f"{time.strftime('%T')} seed {seed}: {side.name} {mapping.name} {kind}: {fault!r}")
        self.outcomes[kind, outcome] += 1
        self.finished += 1

    def start_session(self):
        task = asyncio.create_task(self.session(self.random.getrandbits(48)))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def capacity(self, seconds):
        """Sessions a second if each of some users starts the next one at once."""
        end, before = time.monotonic() + seconds, self.finished

        async def user():
            while time.monotonic() < end:
                await self.session(self.random.getrandbits(48))

        start = time.monotonic()
        users = [asyncio.create_task(user()) for _ in range(WORKERS)]
        await asyncio.sleep(seconds)
        rate = (self.finished - before) / (time.monotonic() - start)
        self.traffic = False
        await asyncio.gather(*users)
        self.traffic = True
        return rate

    async def come(self, rate):
        """New sessions, so many a second, whether earlier ones have ended or not."""
        due = time.monotonic()
        while self.traffic:
            due += self.random.expovariate(rate)
            await asyncio.sleep(max(0, due - time.monotonic()))
            if len(self.tasks) > 20 * rate + 200:
                raise RuntimeError("sessions pile up: the share of capacity is too high")
            self.start_session()

    # ---- what changes meanwhile ----

    async def until(self, holds, what):
        deadline = time.monotonic() + PATIENCE
        while not await asyncio.to_thread(holds):
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited in vain until {what}")
            await asyncio.sleep(0.1)

    async def replace(self, side, number):
        """Another mapping takes the place of this one."""
        new = await asyncio.to_thread(side.add, side.steady[number].private)
        old, kept = side.steady[number], [mapping for i, mapping in enumerate(side.steady) if i != number]
        lines = [line for mapping in [*kept, new] for line in mapping.services()]
        side.agent.serve(lines + list(old.services()))
        await self.until(lambda: side.ready(new) >= POOL // 2, f"{new.name} has its agents")
        side.steady = [*side.steady[:number], new, *side.steady[number + 1 :]]
        old.retired = True
        await asyncio.sleep(1)
        side.agent.serve(lines)
        await asyncio.to_thread(side.daemon.post, "mapping/remove", mappingid=old.id)

    async def churn(self):
        for turn in itertools.count():
            await asyncio.sleep(self.options.churn)
            if not self.traffic:
                return
            side = self.sides[turn % 2]
            await self.replace(side, 0)
            await self.replace(side, 2)
            await asyncio.to_thread(side.start_guest)

    async def reload(self):
        while self.traffic:
            await asyncio.sleep(self.options.reload)
            for side in self.sides:
                side.daemon.kill(signal.SIGHUP)
                side.agent.kill(signal.SIGHUP)

    # ---- what is measured ----

    async def watch_the_machine(self):
        while self.traffic:
            before = time.monotonic()
            await asyncio.sleep(0.05)
            now = time.monotonic()
            self.lag = max(self.lag, now - before - 0.05)
            if now - before > STALL:
                self.stalled = now

    def sample(self, since, writer):
        row = {"seconds": round(time.monotonic() - since, 1)}
        for side in self.sides:
            for name, process in side.processes().items():
                row[f"{name} resident KiB"] = process.resident_kib()
                row[f"{name} descriptors"] = process.descriptors()
                row[f"{name} CPU seconds"] = round(process.cpu_seconds(), 2)
        for name, times in self.times.items():
            times, self.times[name] = sorted(times), []
            row[f"{name} p99 ms"] = round(times[len(times) * 99 // 100] * 1000, 1) if times else ""
        row |= {"sessions": self.finished, "at once": len(self.tasks), "failed": len(self.faults)}
        row |= {"stall ms": round(self.lag * 1000), "load": os.getloadavg()[0]}
        self.lag = 0.0
        if not self.rows:
            writer.writerow(row)
        writer.writerow(row.values())
        self.rows.append(row)

    async def measure(self, since, file):
        self.rows, writer = [], csv.writer(file)
        while self.traffic:
            await asyncio.sleep(self.options.sample)
            self.sample(since, writer)
            file.flush()

    async def run(self):
        for side in self.sides:
            for mapping in [side.rough, *side.steady]:
                await self.until(lambda: side.ready(mapping) == POOL, "all agents are there")
        begin = {name: process.descriptors() for side in self.sides for name, process in side.processes().items()}
        options = self.options
        capacity = await self.capacity(min(20, options.seconds / 4))
        rate = options.share * capacity
        self.outcomes.clear()
        for times in self.times.values():
            times.clear()
        print(f"seed {options.seed}: capacity {capacity:.0f} sessions/s; {rate:.0f} a second for {options.seconds} s")
        sys.stdout.flush()
        used = {side.name: side.daemon.cpu_seconds() for side in self.sides}
        since, self.finished = time.monotonic(), 0
        with open(f"{options.keep or self.folder / 'soak'}.csv", "w", newline="") as file:
            works = (self.churn(), self.reload(), self.measure(since, file), self.watch_the_machine())
            changing = [asyncio.create_task(work) for work in works]
            coming = asyncio.create_task(self.come(rate))
            done, _ = await asyncio.wait([coming, *changing], timeout=options.seconds, return_when="FIRST_COMPLETED")
            self.traffic = False
            await asyncio.gather(*done)
            took = time.monotonic() - since
            await asyncio.gather(coming, *changing)
            await asyncio.gather(*self.tasks)
        print(f"{self.finished} sessions, {self.finished / took:.0f} a second")
        for side in self.sides:
            print(f"{side.name}: {(side.daemon.cpu_seconds() - used[side.name]) / took:.0%} of a processor")
        await self.nothing_left(begin)

    async def nothing_left(self, begin):
        for side in self.sides:
            await self.until(lambda: side.daemon.status()["users"] == 0, f"{side.name}: the last user is gone")
            for mapping in side.steady:
                await self.until(lambda: side.ready(mapping) == POOL, f"{side.name} {mapping.name}: agents are free")
            metrics = side.daemon.metrics()
            ended = sum(value for name, value in metrics.items() if name.startswith("sessions_ended_total"))
            joined = sum(side.daemon.status(mapping.id)["joined"] for mapping in side.steady if mapping.private)
            if ended + joined != metrics["sessions_total"]:
                self.faults.append(f"{side.name}: {metrics['sessions_total']} sessions, {ended} ended, {joined} there")
            for name, process in side.processes().items():
                await self.until(lambda: process.descriptors() <= begin[name] + 2, f"{name}: descriptors are back")
                print(f"{name}: {begin[name]} descriptors at first, {process.descriptors()} at the end")


# ---- what came of it ----


def slope(minutes, values, blocks=12):
    """Change an hour and its standard error, from means of blocks: what follows each other is alike."""
    if minutes[-1] - minutes[0] < 5:
        return None
    size = len(values) // blocks
    points = []
    for i in range(blocks):
        part = slice(i * size, (i + 1) * size)
        points.append((sum(minutes[part]) / size / 60, sum(values[part]) / size))
    x0, y0 = (sum(column) / blocks for column in zip(*points))
    spread = sum((x - x0) ** 2 for x, _ in points)
    rise = sum((x - x0) * (y - y0) for x, y in points) / spread
    rest = sum((y - y0 - rise * (x - x0)) ** 2 for x, y in points)
    return rise, (rest / (blocks - 2) / spread) ** 0.5


def column(rows, name):
    return [value if (value := row[name]) != "" else None for row in rows]


def report(rows, keep):
    names = [name.removesuffix(" descriptors") for name in rows[0] if name.endswith(" descriptors")]
    minutes = [row["seconds"] / 60 for row in rows]
    # Buffers and allocators have their fill after a while.
    warm = next(i for i, minute in enumerate(minutes) if minute >= minutes[-1] / 4)
    for name in names:
        resident = column(rows, f"{name} resident KiB")
        found = slope(minutes[warm:], resident[warm:])
        told = "too short for a slope" if found is None else "slope {:+.0f} ± {:.0f} KiB an hour".format(*found)
        print(f"{name}: {resident[0]} to {resident[-1]} KiB; {told} after {minutes[warm]:.1f} min")
    for name in P99:
        values = sorted(value for value in column(rows, f"{name} p99 ms") if value is not None)
        if values:
            print(f"{name}: p99 {values[len(values) // 2]} ms in the median interval, {values[-1]} ms in the worst")
    if keep:
        rates = [0.0] + [
            (b["sessions"] - a["sessions"]) / (b["seconds"] - a["seconds"]) for a, b in itertools.pairwise(rows)
        ]
        rates[0] = rates[1] if len(rates) > 1 else 0.0
        mebibytes = {name: [kib / 1024 for kib in column(rows, f"{name} resident KiB")] for name in names}
        panels = [
            ("Resident memory", "MiB", mebibytes),
            ("Descriptors", "open", {name: column(rows, f"{name} descriptors") for name in names}),
            ("p99 of each interval", "ms", {name: column(rows, f"{name} p99 ms") for name in P99}),
            ("Longest time for which the machine did not run the script", "ms", {"stall": column(rows, "stall ms")}),
            ("Sessions", "a second", {"ended": rates, "load of machine x 10": [row["load"] * 10 for row in rows]}),
        ]
        pathlib.Path(f"{keep}.svg").write_text(plot.svg(minutes, panels))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    for name, default in {"seconds": 10.0, "share": 0.5, "churn": 3.0, "reload": 2.0, "sample": 1.0}.items():
        parser.add_argument(f"--{name}", type=float, default=default)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep")
    options = parser.parse_args()
    run("ip", "link", "set", "lo", "up")
    service_process = multiprocessing.Process(target=lambda: asyncio.run(serve()), daemon=True)
    service_process.start()
    soak = Soak(options)
    asyncio.run(soak.run())
    report(soak.rows, options.keep)
    for (kind, outcome), count in sorted(soak.outcomes.items()):
        print(f"{kind}: {count} {outcome}")
    for side in soak.sides:
        side.guest.kill()
        for process in side.processes().values():
            process.end()
    print(*soak.faults[:20], sep="\n")
    return 1 if soak.faults else 0


if __name__ == "__main__":
    sys.exit(main())
