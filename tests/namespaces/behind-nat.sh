#!/bin/bash
# Runs docs/behind-nat.md as it is written: its blocks, in their order, each on the machine that it is for.
#
# usage: behind-nat.sh PAGE FOLDER     (see network.sh for where to run it; iofog-connector must be in PATH)
#
# One thing is played: scp copies from the server's home, for no SSH server runs here.
set -euo pipefail
page=$1 folder=$2
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/network.sh"

mkdir -p "$folder"/{bin,server,pi,anywhere}
cat > "$folder/bin/scp" <<END
#!/bin/bash
for from in "\${@:1:\$#-1}"; do cp "$folder/server/\${from#203.0.113.10:}" "\${@: -1}"; done
END
chmod +x "$folder/bin/scp"

# One shell for each machine, which reads the blocks as somebody would type them.
declare -A terminal
for machine in server pi anywhere; do
    mkfifo "$folder/$machine.in"
    (cd "$folder/$machine" &&
        HOME=$PWD PATH=$folder/bin:$PATH exec ip netns exec "$machine" bash -e < "../$machine.in" > "../$machine.out" 2>&1) &
    exec {input}> "$folder/$machine.in"
    terminal[$machine]=$input
done

give_up() {
    echo "$1" >&2
    tail -n 20 "$folder"/*.out "$folder"/*/log "$folder"/*/*/log >&2 || true
    exit 1
}

blocks=0 machine=
while IFS= read -r line; do
    case $line in
    '```sh '*) machine=${line#'```sh '} block= ;;
    '```')
        if [ -n "$machine" ]; then
            blocks=$((blocks + 1))
            printf '%s\ntouch "%s"\n' "$block" "$folder/done.$blocks" >&"${terminal[$machine]}"
            await 20 test -e "$folder/done.$blocks" || give_up "on $machine this did not work: $block"
            # What was started in the background needs a moment, as it does when somebody types.
            case $block in
            *"start --config"*) await 20 ip netns exec server bash -c '</dev/tcp/127.0.0.1/6002' || give_up "no API" ;;
            *"http.server"*) await 20 ip netns exec pi bash -c '</dev/tcp/127.0.0.1/8000' || give_up "no page" ;;
            *"iofog-connector agent"*) await 20 grep -q Authorized "$folder/pi/log" || give_up "not authorized" ;;
            esac
        fi
        machine=
        ;;
    *) block+=$line$'\n' ;;
    esac
done < "$page"

grep -q "Hello from behind NAT" "$folder/anywhere.out" || give_up "the page did not come"
# Behind NAT indeed: nobody gets to the Pi, or to where the service listens, by another way.
if ip netns exec anywhere curl -s --max-time 2 http://203.0.113.1:8000/; then give_up "the service is in the open"; fi
echo "ran $blocks blocks"
