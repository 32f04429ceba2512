"""Sessions over bad networks: those that can survive are intact, the others end in time, on both sides.

usage: networks.py FOLDER MODE [--seed N] [--sessions N] [--scale X] [--protocol 1|2] CONDITION...

MODE is tls or dev; --protocol is what the agents speak, 2 unless told otherwise. Run it in namespaces of its own
(tests/namespaces.rs does); iofog-connector must be in PATH. The daemon is alone in a namespace. In another one are the
agents, the service, the users, and the listening end of a tunnel; each packet between the two goes through impaired.py,
on both legs of a session. Half of the sessions are users of a public pipe, the other half clients of a tunnel through a
private one. Each side sends bytes of its own, and compares what it receives with what the other side sent. --scale
multiplies their number.
"""

import argparse
import collections
import ctypes
import dataclasses
import os
import pathlib
import random
import select
import socket
import ssl
import struct
import sys
import threading
import time

from connector import PATIENCE, Agent, Daemon, namespace, private_run_folder, run, service, wait_until
from impaired import Link, tun

SERVER, AGENTS, USERS, CONTROL = "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.9"
TO, LISTEN = 9000, 9001
HEAD = struct.Struct("!II")
POOL = 12
# A dead peer is found within this, and a busy machine is late (docs/limits.md).
DEAD, LATE = 40, 6
# The agent's longest pause between attempts, and a connect that is not answered.
BACK = 30 + 5 + LATE


@dataclasses.dataclass
class Condition:
    what: str
    how: dict
    # Bytes each way of a session that sends all it has.
    size: int = 200_000
    # Of each pipe, at most.
    most: int = 100
    # Of those whose network breaks: what happens for how long, and whether sessions survive that.
    event: dict = None
    seconds: float = 0
    survive: bool = True
    # What the users cannot notice, because their own network is gone.
    users_know: bool = True


EVERYBODY = [AGENTS, USERS]
CONDITIONS = {
    "none": Condition("none of these", {}, 1_000_000),
    "delay": Condition("100 ms round trip", {"delay": 0.05}),
    "loss": Condition("5 % loss", {"loss": 0.05, "delay": 0.005}),
    "reordering": Condition("reordering (0 to 20 ms)", {"delay": 0.005, "jitter": 0.02}),
    "duplicates": Condition("20 % duplicated", {"duplicate": 0.2, "delay": 0.005}),
    "rate": Condition("64 kbit/s", {"rate": 8000, "delay": 0.02}, 8_000, most=2),
    "mtu": Condition("MTU 576 on the way", {"mtu": 576, "delay": 0.005}),
    "all": Condition(
        "100 ms, 3 % loss, reordering, 5 % duplicated, MTU 576",
        {"delay": 0.05, "jitter": 0.02, "loss": 0.03, "duplicate": 0.05, "mtu": 576},
        50_000,
    ),
    "hole-20": Condition("a hole of 20 s, everybody", {}, event={"hole": EVERYBODY}, seconds=20),
    "hole-90-agents": Condition("a hole of 90 s, agents", {}, event={"hole": [AGENTS]}, seconds=90, survive=False),
    "hole-90-users": Condition(
        "a hole of 90 s, users", {}, event={"hole": [USERS]}, seconds=90, survive=False, users_know=False
    ),
    "address": Condition("the agent's address changes", {}, event={"rebind": True}, survive=False),
}


@dataclasses.dataclass
class End:
    """How one side of a session has ended."""

    intact: bool
    how: str
    at: float


def content(number, side, size):
    return random.Random(f"{number} {side}").randbytes(size)


def schedule(kind, data, seconds):
    """What is sent when: at once, in small pieces all the time, or only at the beginning and at the end."""
    if kind == "bulk":
        return [(0, data)]
    if kind == "idle":
        return [(0, data[:1000]), (seconds, data[1000:2000])]
    return [(seconds * i / 100, data[i * 1000 : (i + 1) * 1000]) for i in range(100)]


def exchange(connection, pieces, expected, closes, patience):
    """Sends `pieces` when they are due and receives until the end. Says how that went."""
    connection.setblocking(False)
    start, received, sending = time.monotonic(), bytearray(), b""
    pieces = list(pieces)
    try:
        while True:
            now = time.monotonic()
            if now - start > patience:
                return End(False, "nobody ended it", now)
            if not sending and pieces and now >= start + pieces[0][0]:
                sending = pieces.pop(0)[1]
            if sending:
                try:
                    sending = sending[connection.send(sending[:16384]) :]
                except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    pass
            try:
                piece = connection.recv(65536)
                received += piece
                if not piece:
                    whole = bytes(received) == expected and not sending and not pieces
                    return End(whole, "closed" if whole else f"closed after {len(received)} bytes", now)
                continue
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
            if closes and not sending and not pieces and len(received) == len(expected):
                # The kernel still delivers what was sent.
                return End(bytes(received) == expected, "closed", now)
            select.select([connection], [connection] if sending else [], [], 0.05)
    except OSError as fault:
        return End(False, f"{type(fault).__name__}", time.monotonic())
    finally:
        connection.close()


