#!/bin/bash
# Real programs over version 2 of the pipe protocol, with TLS between agents and Connector and in dev mode: MariaDB, which
# speaks first, OpenSSH, nginx and curl with HTTP/2, WebSocket, and iperf3 both ways and in parallel. Root is needed;
# everything runs in a network namespace of its own, with files in a temporary folder. What is not installed is skipped,
# and said.
#
# Usage: tests/programs/version2.sh [BINARY]        (default: target/release or target/debug)
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/programs/lib.sh
. tests/programs/lib.sh

if [ "${1:-}" != --inside ]; then
	binary=$(program_under_test "${1:-}")
	exec unshare --net --mount "$0" --inside "$binary"
fi

# shellcheck source=packaging/test/lib.sh
. packaging/test/lib.sh
connector=$2
python=/usr/bin/python3

# has NAME PROGRAM...: whether all are there; says so if not.
has() {
	local name=$1 program
	shift
	for program in "$@"; do
		if ! command -v "$program" >/dev/null; then
			echo "skipped: $name, there is no $program"
			return 1
		fi
	done
}

ip link set lo up
head -c 50M /dev/urandom >"$work/50M"
chmod 644 "$work/50M"
chmod 755 "$work"
same() { cmp "$work/50M" "$1" && rm "$1"; }

# --- the Connector, once with TLS and once in dev mode
declare -A api=([tls]=https://localhost:8443 [dev]=http://localhost:8080) authority=()
start_connector() {
	mode=$1 settings=$work/$1/iofog-connector.conf
	mkdir "$work/$mode"
	case $mode in
	tls) echo '{"ports": ["30000-30499"], "apiport": 8443}' >"$settings" ;;
	dev) echo '{"ports": ["30500-30999"], "apiport": 8080, "dev": true}' >"$settings" ;;
	esac
	if [ "$mode" = tls ]; then
		step "a certificate" "$connector" cert --config "$settings" --name localhost
		trust=(--ca "$work/tls/server-cert.pem")
		authority[tls]=$work/tls/server-cert.pem
	else
		trust=(--dev)
	fi
	background "$mode" "$connector" start --config "$settings"
	step "the Connector runs ($mode)" until_true "$connector" status --config "$settings"
}

# expose NAME LOCALPORT: a mapping whose users come to $port, and an agent for it.
expose() {
	local name=$1 local_port=$2 added
	added=$("$connector" mapping add --config "$settings" --name "$name" --users plain --connections 60)
	port=$(sed -n 's/^users\tport //p' <<<"$added")
	port1=$(sed -n 's/^agents\tport //p' <<<"$added")
	sed -n 's/^passcode 1\t//p' <<<"$added" >"$work/$mode-$name.passcode"
	background "$mode-agent-$name" "$connector" agent --connector "localhost:$port1" "${trust[@]}" \
		--passcode-file "$work/$mode-$name.passcode" --to "127.0.0.1:$local_port"
	until_true has_agents "$name"
}
has_agents() { "$connector" mapping show --config "$settings" "$1" | grep -q '^agents.2 (2 free'; }

# metric NAME: of the Connector.
metric() {
	curl -sS ${authority[$mode]:+--cacert "${authority[$mode]}"} "${api[$mode]}/metrics" |
		awk -v name="iofog_connector_$1" '$1 == name { print $2 }'
}

# count WORDS FILE...: lines with these words.
count() { cat "${@:2}" | grep -c "$1" || true; }

# together COUNT COMMAND...: so many at once, all of which must succeed.
together() {
	local count=$1 children=() child
	shift
	for ((child = 0; child < count; child++)); do
		"$@" &
		children+=($!)
	done
	for child in "${children[@]}"; do wait "$child"; done
}

# in_turn COUNT COMMAND...: one after the other, all of which must succeed.
in_turn() {
	local count=$1 turn
	shift
	for ((turn = 0; turn < count; turn++)); do "$@"; done
}

# --- services
start_mariadb() {
	mkdir "$work/mariadb" && chown mysql "$work/mariadb"
	echo "create user 'test'@'127.0.0.1';" >"$work/mariadb.sql"
	chmod 644 "$work/mariadb.sql"
	step "a database" mariadb-install-db --no-defaults --user=mysql --datadir="$work/mariadb" --skip-test-db
	background mariadb mariadbd --no-defaults --user=mysql --datadir="$work/mariadb" --socket="$work/mariadb/socket" \
		--pid-file="$work/mariadb/pid" --bind-address=127.0.0.1 --port=3306 --skip-name-resolve --init-file="$work/mariadb.sql"
	step "MariaDB runs" until_true listens 3306
}
sql() { mariadb --no-defaults --host=127.0.0.1 --port="$port" --user=test --skip-column-names --batch -e "$1"; }
one_row() { [ "$(sql "select user()")" = test@127.0.0.1 ]; }
big_row() { sql "select repeat('x', 10000000)" | wc -c; }
use_mariadb() {
	expose mariadb 3306
	step "MariaDB greets and answers, fifty clients in turn ($mode)" in_turn 50 one_row
	step "and twenty at once" together 20 one_row
	fact "and a row of 10 MB" 10000001 big_row
}

