# Two routers with the address of one: their nodes, links and programs. To be sourced, not run.
# shellcheck shell=bash disable=SC2153,SC2034  # NAME, DIR and the sizes are the lab's

# Clients' packets go to 10.0.1.10 (2001:db8:1::10), whichever router has it. The routers hear each other on that net and on
# 10.255.0.0/24, where the sessions are. With --peer keepalived the second router is none of ours: it only takes part.
make_pair_network() {
    local node router server bridge
    make_nodes
    link client eth0 gateway client 1500
    make_switch switch
    for bridge in br1 br2; do ip -n "$NAME-switch" link add $bridge up type bridge mcast_snooping 0; done
    link gateway vips switch access 1500
    ip -n "$NAME-switch" link set access master br2
    link gateway fabric switch gateway "$FABRIC_MTU"
    ip -n "$NAME-switch" link set gateway master br0
    on gateway ethtool -K vips tx off tso off gso off >/dev/null
    for router in 1 2; do
        node=router$router
        link "$node" clients switch "c-$node" 1500
        ip -n "$NAME-switch" link set "c-$node" master br2
        link "$node" servers switch "$node" "$FABRIC_MTU"
        ip -n "$NAME-switch" link set "$node" master br0
        on switch ethtool -K "$node" tx off tso off gso off >/dev/null
        manage "$node" "$router"
        # slrd speaks on the router's links; the kernel there is to keep silent.
        if [[ $PAIR == slrd || $router == 1 ]]; then
            on "$node" sysctl -q -w net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
        fi
    done
    if [[ $PAIR == keepalived ]]; then address router2 clients 1 2; fi
    address_clients
    route gateway 192.0.2.0/24 1 10
    # keepalived takes part for IPv4 alone.
    if [[ $PAIR == keepalived ]]; then route gateway 2001:db8:80::/64 1 1; else route gateway 2001:db8:80::/64 1 10; fi
    # One client that keeps thousands of connections open.
    on client sysctl -q -w net.ipv4.ip_local_port_range='10000 65000'
    for ((server = 1; server <= SERVERS; server++)); do make_server "$server" switch 2; done
}

start_pair() {
    local router
    dirname "$SLRD" >"$DIR/programs"
    PAIR_KEY=$(openssl rand -hex 16) CLUSTER_KEY=$(openssl rand -hex 16)
    for router in 1 2; do
        mkdir "$DIR/router$router"
        if [[ $PAIR == slrd || $router == 1 ]]; then
            issue "router$router" site
            pair_configuration $router >"$DIR/router$router/slrd.yaml"
            start_paired $router
        else
            keepalived_configuration >"$DIR/router2/keepalived.conf"
            start_keepalived
        fi
    done
    for router in 1 2; do
        if [[ $PAIR == slrd || $router == 1 ]]; then
            until_true 60 "slrd on router$router" pair_forwards router$router
            kill -0 "$(<"$DIR/router$router/slrd.pid")" 2>/dev/null ||
                die 1 "slrd did not start: $(tail -n 1 "$DIR/router$router.log")"
            before_others "$(<"$DIR/router$router/slrd.pid")"
        fi
    done
}

start_paired() {
    start "router$1" "router$1" "$SLRD" --config "$DIR/router$1/slrd.yaml"
    echo $! >"$DIR/router$1/slrd.pid"
}

# before_others PID: where processors are scarce, as keepalived puts itself: a heartbeat that is late is as good as none. Only
# once it runs, since what it does before that takes a processor for longer than the other router of the pair can wait.
before_others() { chrt --all-tasks --fifo --pid 1 "$1"; }

start_keepalived() {
    start router2 router2 keepalived --dont-fork --log-console --vrrp --use-file "$DIR/router2/keepalived.conf" \
        --pid "$DIR/router2/keepalived.pid" --vrrp_pid "$DIR/router2/vrrp.pid"
}

# True as well when slrd has ended: there is nothing to wait for.
pair_forwards() { grep -q 'workers are forwarding' "$DIR/$1.log" || ! kill -0 "$(<"$DIR/$1/slrd.pid")"; }

