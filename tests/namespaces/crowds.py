"""Crowds of bad peers: what those that behave keep of their throughput and answers, and that they lose nothing.

usage: crowds.py FOLDER MODE [--seed N] [--sockets N] [--with-tls N] [--rounds N] [--seconds S] [--keep X] [KIND...]

MODE is tls or dev. Run it in namespaces of its own (tests/namespaces.rs does); iofog-connector must be in PATH. A crowd
comes from 1,000 addresses of 127/8 to the ports of many mappings, one of which is that of those who behave: a download
without a limit, sessions with a question now and then, and new sessions. Whoever of the crowd is closed comes again
soon. Measured is without the crowd and with it, in turn; the figures are medians of the rounds. Status 1 if one of the
sessions breaks off, the pool of agents is not whole after a crowd, or less than --keep of the throughput is kept.
Besides the throughput it counts the bytes for each second of the daemon's processor time, which other work of the
machine changes less.
"""

import argparse
import collections
import ctypes
import heapq
import multiprocessing
import os
import pathlib
import random
import resource
import select
import socket
import ssl
import statistics
import struct
import sys
import threading
import time

from connector import PATIENCE, Agent, Daemon, run, service, wait_until

DAEMON, AGENTS, USERS = "127.0.0.1", "127.0.0.2", "127.0.0.3"
SERVICE = 9000
ADDRESSES = 1000
# Members of the crowd for one mapping: the places for unauthenticated connections at its port.
PLACES = 64
POOL, HELD = 60, 20
# Who was closed comes again after this, seconds.
PAUSE = (0.5, 2)
WRONG = b"01234567-89ab-cdef-0123-456789abcdef"
FOREVER = 1e9


# ---- those who behave ----


def serve():
    """Behind the agents: echo, or a download without an end."""

    def serve_one(connection):
        try:
            if connection.recv(1) == b"S":
                while True:
                    connection.sendall(bytes(1 << 18))
            while data := connection.recv(65536):
                connection.sendall(data)
        except OSError:
            pass
        connection.close()

    listener = socket.create_server((DAEMON, SERVICE), backlog=1024)
    while True:
        threading.Thread(target=serve_one, args=(listener.accept()[0],), daemon=True).start()


