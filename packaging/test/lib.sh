# What the lives of a package share: steps that must succeed, and facts that must hold.

# step DESCRIPTION COMMAND...: the command must succeed; its output is shown if it does not.
step() {
	description=$1
	shift
	if output=$("$@" 2>&1); then
		echo "ok: $description"
	else
		echo "FAILED ($?): $description: $*"
		echo "$output"
		exit 1
	fi
}

# fact DESCRIPTION EXPECTED COMMAND...: the command must print exactly that.
fact() {
	description=$1
	expected=$2
	shift 2
	found=$("$@" 2>&1) || true
	if [ "$found" = "$expected" ]; then
		echo "ok: $description"
	else
		echo "FAILED: $description: expected '$expected', found '$found'"
		exit 1
	fi
}

# needs PROGRAM...: the test is skipped, with a message, where one of them is missing; `root` is the user.
needs() {
	for need in "$@"; do
		if [ "$need" = root ]; then
			[ "$(id -u)" = 0 ] && continue
		else
			command -v "$need" >/dev/null && continue
		fi
		echo "${0##*/}: skipped, it needs $need" >&2
		exit 0
	done
}

gone() { [ ! -e "$1" ]; }

# The exit status of a command, as a word.
status_of() {
	"$@" >/dev/null 2>&1 && echo 0 || echo $?
}

daemon_user() { ps -o user:20= -p "$(cat /run/iofog-connector.pid)"; }

# emulate FORMAT: the kernel has to be told once which emulator runs which processor's programs.
emulate() {
	formats=/proc/sys/fs/binfmt_misc
	[ -e "$formats/register" ] || mount -t binfmt_misc none "$formats"
	[ -e "$formats/$1" ] || cat "/usr/lib/binfmt.d/$1.conf" >"$formats/register"
}
