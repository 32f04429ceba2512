# shellcheck shell=bash
# What the scripts with real programs share: a folder, and programs in the background. Everything ends with the script.

# program_under_test [BINARY]: the one that is named, or the one that was built.
program_under_test() {
	local built found=${1:-}
	for built in target/release target/debug; do
		[ -n "$found" ] || [ ! -x "$built/iofog-connector" ] || found=$PWD/$built/iofog-connector
	done
	echo "${found:?build the program first}"
}

# The rest is for the namespace.
[ "${1:-}" = --inside ] || return 0

work=$(mktemp -d)
chmod 711 "$work"
pids=()

# Called by the trap.
finish() {
	local status=$?
	[ ! -d "$work/postfix" ] || postfix -c "$work/postfix" stop >/dev/null 2>&1 || true
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	wait
	if [ "$status" != 0 ]; then tail -n 20 "$work"/*.log >&2 || true; fi
	rm -rf "$work"
}
trap finish EXIT

# background NAME COMMAND...: runs until the end of this script.
background() {
	local name=$1
	shift
	"$@" >"$work/$name.log" 2>&1 &
	pids+=($!)
}

# until_true COMMAND...: for ten seconds at most.
until_true() {
	local tries=100
	until "$@" >/dev/null 2>&1; do
		((tries--)) || return 1
		sleep 0.1
	done
}

listens() { ss -Hltn "sport = :$1" | grep -q .; }

# An SSH server on port 2222 for root, with the keys $work/ssh/host and $work/ssh/user.
start_ssh() {
	mkdir -p /run/sshd "$work/ssh"
	mount -t tmpfs none /run/sshd && chmod 755 /run/sshd
	ssh-keygen -q -t ed25519 -N '' -f "$work/ssh/host"
	ssh-keygen -q -t ed25519 -N '' -f "$work/ssh/user"
	cat >"$work/ssh/config" <<-CONFIG
		ListenAddress 127.0.0.1:2222
		HostKey $work/ssh/host
		AuthorizedKeysFile $work/ssh/user.pub
		PidFile none
		StrictModes no
		UsePAM no
		PermitRootLogin yes
		MaxStartups 100
		Subsystem sftp internal-sftp
	CONFIG
	chmod 600 "$work/ssh/host"
	background sshd /usr/sbin/sshd -D -e -f "$work/ssh/config"
	step "sshd runs" until_true listens 2222
}
