# The Connector's name has an IPv6 address where nobody is, and an IPv4 address where it is: the agent must not wait for
# the first one. Usage: dead-ipv6.sh FOLDER
set -euo pipefail
cd "$1"

ip link set lo up
ip link add name outside type veth peer name elsewhere
ip link set elsewhere up
ip addr add 192.0.2.1/24 dev outside
ip -6 addr add 2001:db8::1/64 dev outside nodad
ip link set outside up
# Packets for it go out, and nothing comes back.
ip -6 neigh add 2001:db8::2 lladdr 02:00:00:00:00:02 dev outside nud permanent
printf '%s\n' '127.0.0.1 localhost' '2001:db8::2 relay.test' '192.0.2.1 relay.test' >hosts
mount --bind hosts /etc/hosts

echo '{"ports": ["31000-31001"], "dev": true, "apiport": 31002}' >connector.conf
iofog-connector start --config connector.conf --log-file connector.log &
for _ in $(seq 100); do
	iofog-connector mapping add --config connector.conf --json >mapping 2>/dev/null && break
	sleep 0.1
done
get() { python3 -c 'import json, sys; print(json.load(open("mapping"))[sys.argv[1]])' "$1"; }
get passcode1 >passcode

iofog-connector agent --connector "relay.test:$(get port1)" --dev --passcode-file passcode --to 127.0.0.1:1 \
	--connections 1 2>agent.log &
for _ in $(seq 100); do
	grep -q Authorized agent.log && break
	sleep 0.1
done
cat agent.log
python3 - <<'PYTHON'
import re

lines = open("agent.log").read().splitlines()
seconds = [float(re.match(r"\S+T\d+:(\d+:\d+\.\d+)Z", line)[1].split(":")[1]) for line in lines]
assert "192.0.2.1" in lines[-1], "not authorized over IPv4"
took = (seconds[-1] - seconds[0]) % 60
print(f"authorized after {took * 1000:.0f} ms")
assert 0.2 < took < 0.4, "IPv6 comes first, and is not waited for"
PYTHON
