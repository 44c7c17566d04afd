# A cluster of routers beside each other: their nodes, links and programs. To be sourced, not run.
# shellcheck shell=bash disable=SC2153,SC2034  # NAME, DIR and the sizes are the lab's

cluster_routers() {
    local router
    for ((router = 1; router <= CLUSTER; router++)); do printf 'router%d\n' "$router"; done
}

# Clients' packets come to the routers over a net that all share, by whichever next hops the gateway has; the routers ask
# each other over a network of their own, 10.0.9.0/24, that the kernel has: slrd has the other links for itself.
make_cluster_network() {
    local node router server via='' via6='' bridge
    make_nodes
    link client eth0 gateway client 1500
    make_switch switch
    for bridge in br1 br2; do ip -n "$NAME-switch" link add $bridge up type bridge mcast_snooping 0; done
    link gateway vips switch access 1500
    ip -n "$NAME-switch" link set access master br1
    link gateway fabric switch gateway "$FABRIC_MTU"
    ip -n "$NAME-switch" link set gateway master br0
    on gateway ethtool -K vips tx off tso off gso off >/dev/null
    for ((router = 1; router <= CLUSTER; router++)); do
        node=router$router
        on "$node" sysctl -q -w net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
        link "$node" clients switch "c-$node" 1500
        ip -n "$NAME-switch" link set "c-$node" master br1
        link "$node" servers switch "$node" "$FABRIC_MTU"
        ip -n "$NAME-switch" link set "$node" master br0
        on switch ethtool -K "$node" tx off tso off gso off >/dev/null
        link "$node" manage switch "m-$node" 1500
        ip -n "$NAME-switch" link set "m-$node" master br2
        ip -n "$NAME-$node" address add "10.0.9.$router/24" dev manage
        via+=" nexthop via 10.0.1.$router" via6+=" nexthop via 2001:db8:1::$router"
    done
    address_clients
    # By ports too, so that a client's connections take different ways.
    on gateway sysctl -q -w net.ipv4.fib_multipath_hash_policy=1 net.ipv6.fib_multipath_hash_policy=1
    # shellcheck disable=SC2086
    ip -n "$NAME-gateway" route add 192.0.2.0/24 $via
    # shellcheck disable=SC2086
    ip -n "$NAME-gateway" -6 route add 2001:db8:80::/64 $via6
    for ((server = 1; server <= SERVERS; server++)); do make_server "$server" switch 2; done
}

start_cluster() {
    local node key
    dirname "$SLRD" >"$DIR/programs"
    key=$(openssl rand -hex 16)
    for node in $(cluster_routers); do
        mkdir "$DIR/$node"
        cluster_configuration "${node#router}" "$key" >"$DIR/$node/slrd.yaml"
        start "$node" "$node" "$SLRD" --config "$DIR/$node/slrd.yaml"
        echo $! >"$DIR/$node/slrd.pid"
    done
    for node in $(cluster_routers); do
        until_true 60 "slrd on $node" cluster_forwards "$node"
        kill -0 "$(<"$DIR/$node/slrd.pid")" 2>/dev/null || die 1 "slrd did not start: $(tail -n 1 "$DIR/$node.log")"
    done
    until_true 30 "http://$VIP/" on client curl -sf --max-time 1 -o /dev/null "http://$VIP/"
    until_true 30 "http://[$VIP6]/" on client curl -sf --max-time 1 -o /dev/null "http://[$VIP6]/"
}

# True as well when slrd has ended: there is nothing to wait for.
cluster_forwards() { grep -q 'workers are forwarding' "$DIR/$1.log" || ! kill -0 "$(<"$DIR/$1/slrd.pid")"; }

# cluster_configuration NUMBER KEY
cluster_configuration() {
    local own=$1 router server names='' peers=''
    cat <<END
# Router $own of lab $NAME, made by scripts/lab. dpdk-config/bare-metal.yaml explains the keys.
router: { name: router$own, tunnel_addresses: [10.0.2.$own, "2001:db8:2::$own"] }
dpdk: { hugepages: never, memory: 96MiB, buffers: 4096, file_prefix: $NAME-$own }
ports:
  - name: clients
    device: "net_af_packet0,iface=clients"
    mtu: 1500
    addresses: [10.0.1.$own/24, "2001:db8:1::$own/64"]
  - name: servers
    device: "net_af_packet1,iface=servers"
    mtu: $FABRIC_MTU
    addresses: [10.0.2.$own/24, "2001:db8:2::$own/64"]
routes:
  - { prefix: 0.0.0.0/0, via: 10.0.1.254 }
  - { prefix: "::/0", via: "2001:db8:1::254" }
workers: { count: 1, idle: sleep }
flows: { capacity_v4: 20000, capacity_v6: 20000 }
# Another key on each: a second selection would go elsewhere.
cluster: { key: $(openssl rand -hex 16), table_size: 4099 }
control: { socket: $DIR/router$own/slrd.sock }
children:
END
    for ((server = 1; server <= SERVERS; server++)); do
        names+="${names:+, }server$server"
        printf '  - { name: server%d, address: 10.0.2.%d, tunnel: %s }\n' "$server" $((10 + server)) "$(tunnel)"
    done
    cat <<END
virtual_hosts:
  - name: web
    addresses: [$VIP, "$VIP6"]
    services: [any]
    on_unknown: drop
    children: [$names]
    health: { http: { path: /, expect: 200 }, interval: 1s, timeout: 1s }
recovery:
  ask_workers: on
END
    if [[ $RECOVERY == whohas || $RECOVERY == both ]]; then
        for ((router = 1; router <= CLUSTER; router++)); do
            if ((router != own)); then peers+="${peers:+, }10.0.9.$router:9479"; fi
        done
        printf '  whohas: { listen: 10.0.9.%d:9479, key: %s, peers: [%s] }\n' "$own" "$2" "$peers"
    fi
    if [[ $RECOVERY == echo || $RECOVERY == both ]]; then printf '  echo: { key: %s }\n' "$ECHO_KEY"; fi
}

explain_cluster() {
    local lab option
    option=$(name_option) lab="scripts/lab exec$option"
    cat <<END
Lab $NAME is up: $(node_list)

  client ── gateway ──┬── router1 ──┬── $SERVERS server(s) with nginx      (the routers' slrd has net_af_packet)
                      └── router2 ──┘   ...

  virtual host   $VIP and $VIP6
  configuration  $DIR/router1/slrd.yaml ...
  slrd says      $DIR/router1.log ...
  recovery       $RECOVERY

Try, to send all connections to router 2 and see how they are found again:
  $lab gateway ip route replace 192.0.2.0/24 via 10.0.1.2
  $lab router2 slrctl recovery
  $lab server1 sh -c 'curl -s http://127.0.0.1:9478/metrics | grep echo'
  scripts/lab down$option
END
}
