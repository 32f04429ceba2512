#!/bin/bash
# A router that forgets: from one moment on every packet is dropped, and nobody is told. Both ends must notice by
# their heartbeats, and be back once the packets flow again. The agent knows the Connector by a name with two
# addresses, of which only the second one is the right one.
#
# usage: silence.sh FOLDER [tls]     (see network.sh for where to run it; iofog-connector must be in PATH)
set -euo pipefail
folder=$1 mode=${2:-dev}
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/network.sh"
cd "$folder"

printf '%s connector.example\n' 203.0.113.20 203.0.113.10 > hosts
mount --bind hosts /etc/hosts

dev=true scheme=http options=--dev trust=
if [ "$mode" = tls ]; then
    dev=false scheme=https options='--ca server-cert.pem' trust='--cacert server-cert.pem'
fi
cat > settings.conf <<END
{"ports": ["6000-6001"], "address": "127.0.0.1", "apiport": 6002, "dev": $dev}
END
on() { ip netns exec "$@"; }
if [ "$mode" = tls ]; then
    iofog-connector cert --config settings.conf --address 203.0.113.10 --address 127.0.0.1 > /dev/null
fi
on server iofog-connector start --config settings.conf > server.log 2>&1 &
await 20 on server iofog-connector status --config settings.conf
on server iofog-connector mapping add --config settings.conf --connections 2 --threshold 2000 |
    awk '/^passcode 1/ {print $NF}' > passcode
mkdir page && echo hello > page/index.html
on pi python3 -m http.server 8000 --bind 127.0.0.1 --directory page > /dev/null 2>&1 &
# shellcheck disable=SC2086 # several words on purpose
on pi iofog-connector agent --connector connector.example:6000 --passcode-file passcode $options --to 127.0.0.1:8000 \
    --connections 2 --heartbeat 500 --threshold 1500 > agent.log 2>&1 &

# shellcheck disable=SC2086
fetch() { on anywhere curl -sf --max-time 8 $trust "$scheme://203.0.113.10:6001/" | grep -q hello; }
await 20 fetch
both_free() { on server curl -sf $trust "$scheme://127.0.0.1:6002/metrics" | grep -q 'mapping_agents_free{.*} 2$'; }
await 20 both_free

give_up() {
    echo "$1" >&2
    tail -n 30 ./*.log >&2
    exit 1
}

since=$SECONDS
on router nft insert rule ip filter forward drop
await 20 grep -q "does not answer heartbeats" agent.log || give_up "the agent has not noticed"
await 20 grep -q "has not been heard of" server.log || give_up "the Connector has not noticed"
((SECONDS - since <= 6)) || give_up "noticed after $((SECONDS - since)) s only"
on router nft flush chain ip filter forward
on router nft add rule ip filter forward accept
await 20 fetch || give_up "not back"
echo "noticed and back after $((SECONDS - since)) s"