greet() { [ "$(ssh "${options[@]}" -p "$port" root@127.0.0.1 echo hello)" = hello ]; }
through_cat() { ssh "${options[@]}" -p "$port" root@127.0.0.1 cat <"$work/50M" >"$work/cat"; }
use_ssh() {
	expose ssh 2222
	echo "[127.0.0.1]:$port $(cat "$work/ssh/host.pub")" >"$work/ssh/known"
	options=(-F none -o "UserKnownHostsFile=$work/ssh/known" -o StrictHostKeyChecking=yes -o BatchMode=yes -i "$work/ssh/user")
	step "ssh, ten commands in turn ($mode)" in_turn 10 greet
	step "and ten at once" together 10 greet
	step "scp of 50 MB to the service" scp "${options[@]}" -P "$port" "$work/50M" "root@127.0.0.1:$work/there"
	step "is complete" same "$work/there"
	step "scp of 50 MB from the service" scp "${options[@]}" -P "$port" "root@127.0.0.1:$work/50M" "$work/here"
	step "is complete" same "$work/here"
	step "50 MB both ways at once" through_cat
	step "are complete" same "$work/cat"
}

start_http2() {
	cat >"$work/nginx.conf" <<-CONFIG
		daemon off;
		pid $work/nginx.pid;
		error_log $work/nginx-error.log;
		events {}
		http {
			client_body_temp_path $work/t1; proxy_temp_path $work/t2; fastcgi_temp_path $work/t3;
			uwsgi_temp_path $work/t4; scgi_temp_path $work/t5;
			access_log off;
			keepalive_requests 10000;
			server {
				listen 127.0.0.1:8082 http2;
				location / { return 200 "over \$server_protocol\n"; }
				location /big { alias $work/50M; }
			}
		}
	CONFIG
	background nginx nginx -c "$work/nginx.conf"
	step "nginx runs" until_true listens 8082
}
h2() { curl -sS --fail --http2-prior-knowledge "$@"; }
# curl 7.88 cannot use such a connection twice: many requests at once are h2load's.
multiplexed() { h2load -n 2000 -c 10 -m 20 "http://127.0.0.1:$port/" | sed -n 's/^status codes: //p'; }
big() { h2load -n 16 -c 4 -m 4 "http://127.0.0.1:$port/big" | sed -n 's/^traffic: .*(\([0-9]*\)) data$/\1/p'; }
use_http2() {
	expose http2 8082
	fact "HTTP/2 with prior knowledge ($mode)" "over HTTP/2.0" h2 "http://127.0.0.1:$port/"
	step "a hundred connections in turn" in_turn 100 h2 -o /dev/null "http://127.0.0.1:$port/"
	step "50 MB" h2 -o "$work/h2" "http://127.0.0.1:$port/big"
	step "are complete" same "$work/h2"
	fact "2,000 requests, 20 at once on each of ten connections" "2000 2xx, 0 3xx, 0 4xx, 0 5xx" multiplexed
	fact "50 MB sixteen times, four at once on each of four" "$((16 * 50 * 1024 * 1024))" big
}

start_websocket() {
	background websocket "$python" tests/programs/websocket.py serve 8083
	step "the WebSocket server runs" until_true listens 8083
}
use_websocket() {
	expose websocket 8083
	fact "WebSocket: the server speaks first, messages of all sizes, pings, silence, both ends close ($mode)" \
		"all is well" "$python" tests/programs/websocket.py visit "$port"
}

start_iperf3() {
	background iperf3 iperf3 -s -B 127.0.0.1 -p 5201
	step "the iperf3 server runs" until_true listens 5201
}
# measure OPTIONS: two seconds of iperf3, and what it got.
measure() {
	iperf3 -J -c 127.0.0.1 -p "$port" -t 2 "$@" >"$work/iperf3.json" || { cat "$work/iperf3.json"; return 1; }
}
rate() {
	"$python" -c 'import json, sys; end = json.load(open(sys.argv[1]))["end"]
print(" and ".join("%.1f Gbit/s" % (end[key]["bits_per_second"] / 1e9) for key in ("sum_received", "sum_received_bidir_reverse") if key in end))' \
		"$work/iperf3.json"
}
use_iperf3() {
	expose iperf3 5201
	local way
	for way in "" -R --bidir "-P 8" "-P 8 -R"; do
		# shellcheck disable=SC2086 # several words
		step "iperf3 $way ($mode)" measure $way
		echo "    $(rate)"
	done
}

programs=()
if has MariaDB mariadb mariadbd mariadb-install-db; then programs+=(mariadb); fi
if has OpenSSH ssh scp sshd ssh-keygen; then programs+=(ssh); fi
if has HTTP/2 nginx curl h2load; then programs+=(http2); fi
if "$python" -c 'import websockets' 2>/dev/null; then programs+=(websocket); else echo "skipped: WebSocket, there is no python3-websockets"; fi
if has iperf3 iperf3; then programs+=(iperf3); fi
for program in "${programs[@]}"; do "start_$program"; done
for mode in tls dev; do
	start_connector "$mode"
	for program in "${programs[@]}"; do
		"use_$program"
		fact "it was version 2" 0 count "speaks version 1" "$work/$mode-agent-$program.log"
	done
	echo "    $(metric sessions_total) sessions on $(metric agents_authorized_total) agent connections ($mode)"
	fact "nothing panicked ($mode)" 0 count panicked "$work/$mode.log" "$work/$mode-agent"*.log
done
echo "all is well"
