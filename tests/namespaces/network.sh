# shellcheck shell=bash
# A network of its own: a server and somebody on the internet, and a Pi behind a router that does NAT.
#
#   server 203.0.113.10 ─┐
#                        ├─ internet ─ 203.0.113.1 router 192.168.7.1 ─ 192.168.7.2 pi
#   anywhere 203.0.113.20 ┘
#
# To be sourced by a script that runs in fresh user, network and mount namespaces (unshare -Urnm): nothing of this
# is seen outside, and all of it is gone when the script ends. Needs ip and nft.

mount -t tmpfs none /run
mkdir /run/netns
for name in internet server anywhere router pi; do
    ip netns add "$name"
    ip -n "$name" link set lo up
done

# A cable between two machines: NAME INTERFACE NAME INTERFACE
cable() {
    ip -n "$1" link add "$2" type veth peer name "$4" netns "$3"
    ip -n "$1" link set "$2" up
    ip -n "$3" link set "$4" up
}

ip -n internet link add switch type bridge
ip -n internet link set switch up
for name in server anywhere router; do
    cable internet "$name" "$name" internet
    ip -n internet link set "$name" master switch
done
cable router home pi home
ip -n server addr add 203.0.113.10/24 dev internet
ip -n anywhere addr add 203.0.113.20/24 dev internet
ip -n router addr add 203.0.113.1/24 dev internet
ip -n router addr add 192.168.7.1/24 dev home
ip -n pi addr add 192.168.7.2/24 dev home
ip -n pi route add default via 192.168.7.1

ip netns exec router sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
# What every home router does: addresses are translated on the way out, and nothing comes in unasked.
ip netns exec router nft -f - <<END
table ip nat {
    chain out { type nat hook postrouting priority srcnat; oifname "internet" masquerade; }
}
table ip filter {
    chain forward {
        type filter hook forward priority filter; policy drop;
        iifname "home" accept
        ct state established,related accept
    }
}
END

# Waits until a command succeeds: SECONDS COMMAND...
await() {
    local end=$((SECONDS + $1))
    shift
    until "$@" > /dev/null 2>&1; do
        if ((SECONDS >= end)); then
            echo "waited in vain for: $*" >&2
            return 1
        fi
        sleep 0.1
    done
}
