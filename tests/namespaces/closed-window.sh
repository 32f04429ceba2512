#!/bin/bash
# Two users take nothing of their downloads: their windows are closed. One of them dies silently: its machine loses its
# address. Its session must end in about 40 s, and the other one's must not.
#
# usage: closed-window.sh FOLDER     (in namespaces of its own, as root; iofog-connector must be in PATH)
set -euo pipefail
cd "$1"

mount -t tmpfs none /run
mkdir /run/netns
ip link set lo up
ip netns add users
ip link add name users type veth peer name internet netns users
ip addr add 10.0.0.1/24 dev users
ip link set users up
ip -n users link set internet up
for address in 10.0.0.2 10.0.0.3; do
    ip -n users addr add $address/32 dev internet
done
ip -n users route add 10.0.0.0/24 dev internet
cat > settings.conf <<END
{"ports": ["6000-6001"], "address": "127.0.0.1", "apiport": 6002, "dev": true}
END
iofog-connector start --config settings.conf > server.log 2>&1 &
for _ in $(seq 100); do
    iofog-connector status --config settings.conf > /dev/null 2>&1 && break
    sleep 0.1
done
iofog-connector mapping add --config settings.conf --connections 2 | awk '/^passcode 1/ {print $NF}' > passcode

cat > users.py <<'END'
# Connects to port 6001 from this address and says hello, on each line of the input; reads nothing.
import socket, sys
users = []
for address in sys.stdin:
    user = socket.socket()
    user.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    user.bind((address.strip(), 0))
    user.connect(("10.0.0.1", 6001))
    user.sendall(b"hello")
    users.append(user)
END

python3 - <<'END'
import select, socket, subprocess, time

passcode = open("passcode").read().strip().encode()

command = ["ip", "netns", "exec", "users", "python3", "-u", "users.py"]
users = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)

def session(address):
    agent = socket.create_connection(("127.0.0.1", 6000))
    agent.sendall(passcode)
    assert agent.recv(10) == b"AUTHORIZED"
    print(address, file=users.stdin, flush=True)
    assert agent.recv(5) == b"hello"
    agent.setblocking(False)
    while True:
        try:
            agent.send(bytes(65536))
        except BlockingIOError:
            if not select.select([], [agent], [], 1)[1]:
                return agent

def has_ended(agent):
    while True:
        try:
            # A heartbeat of the Connector's comes now and then.
            if not agent.recv(64):
                return True
        except BlockingIOError:
            return False
        except OSError:
            return True

stays, ends = session("10.0.0.3"), session("10.0.0.2")
# So long that the kernel asks seldom already.
time.sleep(15)
assert not has_ended(stays) and not has_ended(ends), "a slow reader was taken for dead"
subprocess.run("ip -n users addr del 10.0.0.2/32 dev internet", shell=True, check=True)
since = time.time()
while not has_ended(ends):
    assert time.time() - since < 60, "the dead reader has not been found"
    time.sleep(0.2)
found = time.time() - since
assert found > 15, f"taken for dead after {found:.0f} s already"
time.sleep(max(0, 45 - found))
assert not has_ended(stays), "the slow reader was taken for dead, too"
users.kill()
print(f"the dead reader was found after {found:.0f} s")
END
