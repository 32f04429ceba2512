"""A bad network between two namespaces, packet by packet, in user space: many kernels come without netem.

Each namespace has a TUN device whose other end is here. What is done to the packets can be changed at any time:

    delay      seconds, each way
    jitter     seconds that are added at random, so that packets overtake each other
    loss       share of packets that vanish
    duplicate  share of packets that come twice
    rate       bytes a second, each way; a packet that would wait for more than a second is dropped
    mtu        longest packet; the sender of a longer one is told so (ICMP)
    hole       far addresses whose packets vanish, in both directions
    alias      {far address: address that the near side sees}: NAT. Packets to what was an alias before vanish

Packets of far addresses in `spared` are never touched.
"""

import collections
import fcntl
import heapq
import ipaddress
import multiprocessing
import os
import random
import select
import struct
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x1, 0x1000
LONGEST = 65536
QUEUE = 1.0
SOURCE, DESTINATION = 12, 16
CHECKSUM_OF_IP, CHECKSUM_OF_TCP = 10, 16
TCP, ICMP = 6, 1


def tun(name):
    """A device that stays ours when it is moved to another namespace."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH14x", name.encode(), IFF_TUN | IFF_NO_PI))
    return device


def words(octets):
    return sum(struct.unpack(f"!{len(octets) // 2}H", octets))


def folded(value):
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return value


def readdress(packet, at, address):
    """Another address, and the checksums that it is part of (RFC 1624)."""
    header = (packet[0] & 15) * 4
    change = words(address) + 4 * 0xFFFF - words(packet[at : at + 4])
    packet[at : at + 4] = address
    places = [CHECKSUM_OF_IP] + ([header + CHECKSUM_OF_TCP] if packet[9] == TCP else [])
    for place in places:
        (old,) = struct.unpack_from("!H", packet, place)
        struct.pack_into("!H", packet, place, ~folded((~old & 0xFFFF) + change) & 0xFFFF)


def too_long(packet, mtu, router):
    """ICMP: fragmentation needed."""
    body = struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + bytes(packet[:28])
    body = body[:2] + struct.pack("!H", ~folded(words(body)) & 0xFFFF) + body[4:]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, ICMP, 0) + router + packet[SOURCE : SOURCE + 4]
    return head[:10] + struct.pack("!H", ~folded(words(head)) & 0xFFFF) + head[12:] + body


class Impairment:
    def __init__(self, near, far, router, spared, seed):
        self.devices = {"near": near, "far": far}
        self.router = ipaddress.ip_address(router).packed
        self.spared = {ipaddress.ip_address(address).packed for address in spared}
        self.random = random.Random(seed)
        self.waiting, self.number = [], 0
        self.set({})

    def set(self, how):
        self.how = how
        # What was done since.
        self.counts, self.last = collections.Counter(), {}
        self.free_at = dict.fromkeys(self.devices, 0.0)
        self.hole = {ipaddress.ip_address(address).packed for address in how.get("hole", ())}
        pairs = how.get("alias", {}).items()
        self.alias = {ipaddress.ip_address(a).packed: ipaddress.ip_address(b).packed for a, b in pairs}
        self.real = {alias: address for address, alias in self.alias.items()}

    def run(self, orders):
        while True:
            now = time.monotonic()
            pause = max(0, self.waiting[0][0] - now) if self.waiting else None
            ready = select.select([*self.devices.values(), orders], [], [], pause)[0]
            if orders in ready:
                how, counts = orders.recv(), self.counts
                self.set(how)
                orders.send(counts)
            for side, device in self.devices.items():
                if device in ready:
                    self.read(side, device)
            self.deliver()

    def read(self, side, device):
        for _ in range(64):
            try:
                packet = bytearray(os.read(device, LONGEST))
            except BlockingIOError:
                return
            if packet[0] >> 4 == 4:
                self.take(side, packet)

    def take(self, side, packet):
        other = "near" if side == "far" else "far"
        at = SOURCE if side == "far" else DESTINATION
        address = bytes(packet[at : at + 4])
        if address in self.spared:
            return self.put(0, other, packet)
        self.counts["packets"] += 1
        if side == "near":
            address = self.real.get(address, address)
            if address in self.alias and address == bytes(packet[at : at + 4]):
                return None  # nobody is there any more
        if address in self.hole or self.chance("loss"):
            self.counts["lost"] += 1
            return None
        if len(packet) > self.how.get("mtu", LONGEST):
            self.counts["too long"] += 1
            return self.put(0, side, bytearray(too_long(packet, self.how["mtu"], self.router)))
        if address in self.alias:
            readdress(packet, at, self.alias[address] if side == "far" else address)
        elif side == "near" and self.alias and self.is_old_alias(packet[at : at + 4]):
            self.counts["to an old address"] += 1
            return None
        times = 2 if self.chance("duplicate") else 1
        self.counts["twice"] += times - 1
        for _ in range(times):
            self.delay(other, packet)
        return None

    def is_old_alias(self, address):
        """Aliases are of a network that has nothing else."""
        return any(bytes(address[:3]) == alias[:3] for alias in self.real) and bytes(address) not in self.real

    def chance(self, what):
        return what in self.how and self.random.random() < self.how[what]

    def delay(self, other, packet):
        due = now = time.monotonic()
        if rate := self.how.get("rate"):
            begin = max(now, self.free_at[other])
            if begin - now > QUEUE:
                self.counts["lost"] += 1
                return
            due = self.free_at[other] = begin + len(packet) / rate
        due += self.how.get("delay", 0) + self.random.random() * self.how.get("jitter", 0)
        self.put(due, other, packet)

    def put(self, due, other, packet):
        self.number += 1
        self.counts["late"] += due > 0 and due > time.monotonic()
        self.counts["overtaking"] += due < self.last.get(other, 0)
        self.last[other] = due
        heapq.heappush(self.waiting, (due, self.number, other, packet))

    def deliver(self):
        while self.waiting and self.waiting[0][0] <= time.monotonic():
            _, _, side, packet = heapq.heappop(self.waiting)
            try:
                os.write(self.devices[side], packet)
            except BlockingIOError:
                pass  # a full queue drops


class Link:
    """The impairment in a process of its own."""

    def __init__(self, near, far, router, spared, seed):
        self.orders, theirs = multiprocessing.Pipe()
        impairment = Impairment(near, far, router, spared, seed)
        self.process = multiprocessing.Process(target=impairment.run, args=(theirs,), daemon=True)
        self.process.start()

    def set(self, **how):
        """From now on this and nothing else. Returns what was done to how many packets until now."""
        self.orders.send(how)
        return self.orders.recv()