# pair_configuration NUMBER
pair_configuration() {
    local own=$1 other=$((3 - $1)) server names=''
    cat <<END
# Router $own of lab $NAME, made by scripts/lab. dpdk-config/bare-metal.yaml explains the keys.
router: { name: router$own, tunnel_addresses: [10.0.2.$own, "2001:db8:2::$own"] }
dpdk: { hugepages: never, memory: 96MiB, buffers: 8192, file_prefix: $NAME-$own }
# Two routers share this machine's processors.
workers: { count: 1, idle: sleep }
ports:
  - name: clients
    device: "net_af_packet0,iface=clients"
    mtu: 1500
    addresses: [10.0.1.$own/24, "2001:db8:1::$own/64"]
  - name: servers
    device: "net_af_packet1,iface=servers"
    mtu: $FABRIC_MTU
    addresses: [10.0.2.$own/24, "2001:db8:2::$own/64"]
forwarding: on
routes:
  - { prefix: 0.0.0.0/0, via: 10.0.1.254 }
  - { prefix: "::/0", via: "2001:db8:1::254" }
flows: { capacity_v4: 20000, capacity_v6: 20000 }
cluster: { key: $(if [[ $KEYS == apart ]]; then openssl rand -hex 16; else printf %s "$CLUSTER_KEY"; fi), table_size: 4099 }
control: { socket: $DIR/router$own/slrd.sock, listen: 10.255.0.$own:9478, $(proof "router$own") }
pair:
  access: clients
  id: 51
  virtual_addresses: [10.0.1.10$([[ $PAIR == keepalived ]] || printf ', "2001:db8:1::10"')]
  priority: $((250 - 50 * own))
  heartbeat: $HEARTBEAT
  preempt: $PREEMPT
  virtual_mac: $VIRTUAL_MAC
END
    if [[ $PAIR == slrd ]]; then
        printf '  peer: { listen: 10.255.0.%d:9480, address: 10.255.0.%d:9480, key: %s }\n' "$own" "$other" "$PAIR_KEY"
        if [[ $MIRROR == on ]]; then printf '  mirror_after: 500ms\n'; else printf '  mirror_after: off\n'; fi
    fi
    printf 'children:\n'
    for ((server = 1; server <= SERVERS; server++)); do
        names+="${names:+, }server$server"
        printf '  - { name: server%d, address: 10.0.2.%d, tunnel: %s, register: optional }\n' "$server" \
            $((10 + server)) "$(tunnel)"
    done
    cat <<END
virtual_hosts:
  - name: web
    addresses: [$VIP, "$VIP6"]
    services: [any]
    children: [$names]
    health: { http: { path: /, expect: 200 }, interval: 1s, timeout: 1s }
  # Both connections of a measurement go to one server.
  - name: iperf3
    addresses: [$VIP]
    services: [tcp/5201, udp/5201]
    flow: source
    children: [$names]
END
}

# keepalived_configuration: of the lesser priority.
keepalived_configuration() {
    local seconds
    seconds=$(awk -v ms="${HEARTBEAT%ms}" 'BEGIN { printf "%.2f", ms / 1000 }')
    cat <<END
global_defs {
    router_id router2
    vrrp_version 3
}
vrrp_instance pair {
    state BACKUP
    interface clients
    virtual_router_id 51
    priority 150
    advert_int $seconds
    virtual_ipaddress { 10.0.1.10/24 }
}
END
}

explain_pair() {
    local lab option
    option=$(name_option) lab="scripts/lab exec$option"
    cat <<END
Lab $NAME is up: $(node_list)

  client ── gateway ─── 10.0.1.10 ──┬── router1 ($([[ $PAIR == slrd ]] && echo 'slrd, the greater' || echo slrd)) ──┬── $SERVERS server(s) with nginx
                                    └── router2 ($PAIR) ───────────┘

  virtual host   $VIP and $VIP6
  configuration  $DIR/router1/ and $DIR/router2/
  they say       $DIR/router1.log and $DIR/router2.log

Try, to see the other one take over:
  $lab router1 slrctl ha
  $lab router1 slrctl ha standby
  $lab gateway ip neighbour show 10.0.1.10
  kill -9 \$(cat $DIR/router1/slrd.pid)
  scripts/lab down$option
END
}
