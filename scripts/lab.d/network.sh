# The nodes of scripts/lab and the links between them. To be sourced, not run.
# shellcheck shell=bash disable=SC2153  # NAME, DIR and the sizes are the lab's

nodes() {
    local server
    printf '%s\n' client gateway switch
    if ((CLUSTER > 0)); then
        cluster_routers
    elif [[ -n $PAIR ]]; then
        printf 'router1\nrouter2\n'
    elif ((LEVELS == 3)); then
        printf '%s\n' "${LEVEL_ROUTERS[@]}"
    else
        printf 'router\n'
    fi
    if [[ -n $NARROW ]]; then printf '%s\n' west east; fi
    for ((server = 1; server <= SERVERS; server++)); do printf 'server%d\n' "$server"; done
}

# The namespaces of this lab that exist, whatever became of it. No other lab's name starts with ours and ends like this.
namespaces() {
    ip netns list | cut -d' ' -f1 |
        grep -xE -- "$NAME-(client|gateway|router[0-9]*|switch|west|east|network|system[0-9]+|site[0-9]+|server[0-9]+)" || true
}

# on NODE COMMAND...
on() {
    local node=$1
    shift
    ip netns exec "$NAME-$node" "$@"
}

# The namespaces, and what all of them have in common.
make_nodes() {
    local node
    while read -r node; do
        ip netns add "$NAME-$node"
        # Replies come back another way than requests went.
        on "$node" sysctl -q -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
            net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
        ip -n "$NAME-$node" link set lo up
    done <"$DIR/nodes"
    for node in gateway west east; do
        if grep -qx $node "$DIR/nodes"; then
            on $node sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
        fi
    done
}

make_network() {
    local server side=switch net=2
    make_nodes
    # slrd speaks on the router's links; the kernel there is to keep silent.
    on router sysctl -q -w net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1

    link client eth0 gateway client 1500
    link gateway vips router clients 1500
    make_switch switch
    ip -n "$NAME-switch" link add br1 up type bridge mcast_snooping 0
    manage router 1
    link router servers switch router "$FABRIC_MTU"
    link gateway fabric switch gateway "$FABRIC_MTU"
    ip -n "$NAME-switch" link set router master br0
    ip -n "$NAME-switch" link set gateway master br0
    # What a network card would do must be done before slrd gets a frame: checksums, and no frames above the MTU.
    on gateway ethtool -K vips tx off tso off gso off >/dev/null
    on switch ethtool -K router tx off tso off gso off >/dev/null

    address_clients
    route gateway 192.0.2.0/24 1 1
    route gateway 2001:db8:80::/64 1 1
    if [[ -n $NARROW ]]; then
        make_narrow
        side=east net=3
    fi
    for ((server = 1; server <= SERVERS; server++)); do make_server "$server" $side $net; done
}

# make_switch NODE
make_switch() { ip -n "$NAME-$1" link add br0 mtu "$FABRIC_MTU" up type bridge mcast_snooping 0; }

# The servers move to a net of their own, two routers away: each of these meets packets that are too long for the link
# between them, those in tunnels the one, the servers' replies the other.
make_narrow() {
    link west fabric switch west "$FABRIC_MTU"
    ip -n "$NAME-switch" link set west master br0
    link west narrow east narrow "$NARROW"
    make_switch east
    address west fabric 2 253
    address west narrow 4 1
    address east narrow 4 2
    address east br0 3 254
    route gateway 10.0.3.0/24 2 253
    route gateway 2001:db8:3::/64 2 253
    route west default 2 254
    route west 10.0.3.0/24 4 2
    route west 2001:db8:3::/64 4 2
    route east default 4 1
}

# The client and the gateway, which are alike in every lab.
address_clients() {
    address client eth0 0 2
    address gateway client 0 1
    address gateway vips 1 254
    address gateway fabric 2 254
    route client default 0 1
}

# make_server NUMBER SWITCH NET
make_server() {
    local node=server$1
    link "$node" eth0 "$2" "$node" "$FABRIC_MTU"
    ip -n "$NAME-$2" link set "$node" master br0
    address "$node" eth0 "$3" $((10 + $1))
    route "$node" default "$3" 254
    ((CLUSTER > 0)) || manage "$node" $((10 + $1))
}

# manage NODE HOST: joins a node to the network of the sessions.
manage() {
    link "$1" management switch "m-$1" 1500
    ip -n "$NAME-switch" link set "m-$1" master br1
    ip -n "$NAME-$1" address add "10.255.0.$2/24" dev management
}

# link NODE INTERFACE NODE INTERFACE MTU
link() {
    ip link add "$2" netns "$NAME-$1" mtu "$5" type veth peer name "$4" netns "$NAME-$3" mtu "$5"
    ip -n "$NAME-$1" link set "$2" up
    ip -n "$NAME-$3" link set "$4" up
}

# address NODE INTERFACE NET HOST: of both families.
address() {
    ip -n "$NAME-$1" address add "10.0.$3.$4/24" dev "$2"
    ip -n "$NAME-$1" address add "2001:db8:$3::$4/64" dev "$2" nodad
}

# route NODE PREFIX|default NET HOST: by way of that host, in the prefix's family, or in both.
route() {
    if [[ $2 != *:* ]]; then ip -n "$NAME-$1" route add "$2" via "10.0.$3.$4"; fi
    if [[ $2 == *:* || $2 == default ]]; then ip -n "$NAME-$1" -6 route add "$2" via "2001:db8:$3::$4"; fi
}

# Ends what runs in the lab's namespaces, removes these, and what else the lab has made.
take_down() {
    local namespace try pid pids
    for namespace in $(namespaces); do
        for ((try = 0; try < 50; try++)); do
            pids=$(ip netns pids "$namespace")
            [[ -n $pids ]] || break
            for pid in $pids; do
                if ((try < 30)); then kill "$pid" 2>/dev/null || true; else kill -KILL "$pid" 2>/dev/null || true; fi
            done
            sleep 0.1
        done
        ip netns del "$namespace" || true
    done
    remove_groups
    if [[ -L $DIR/www ]]; then rm -rf "$(readlink "$DIR/www")"; fi
    rm -rf "$DIR"
    if rmdir /run/slr-lab 2>/dev/null; then restore_backlog "$LABS_BACKLOG"; fi
}