class Well:
    """Users that behave."""

    def __init__(self, daemon, port):
        self.daemon, self.port = daemon, port
        self.relayed = multiprocessing.Value("Q", 0)
        self.download = multiprocessing.Process(target=self.take, daemon=True)
        self.download.start()
        self.held = [self.dial(b"E") for _ in range(HELD)]
        for number, connection in enumerate(self.held):
            self.ask(connection, number)

    def dial(self, first):
        raw = socket.create_connection((DAEMON, self.port), PATIENCE, (USERS, 0))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        context = self.daemon.context
        connection = context.wrap_socket(raw, server_hostname=DAEMON) if context else raw
        connection.sendall(first)
        return connection

    def take(self):
        connection, buffer = self.dial(b"S"), bytearray(1 << 18)
        while count := connection.recv_into(buffer):
            self.relayed.value += count

    @staticmethod
    def ask(connection, number):
        question = struct.pack("!Q", number) * 8
        connection.sendall(question)
        answer = b""
        while len(answer) < len(question):
            piece = connection.recv(len(question) - len(answer))
            if not piece:
                raise ConnectionError("a session of somebody who behaves has ended")
            answer += piece
        if answer != question:
            raise ValueError("another answer than was asked for")

    def measure(self, seconds):
        """Bytes a second and for a second of processor time, and 99th percentiles of questions and of new sessions."""
        times = {"question": [], "session": []}
        start, before, used = time.monotonic(), self.relayed.value, self.daemon.cpu_seconds()
        number = 0
        while (now := time.monotonic()) - start < seconds or not all(times.values()):
            number += 1
            if number % 10:
                self.ask(self.held[number % HELD], number)
                times["question"].append(time.monotonic() - now)
            else:
                connection = self.dial(b"E")
                self.ask(connection, number)
                connection.close()
                times["session"].append(time.monotonic() - now)
            time.sleep(0.002)
        relayed, took = self.relayed.value - before, time.monotonic() - start
        rate, efficiency = relayed / took, relayed / max(0.01, self.daemon.cpu_seconds() - used)
        if not self.download.is_alive() or rate == 0:
            raise ConnectionError("the download has ended")
        p99 = {what: sorted(values)[len(values) * 99 // 100] for what, values in times.items()}
        return rate, efficiency, p99["question"], p99["session"]


# ---- the crowd ----


class Bad:
    """One of the crowd. A way of being bad is a generator that yields for how long it wants nothing but to hear."""

    def __init__(self, crowd, number):
        self.crowd, self.number = crowd, number
        self.address = f"127.{1 + number % ADDRESSES // 250}.7.{1 + number % 250}"
        self.tls = self.raw = None

    def connect(self, port):
        self.raw = socket.socket()
        self.raw.setblocking(False)
        self.raw.bind((self.address, 0))
        self.raw.connect_ex((DAEMON, port))
        self.heard = b""

    def encrypt(self, context):
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=DAEMON)

    def hello(self):
        """A ClientHello, or what begins a dev mode connection."""
        if not self.crowd.context:
            return b"iofog/1 dev mode"
        self.encrypt(self.crowd.context)
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        hello, self.tls = self.outgoing.read(), None
        return hello

    def send(self, data):
        if self.tls:
            self.tls.write(data)
            data = self.outgoing.read()
        self.raw.send(data)

    def hear(self):
        """Takes what is there. False: closed."""
        data = self.raw.recv(65536)
        if not data:
            return False
        if not self.tls:
            self.heard += data
            return True
        self.incoming.write(data)
        try:
            while piece := self.tls.read(65536):
                self.heard += piece
            return False
        except ssl.SSLWantReadError:
            if pending := self.outgoing.read():
                self.raw.send(pending)
            return True

    def handshake(self, context):
        """With TLS, if there is TLS."""
        yield 0.01
        if not context:
            return
        self.encrypt(context)
        while True:
            try:
                self.tls.do_handshake()
                self.raw.send(self.outgoing.read())
                return
            except ssl.SSLWantReadError:
                self.raw.send(self.outgoing.read())
            yield FOREVER

    # ---- ways of being bad ----

    def silent(self):
        self.connect(self.crowd.port(self.number))
        yield FOREVER

    def half(self):
        """Half a handshake: ClientHello, and no more. In dev mode an agent's preamble, and no passcode."""
        self.connect(self.crowd.port_with_handshakes(self.number))
        yield 0.01
        self.raw.send(self.hello())
        yield FOREVER

    def slow(self):
        """The same, a byte a second."""
        self.connect(self.crowd.port_with_handshakes(self.number))
        yield self.crowd.random.random()
        for byte in self.hello() + WRONG:
            self.raw.send(bytes([byte]))
            yield 1

    def passcodes(self):
        self.connect(self.crowd.agents_port(self.number))
        yield from self.handshake(self.crowd.context)
        self.send(f"{self.crowd.random.getrandbits(32):08x}".encode() + WRONG[8:])
        yield FOREVER

    def renegotiation(self):
        """With TLS 1.2 a second handshake in the first one; with TLS 1.3 new keys, again and again."""
        self.connect(self.crowd.port(self.number))
        old = self.number % 4 < 2
        yield from self.handshake(self.crowd.old_context if old else self.crowd.context)
        for _ in range(1000):
            (self.crowd.libssl.SSL_renegotiate if old else self.crowd.libssl.SSL_key_update)(self.pointer(), 1)
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            self.raw.send(self.outgoing.read())
            self.crowd.counts["tries"] += 1
            yield 0.2

    def pointer(self):
        """The `SSL *`: in CPython's object behind its head and a reference."""
        return ctypes.c_void_p(ctypes.c_void_p.from_address(id(self.tls._sslobj) + 24).value)

    def trickle(self):
        """Sessions of the crowd's own, a byte a second in both directions: every other one is an agent."""
        is_agent = self.number % 2 == 0
        self.connect(self.crowd.own["port1" if is_agent else "port2"])
        yield from self.handshake(self.crowd.context)
        if is_agent:
            self.send(self.crowd.own["passcode1"].encode())
            while b"AUTHORIZED" not in self.heard:
                yield FOREVER
        yield self.crowd.random.random()
        while True:
            self.send(b"x")
            self.crowd.counts["bytes"] += 1
            yield 1


KINDS = ["silent", "slow", "half", "renegotiation", "passcodes", "trickle"]
# These have a whole handshake, which costs a crowd on the same machine as much as the daemon.
WITH_TLS = ["renegotiation", "passcodes", "trickle"]


class Crowd:
    def __init__(self, daemon, kind, size, ports, own, seed):
        self.kind, self.size, self.ports, self.own = kind, size, ports, own
        self.random = random.Random(seed)
        self.context = self.old_context = None
        self.counts = collections.Counter()
        if daemon.tls:
            self.context = ssl.create_default_context(cafile=daemon.ca)
            self.old_context = ssl.create_default_context(cafile=daemon.ca)
            self.old_context.maximum_version = ssl.TLSVersion.TLSv1_2
            # The library that Python itself uses.
            self.libssl = ctypes.CDLL("libssl.so.3")

    def port(self, number):
        return self.ports[number % len(self.ports)]

    def agents_port(self, number):
        return self.ports[number * 2 % len(self.ports)]

    def port_with_handshakes(self, number):
        """Without TLS a user that sends a byte is a user as any other."""
        return self.port(number) if self.context else self.agents_port(number)

    def run(self, told):
        """Until it is killed. Tells now and then how many are connected, how often, and how much was done."""
        os.nice(10)
        self.poll, self.by_descriptor, self.steps = select.epoll(), {}, {}
        # When it is whose turn; what is in `times` and not in `next_at` is out of date.
        self.times, self.next_at = [], {}
        for number in range(self.size):
            self.at(number, time.monotonic() + self.random.random() * (1 + self.size / 3000))
        while True:
            done = self.counts["bytes"] + self.counts["tries"]
            told[:] = [len(self.by_descriptor), self.counts["connected"], done]
            due = min(time.monotonic() + 0.2, self.times[0][0] if self.times else FOREVER)
            for descriptor, _ in self.poll.poll(max(0, due - time.monotonic()), 256):
                self.has_heard(*self.by_descriptor[descriptor])
            for _ in range(256):
                if not self.times or self.times[0][0] > time.monotonic():
                    break
                when, number = heapq.heappop(self.times)
                if self.next_at.get(number) == when:
                    self.is_due(number)

    def at(self, number, when):
        self.next_at[number] = when
        if when < FOREVER:
            heapq.heappush(self.times, (when, number))

    def is_due(self, number):
        if number in self.steps:
            return self.step(*self.steps[number])
        bad = Bad(self, number)
        steps = getattr(bad, self.kind)()
        self.counts["connected"] += 1
        self.step(bad, steps)
        if number in self.steps:
            self.by_descriptor[bad.raw.fileno()] = (bad, steps)
            self.poll.register(bad.raw, select.EPOLLIN)
        return None

    def has_heard(self, bad, steps):
        try:
            alive = bad.hear()
        except OSError:
            alive = False
        if not alive:
            self.leave(bad)
        elif self.next_at[bad.number] == FOREVER:
            self.step(bad, steps)

    def step(self, bad, steps):
        try:
            pause = next(steps)
        except (OSError, StopIteration):
            return self.leave(bad)
        self.steps[bad.number] = (bad, steps)
        return self.at(bad.number, FOREVER if pause == FOREVER else time.monotonic() + pause)

    def leave(self, bad):
        self.by_descriptor.pop(bad.raw.fileno(), None)
        self.steps.pop(bad.number, None)
        bad.raw.close()
        self.at(bad.number, time.monotonic() + self.random.uniform(*PAUSE))


# ---- one against the other ----


def ready(daemon, mapping):
    return daemon.status(mapping["id"])["free"] >= POOL - HELD - 2


def compare(daemon, well, mapping, crowd, options):
    """Rounds without the crowd and with it. Returns the figures of both, and what the crowd did."""
    without, beside, told = [], [], multiprocessing.Array("Q", 3)
    held = 0
    for _ in range(options.rounds):
        wait_until("all agents are there", lambda: ready(daemon, mapping), 60)
        without.append(well.measure(options.seconds))
        process = multiprocessing.Process(target=crowd.run, args=(told,), daemon=True)
        process.start()
        # Until most are there, or as many as there can be.
        wait_until("the crowd is there", lambda: told[1] >= crowd.size * 0.9, 120)
        time.sleep(min(PAUSE[1], 2 * options.seconds))
        begun, since = told[1], time.monotonic()
        beside.append(well.measure(options.seconds))
        held, pace = told[0], (told[1] - begun) / (time.monotonic() - since)
        if not process.is_alive():
            raise RuntimeError("the crowd has failed")
        process.kill()
        process.join()
        own = HELD + 1 + POOL
        wait_until("the crowd is gone", lambda: daemon.status()["connections"] <= own + 5, 60)
    medians = [[statistics.median(column) for column in zip(*rows)] for rows in (without, beside)]
    return medians, [a[0] / b[0] for a, b in zip(beside, without)], held, pace, told[2]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("mode", choices=["tls", "dev"])
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    for name, default in {"seed": 1, "sockets": 1000, "with-tls": 200, "rounds": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--keep", type=float, default=0.0)
    options = parser.parse_args()
    run("ip", "link", "set", "lo", "up")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sockets = min(options.sockets, hard - 100)

    multiprocessing.Process(target=serve, daemon=True).start()
    tls = options.mode == "tls"
    daemon = Daemon(pathlib.Path(options.folder) / "daemon", DAEMON, tls)
    mapping = daemon.add(connections=2 * POOL)
    others = [daemon.add() for _ in range(sockets // PLACES)]
    own = daemon.add(connections=65535)
    to = f"127.0.0.1:{SERVICE}"
    lines = [service("well", mapping["port1"], mapping["passcode1"], to=to)]
    agent = Agent(daemon, "agent", lines, bind=AGENTS, connections=POOL)
    wait_until("all agents are there", lambda: daemon.status(mapping["id"])["free"] == POOL)
    well = Well(daemon, mapping["port2"])
    ports = [port for each in [mapping, *others] for port in (each["port1"], each["port2"])]

    kinds = [kind for kind in options.kinds or KINDS if tls or kind != "renegotiation"]
    bad = False
    for kind in kinds:
        size = min(sockets, options.with_tls) if tls and kind in WITH_TLS else sockets
        crowd = Crowd(daemon, kind, size, ports, own, options.seed)
        (without, beside), kept, held, pace, done = compare(daemon, well, mapping, crowd, options)
        ratio = statistics.median(kept)
        milliseconds = [f"{a * 1000:.1f} → {b * 1000:.1f}" for a, b in zip(without[2:], beside[2:])]
        print(
            f"| {kind} | {options.mode} | {held} of {size}; {pace:.0f} | {without[0] / 1e6:.0f} MB/s |"
            f" {ratio:.2f} ({min(kept):.2f} to {max(kept):.2f}) | {beside[1] / without[1]:.2f} |"
            f" {milliseconds[0]} ms | {milliseconds[1]} ms |",
            flush=True,
        )
        bad |= ratio < options.keep
    wait_until("all agents are there", lambda: ready(daemon, mapping), 60)
    # Nothing that they held is lost: the same sessions still answer.
    for number, connection in enumerate(well.held):
        well.ask(connection, number)
    print(f"seed {options.seed}: {daemon.resident_kib()} KiB, {daemon.cpu_seconds():.1f} s of processor time")
    well.download.kill()
    for process in (agent, daemon):
        process.end()
    return 1 if bad else 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)