class Networks:
    def __init__(self, options):
        self.options, self.tls = options, options.mode == "tls"
        self.ends, self.number = {}, random.Random(options.seed).getrandbits(24) << 7
        # How a session is meant to go, and the sessions that have come to the service.
        self.plan, self.served = {}, set()
        self.aliases = ["10.9.0.1", "10.9.0.2"]
        self.build()
        folder = pathlib.Path(options.folder) / "daemon"
        self.daemon = Daemon(folder, SERVER, self.tls, namespace="server")
        threading.Thread(target=self.serve, daemon=True).start()
        self.public = self.daemon.add(connections=4 * POOL)
        self.private = self.daemon.add(private=True, connections=4 * POOL)
        mode = {"mode": "private"}
        codes = [self.private["passcode1"], self.private["passcode2"]]
        to = f"127.0.0.1:{TO}"
        exposed = [
            service("public", self.public["port1"], self.public["passcode1"], to=to),
            service("private", self.private["port1"], codes[0], to=to) | mode,
        ]
        listening = [service("end", self.private["port2"], codes[1], listen=f"127.0.0.1:{LISTEN}") | mode]
        self.impair({})
        self.agents = [
            Agent(self.daemon, "agent", exposed, bind=AGENTS, connections=POOL, protocol=options.protocol),
            Agent(self.daemon, "end", listening, bind=USERS, connections=POOL, protocol=options.protocol),
        ]
        wait_until("all agents are there", self.all_there)

    def build(self):
        private_run_folder()
        near, far = tun("near"), tun("far")
        for name in ("server", "site"):
            namespace(name)
        for device, place, address in [("near", "server", SERVER), ("far", "site", CONTROL)]:
            run("ip", "link", "set", device, "netns", place)
            run("ip", "-n", place, "addr", "add", f"{address}/8", "dev", device)
            run("ip", "-n", place, "link", "set", device, "up")
        for address in EVERYBODY:
            run("ip", "-n", "site", "addr", "add", f"{address}/8", "dev", "far")
        self.link = Link(near, far, "10.0.0.254", [CONTROL], self.options.seed)
        # This process, and what it starts, is in the site from now on.
        with open("/run/netns/site") as site:
            if ctypes.CDLL(None, use_errno=True).setns(site.fileno(), 0) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    def all_there(self):
        public, private = (self.daemon.status(mapping["id"]) for mapping in (self.public, self.private))
        # Those of version 1 are joined to each other before anybody comes.
        idle = "agents" if self.options.protocol == 1 else "free"
        return public["free"] == private[f"{idle}port1"] == private[f"{idle}port2"] == POOL

    # ---- the two sides of a session ----

    def serve(self):
        listener = socket.create_server(("127.0.0.1", TO), backlog=128)
        while True:
            threading.Thread(target=self.serve_one, args=(listener.accept()[0],), daemon=True).start()

    def serve_one(self, connection):
        connection.settimeout(5 * PATIENCE)
        try:
            number, size = HEAD.unpack(connection.recv(HEAD.size, socket.MSG_WAITALL))
        except (OSError, struct.error):
            return connection.close()
        self.served.add(number)
        kind, seconds, patience = self.plan.get(number, ("bulk", 0, PATIENCE))
        pieces = schedule(kind, content(number, "down", size), seconds)
        self.ends[number, "service"] = exchange(connection, pieces, content(number, "up", size), True, patience)
        return None

    def dial(self, private):
        if private:
            return socket.create_connection(("127.0.0.1", LISTEN), PATIENCE)
        raw = socket.create_connection((SERVER, self.public["port2"]), PATIENCE, (USERS, 0))
        if not self.tls:
            return raw
        return self.daemon.context.wrap_socket(raw, server_hostname=SERVER, suppress_ragged_eofs=False)

    def use(self, number, private, kind, size, seconds, patience):
        self.plan[number] = (kind, seconds, patience)
        try:
            connection = self.dial(private)
        except OSError as fault:
            self.ends[number, "user"] = End(False, f"not connected: {fault!r}", time.monotonic())
            return
        pieces = schedule(kind, content(number, "up", size), seconds)
        pieces[0] = (0, HEAD.pack(number, size) + pieces[0][1])
        expected = content(number, "down", size)
        self.ends[number, "user"] = exchange(connection, pieces, expected, False, patience)

    def start(self, kinds, size, seconds, patience):
        """Users of both pipes. Returns (number, private, thread) of each."""
        begun = []
        for kind in kinds:
            for private in (False, True):
                self.number += 1
                amount = {"bulk": size, "busy": 100_000, "idle": 2_000}[kind]
                words = (self.number, private, kind, amount, seconds, patience)
                thread = threading.Thread(target=self.use, args=words, daemon=True)
                thread.start()
                begun.append((self.number, private, thread))
        return begun

    # ---- conditions ----

    def impair(self, how):
        """The agents are behind NAT in every condition; `rebind`: from now on at another address."""
        if how.get("rebind"):
            self.aliases.reverse()
        impairments = {what: value for what, value in how.items() if what != "rebind"}
        return self.link.set(alias={AGENTS: self.aliases[0]}, **impairments)

    def check(self, condition):
        self.impair(condition.how)
        self.counts, start = collections.Counter(), time.monotonic()
        if condition.event:
            results = self.through_event(condition)
        else:
            size = int(condition.size * self.options.scale)
            begun = self.start(["bulk"] * min(self.options.sessions, condition.most), size, 0, 300)
            results = self.judge(begun, lambda end, side, private: end.intact)
        took = time.monotonic() - start
        self.counts += self.impair({})
        wait_until("every agent is free again", self.all_there, DEAD + BACK)
        status = self.daemon.status()
        if status["users"] or status["closing"]:
            wait_until("all users are gone", lambda: self.daemon.status()["users"] == 0, DEAD + LATE)
        done = {what: count for what, count in self.counts.items() if count}
        if (condition.how or condition.event) and len(done) < 2:
            results["bad"].append(f"nothing was done to the packets: {done}")
        return results, took, ", ".join(f"{count} {what}" for what, count in done.items())

    def through_event(self, condition):
        patience = condition.seconds + 2 * DEAD + 2 * LATE
        kinds = ["busy", "idle"] * max(1, self.options.sessions // 2)
        lasting = condition.seconds + 12 if condition.survive else patience
        begun = self.start(kinds, 0, lasting, patience)
        count = len(begun) // 2
        wait_until("all are joined", lambda: self.daemon.status()["users"] == count)
        wait_until("all have begun", lambda: all(number in self.served for number, _, _ in begun))
        time.sleep(2)
        since = time.monotonic()
        self.impair(condition.how | condition.event)
        if condition.survive:
            time.sleep(condition.seconds)
            self.counts += self.impair(condition.how)
            return self.judge(begun, lambda end, side, private: end.intact)

        def in_time(end, side, private):
            if side == "user" and not private and not condition.users_know:
                return True
            return not end.intact and end.how != "nobody ended it" and end.at - since < DEAD + LATE

        if condition.seconds:
            time.sleep(max(0, condition.seconds - (time.monotonic() - since)))
            self.counts += self.impair(condition.how)
        back = []
        trying = threading.Thread(target=self.until_back, args=(since + condition.seconds, back))
        trying.start()
        results = self.judge(begun, in_time, since, None if condition.users_know else "user")
        trying.join()
        if back:
            results["back"] = back[0]
        else:
            results["bad"].append("sessions do not come about again")
        return results

    def until_back(self, since, back):
        """How long it takes until both pipes serve again."""
        while time.monotonic() - since < DEAD + BACK:
            begun = self.start(["bulk"], 1000, 0, 5)
            for _, _, thread in begun:
                thread.join()
            if all(self.ends[number, "user"].intact for number, _, _ in begun):
                return back.append(time.monotonic() - since)
            time.sleep(0.2)
        return None

    def judge(self, begun, good, since=None, unaware=None):
        """Counts what went well; `since`: how long after that the sides have ended."""
        results = {"public": [0, 0, 0.0], "private": [0, 0, 0.0], "bad": []}
        for number, private, thread in begun:
            thread.join()
            deadline = time.monotonic() + (DEAD + LATE if since else PATIENCE)
            while (number, "service") not in self.ends and time.monotonic() < deadline:
                time.sleep(0.05)
            tally = results["private" if private else "public"]
            ends = {side: self.ends.get((number, side)) for side in ("user", "service")}
            for side, end in ends.items():
                if end is None or not good(end, side, private):
                    told = f"{end.how}, {end.at - since:.1f} s after" if end and since else end
                    results["bad"].append(f"session {number}, private {private}, {side}: {told}")
                elif since and not (side == unaware and not private):
                    tally[2] = max(tally[2], end.at - since)
            tally[0] += all(end is not None and good(end, side, private) for side, end in ends.items())
            tally[1] += 1
        return results


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("mode", choices=["tls", "dev"])
    parser.add_argument("conditions", nargs="+", choices=[*CONDITIONS, "every"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sessions", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--protocol", type=int, choices=[1, 2], default=2)
    options = parser.parse_args()
    networks = Networks(options)
    names = list(CONDITIONS) if "every" in options.conditions else options.conditions
    bad = 0
    for name in names:
        condition = CONDITIONS[name]
        results, took, done = networks.check(condition)
        cells = []
        for pipe in ("public", "private"):
            fine, count, last = results[pipe]
            cells.append(f"{fine} of {count} " + ("intact" if condition.survive else f"ended within {last:.0f} s"))
        back = f", back after {results['back']:.0f} s" if "back" in results else ""
        cells += [f"{took:.0f} s{back}", done]
        print(f"| {condition.what} | {options.mode} | {' | '.join(cells)} |", flush=True)
        bad += len(results["bad"])
        print(*results["bad"], sep="\n", end="\n" if results["bad"] else "", flush=True)
    for process in [*networks.agents, networks.daemon]:
        process.end()
    return 1 if bad else 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # Threads of sessions that wait for nobody any more.
    os._exit(status)
