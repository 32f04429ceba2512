#!/bin/bash
# Real programs through public mappings, outside dev mode: OpenSSH, nginx, curl, HAProxy, Postfix, PostgreSQL and
# MariaDB, each behind `iofog-connector agent`. Root and Debian's packages are needed; everything runs in a network namespace of its
# own, with files in a temporary folder, and nothing of the machine's services is touched.
#
# Usage: tests/programs/services.sh [BINARY]        (default: target/release or target/debug)
#
# Users are 192.0.2.7 and 2001:db8::7, the Connector is 192.0.2.1 and 2001:db8::1, a load balancer is 127.0.0.9.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/programs/lib.sh
. tests/programs/lib.sh

if [ "${1:-}" != --inside ]; then
	binary=$(program_under_test "${1:-}")
	needs=()
	declare -A package=([/usr/sbin/sshd]=openssh-server [/usr/bin/sftp]=openssh-client [/usr/sbin/nginx]=nginx
		[/usr/bin/curl]=curl [/usr/sbin/haproxy]=haproxy [/usr/sbin/postfix]=postfix [/usr/bin/psql]=postgresql
		[/usr/sbin/mariadbd]=mariadb-server [/usr/bin/mariadb]=mariadb-client
		[/usr/bin/openssl]=openssl [/usr/sbin/ip]=iproute2)
	for program in "${!package[@]}"; do
		[ -x "$program" ] || [ -x "${program/usr\/sbin/sbin}" ] || needs+=("${package[$program]}")
	done
	if ((${#needs[@]})); then
		apt-get update -qq
		DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${needs[@]}" >/dev/null
	fi
	exec unshare --net --mount "$0" --inside "$binary"
fi

# shellcheck source=packaging/test/lib.sh
. packaging/test/lib.sh
connector=$2

ip link set lo up
for address in 192.0.2.1/32 192.0.2.5/32 192.0.2.7/32; do ip address add "$address" dev lo; done
for address in 2001:db8::1/128 2001:db8::7/128; do ip address add "$address" dev lo nodad; done

# --- the Connector
mkdir "$work/connector"
settings=$work/connector/iofog-connector.conf
echo '{"ports": ["30000-30999"], "apiport": 8443, "trustproxy": ["127.0.0.9"]}' >"$settings"
step "a certificate" "$connector" cert --config "$settings" --name relay.test --address 192.0.2.1 --address 2001:db8::1
relay_cert=$work/connector/server-cert.pem
background connector "$connector" start --config "$settings"
step "the Connector runs" until_true "$connector" status --config "$settings"

# expose NAME PORT LOCALPORT [OPTIONS]: a mapping whose users come to PORT, and an agent for it.
expose() {
	local name=$1 port=$2 local_port=$3 added
	shift 3
	added=$("$connector" mapping add --config "$settings" --name "$name" --port2 "$port" "$@")
	port1=$(sed -n 's/^agents\tport //p' <<<"$added")
	sed -n 's/^passcode 1\t//p' <<<"$added" >"$work/$name.passcode"
	background "agent-$name" "$connector" agent --connector "127.0.0.1:$port1" --ca "$relay_cert" \
		--passcode-file "$work/$name.passcode" --to "127.0.0.1:$local_port" --connections 4
	until_true has_agents "$name"
	echo "ok: mapping $name: $*"
}
has_agents() { "$connector" mapping show --config "$settings" "$1" | grep -q '^agents.4 (4 free'; }

# --- OpenSSH
start_ssh
expose ssh 30022 2222 --users plain
echo "[192.0.2.1]:30022 $(cat "$work/ssh/host.pub")" >"$work/ssh/known"
options=(-F none -o "UserKnownHostsFile=$work/ssh/known" -o StrictHostKeyChecking=yes -o BatchMode=yes -i "$work/ssh/user")
head -c 100M /dev/urandom >"$work/100M"
same() { cmp "$work/100M" "$1" && rm "$1"; }
# shellcheck disable=SC2016 # the other side expands it
fact "ssh runs a command, with the service's host key" "hello from 127.0.0.1" \
	ssh "${options[@]}" -p 30022 root@192.0.2.1 'echo "hello from ${SSH_CLIENT%% *}"'
step "scp of 100 MB to the service" scp "${options[@]}" -P 30022 "$work/100M" "root@192.0.2.1:$work/there"
step "is complete" same "$work/there"
step "scp of 100 MB from the service" scp "${options[@]}" -P 30022 "root@192.0.2.1:$work/100M" "$work/here"
step "is complete" same "$work/here"
printf 'put %s %s\nget %s %s\n' "$work/100M" "$work/up" "$work/100M" "$work/down" >"$work/batch"
step "sftp of 100 MB in both directions" sftp "${options[@]}" -P 30022 -b "$work/batch" root@192.0.2.1
step "is complete upwards" same "$work/up"
step "is complete downwards" same "$work/down"

# --- nginx, with its own certificate and with proxy_protocol
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=service.test \
	-addext subjectAltName=DNS:service.test -keyout "$work/service-key.pem" -out "$work/service.pem" 2>/dev/null
cat >"$work/nginx.conf" <<-CONFIG
	daemon off;
	pid $work/nginx.pid;
	error_log $work/nginx-error.log;
	events {}
	http {
		client_body_temp_path $work/t1; proxy_temp_path $work/t2; fastcgi_temp_path $work/t3;
		uwsgi_temp_path $work/t4; scgi_temp_path $work/t5;
		log_format who '\$proxy_protocol_addr \$proxy_protocol_port';
		access_log off;
		server {
			listen 127.0.0.1:8443 ssl;
			ssl_certificate $work/service.pem; ssl_certificate_key $work/service-key.pem;
			location / { return 200 "end to end\n"; }
			location /big { alias $work/100M; }
		}
		server {
			listen 127.0.0.1:8081 proxy_protocol;
			access_log $work/nginx-who.log who;
			location / { return 200 "\$proxy_protocol_addr to port \$proxy_protocol_server_port\n"; }
		}
		server {
			listen 127.0.0.1:8444 ssl proxy_protocol;
			ssl_certificate $work/service.pem; ssl_certificate_key $work/service-key.pem;
			location / { return 200 "\$proxy_protocol_addr end to end\n"; }
		}
	}
CONFIG
chmod 755 "$work" && chmod 644 "$work/100M"
sed -i 's/8443 ssl;/9443 ssl;/' "$work/nginx.conf"
background nginx nginx -c "$work/nginx.conf"
step "nginx runs" until_true listens 9443

expose tls 30443 9443 --users plain
at() { curl -sS --fail --resolve "service.test:$1:192.0.2.1" "${@:2}"; }
fact "end-to-end TLS: curl trusts nginx's certificate" "end to end" at 30443 --cacert "$work/service.pem" https://service.test:30443/
fact "and refuses it with the Connector's" 60 status_of at 30443 --cacert "$relay_cert" https://service.test:30443/
subject() { openssl s_client -connect 192.0.2.1:30443 </dev/null 2>/dev/null | sed -n 's/^subject=//p'; }
fact "the certificate seen is nginx's" "CN = service.test" subject
step "100 MB over it" at 30443 --cacert "$work/service.pem" -o "$work/got" https://service.test:30443/big
step "are complete" same "$work/got"

port=30100
for version in v1 v2; do
	for users in plain tls; do
		expose "who-$version-$users" "$port" 8081 --users "$users" --proxy-protocol "$version"
		if [ "$users" = tls ]; then scheme=https; else scheme=http; fi
		fact "nginx knows the IPv4 user ($version, $users)" "192.0.2.7 to port $port" \
			curl -sS --cacert "$relay_cert" --interface 192.0.2.7 "$scheme://192.0.2.1:$port/"
		fact "nginx knows the IPv6 user ($version, $users)" "2001:db8::7 to port $port" \
			curl -sS --cacert "$relay_cert" --interface 2001:db8::7 "$scheme://[2001:db8::1]:$port/"
		port=$((port + 1))
	done
done
logged() { cut -d ' ' -f 1 "$work/nginx-who.log" | sort | uniq -c | awk '{ printf "%s %s;", $1, $2 }'; }
fact "and has logged these addresses and no others" "4 192.0.2.7;4 2001:db8::7;" logged
expose who-end-to-end 30110 8444 --users plain --proxy-protocol v2
fact "the address, and TLS end to end behind it" "192.0.2.7 end to end" \
	at 30110 --interface 192.0.2.7 --cacert "$work/service.pem" https://service.test:30110/

# --- HAProxy in front
expose balanced 30200 8081 --users plain --proxy-protocol v2 --allow 192.0.2.7 --allow 2001:db8::7
expose balanced-tls 30201 8081 --proxy-protocol v1
expose checked 30202 8081 --users plain --proxy-protocol v2
cat >"$work/haproxy.cfg" <<-CONFIG
	defaults
		mode tcp
		timeout connect 5s
		timeout client 10s
		timeout server 10s
	listen v2
		bind 192.0.2.5:9000
		bind [2001:db8::1]:9000
		server relay 127.0.0.1:30200 source 127.0.0.9 send-proxy-v2
	listen v1
		bind 192.0.2.5:9001
		server relay 127.0.0.1:30200 source 127.0.0.9 send-proxy
	listen tls
		bind 192.0.2.5:9002
		server relay 127.0.0.1:30201 source 127.0.0.9 send-proxy-v2
	listen checked
		bind 192.0.2.5:9004
		server relay 127.0.0.1:30202 source 127.0.0.9 send-proxy-v2 check inter 100ms fall 1 rise 3
	listen untrusted
		bind 192.0.2.5:9003
		server relay 127.0.0.1:30200 source 127.0.0.10 send-proxy-v2
CONFIG
background haproxy haproxy -db -f "$work/haproxy.cfg"
step "HAProxy runs" until_true listens 9003
from() { curl -sS --cacert "$relay_cert" --interface "$@"; }
fact "behind HAProxy, send-proxy-v2" "192.0.2.7 to port 9000" from 192.0.2.7 http://192.0.2.5:9000/
fact "the same over IPv6" "2001:db8::7 to port 9000" from 2001:db8::7 "http://[2001:db8::1]:9000/"
fact "behind HAProxy, send-proxy" "192.0.2.7 to port 9001" from 192.0.2.7 http://192.0.2.5:9001/
fact "with TLS behind the header" "192.0.2.7 to port 9002" \
	from 192.0.2.7 --connect-to 192.0.2.1:30201:192.0.2.5:9002 https://192.0.2.1:30201/
refused() { ! "$@"; }
step "who is not in allow is refused by the address in the header" refused from 192.0.2.1 http://192.0.2.5:9000/
step "a proxy that is not trusted is refused by its own" refused from 192.0.2.7 http://192.0.2.5:9003/
step "and the log says so" grep -q 'user 192.0.2.1:[0-9]* refused' "$work/connector.log"
sleep 2
fact "twenty health checks of HAProxy later, a user is served" "192.0.2.7 to port 9004" from 192.0.2.7 http://192.0.2.5:9004/
health_checks() { grep -c 'broken header' "$work/nginx-error.log" || true; }
fact "and no check has reached nginx" 0 health_checks

# --- Postfix, which speaks first
mkdir -p "$work/postfix" "$work/spool" "$work/postfix-data"
chown postfix "$work/postfix-data"
cat >"$work/postfix/main.cf" <<-CONFIG
	compatibility_level = 3.6
	queue_directory = $work/spool
	data_directory = $work/postfix-data
	maillog_file = $work/mail.log
	maillog_file_prefixes = $work
	inet_interfaces = 127.0.0.1
	myhostname = mail.test
	mydestination = mail.test
	local_recipient_maps =
	smtpd_peername_lookup = no
	alias_maps =
CONFIG
cat >"$work/postfix/master.cf" <<-CONFIG
	127.0.0.1:2525 inet n - n - - smtpd -o smtpd_upstream_proxy_protocol=haproxy
	postlog unix-dgram n - n - 1 postlogd
	pickup unix n - n 60 1 pickup
	cleanup unix n - n - 0 cleanup
	qmgr unix n - n 300 1 qmgr
	rewrite unix - - n - - trivial-rewrite
	anvil unix - - n - 1 anvil
	discard unix - - n - - discard
	bounce unix - - n - 0 bounce
	defer unix - - n - 0 bounce
	trace unix - - n - 0 bounce
	local unix - n n - - discard
	proxymap unix - - n - - proxymap
	error unix - - n - - error
	retry unix - - n - - error
CONFIG
step "Postfix runs" postfix -c "$work/postfix" start
for version in v1 v2; do
	expose "smtp-$version" "$port" 2525 --users plain --proxy-protocol "$version"
	for from in "192.0.2.7 192.0.2.1" "2001:db8::7 [2001:db8::1]"; do
		user=${from% *} to=${from#* }
		mail() {
			printf 'Subject: test\r\n\r\nhello\r\n' | curl -sS --interface "$user" --url "smtp://$to:$port" \
				--mail-from user@example.org --mail-rcpt root@mail.test -T -
		}
		step "Postfix greets and takes a mail from $user ($version)" mail
		step "and has logged its address" until_true grep -q "client=unknown\[$user\]" "$work/mail.log"
	done
	: >"$work/mail.log"
	port=$((port + 1))
done

# --- PostgreSQL, with TLS of its own
postgres=$(find /usr/lib/postgresql/*/bin -maxdepth 0 | sort -V | tail -n 1)
mkdir "$work/postgres" && chown postgres "$work/postgres"
as_postgres() { setpriv --reuid postgres --regid postgres --init-groups "$@"; }
step "a database" as_postgres "$postgres/initdb" -D "$work/postgres" -A trust
install -o postgres -m 600 "$work/service-key.pem" "$work/postgres/server.key"
install -o postgres -m 600 "$work/service.pem" "$work/postgres/server.crt"
background postgres setpriv --reuid postgres --regid postgres --init-groups "$postgres/postgres" -D "$work/postgres" -p 5432 \
	-c listen_addresses=127.0.0.1 -c "unix_socket_directories=$work/postgres" -c ssl=on
step "PostgreSQL runs" until_true listens 5432
expose sql 30300 5432 --users plain
query() {
	PGSSLROOTCERT=$work/service.pem psql -XAt "host=service.test hostaddr=192.0.2.1 port=30300 user=postgres dbname=postgres sslmode=verify-full" \
		-c "select version from pg_stat_ssl where pid = pg_backend_pid()" -c "select sum(length(repeat('x', 1000))) from generate_series(1, 20000)"
}
fact "psql, with PostgreSQL's own certificate" $'TLSv1.3\n20000000' query

# --- MariaDB, which speaks first, and knows its users by their addresses
mkdir "$work/mariadb" && chown mysql "$work/mariadb"
cat >"$work/mariadb.sql" <<-SQL
	create user 'test'@'192.0.2.7';
	create user 'test'@'2001:db8::1';
SQL
chmod 644 "$work/mariadb.sql"
step "another database" mariadb-install-db --no-defaults --user=mysql --datadir="$work/mariadb" --skip-test-db
background mariadb mariadbd --no-defaults --user=mysql --datadir="$work/mariadb" --socket="$work/mariadb/socket" \
	--pid-file="$work/mariadb/pid" --bind-address=127.0.0.1 --port=3306 --skip-name-resolve \
	--proxy-protocol-networks=127.0.0.1 --init-file="$work/mariadb.sql"
step "MariaDB runs" until_true listens 3306
# The client cannot be told which address to use: over IPv6 it has the Connector's.
ip route replace local 192.0.2.1 dev lo table local src 192.0.2.7
for version in v1 v2; do
	expose "mariadb-$version" "$port" 3306 --users plain --proxy-protocol "$version"
	for from in "192.0.2.7 192.0.2.1" "2001:db8::1 2001:db8::1"; do
		user=${from% *} to=${from#* }
		sql() {
			mariadb --no-defaults --host="$to" --port="$port" --user=test --skip-column-names --batch \
				-e "select user(), length(repeat('x', 10000000))"
		}
		fact "mariadb from $user ($version)" "test@$user	10000000" sql
	done
	port=$((port + 1))
done

"$connector" mapping list --config "$settings"
echo "all is well"
