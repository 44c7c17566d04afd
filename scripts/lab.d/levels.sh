# Three levels of routers: their nodes, links and programs. To be sourced, not run.
# shellcheck shell=bash disable=SC2153,SC2034  # NAME, DIR and the sizes are the lab's

LEVEL_ROUTERS=(network system1 system2 site1 site2 site3)
LEVEL_SERVERS=6

# Address of a router on the fabric and on the management network: the last number of both.
number_of() {
    case $1 in network) echo 1 ;; system*) echo $((1 + ${1#system})) ;; site*) echo $((3 + ${1#site})) ;; esac
}
level_of() { printf '%s' "${1%%[0-9]*}"; }
parent_of() {
    case $1 in network) ;; system*) echo network ;; site3) echo system2 ;; *) echo system1 ;; esac
}
# Children that are routers, or servers.
children_of() {
    case $1 in
    network) echo system1 system2 ;;
    system1) echo site1 site2 ;;
    system2) echo site3 ;;
    site*) echo "server$((2 * ${1#site} - 1))" "server$((2 * ${1#site}))" ;;
    esac
}
# The site of a server, by number.
site_of() { echo "site$((($1 + 1) / 2))"; }
# Last number of a child's address on the fabric.
host_of() { case $1 in server*) echo $((10 + ${1#server})) ;; *) number_of "$1" ;; esac; }

# Clients' packets come to the network's router by a link of its own; all else is on the fabric. Sessions go by a network
# of their own, 10.255.0.0/24, that the kernel has: slrd has the fabric's links for itself.
make_levels_network() {
    local node server
    make_nodes
    link client eth0 gateway client 1500
    link gateway vips network clients 1500
    make_switch switch
    ip -n "$NAME-switch" link add br1 up type bridge mcast_snooping 0
    link gateway fabric switch gateway "$FABRIC_MTU"
    ip -n "$NAME-switch" link set gateway master br0
    on gateway ethtool -K vips tx off tso off gso off >/dev/null
    for node in "${LEVEL_ROUTERS[@]}"; do
        on "$node" sysctl -q -w net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
        link "$node" fabric switch "$node" "$FABRIC_MTU"
        ip -n "$NAME-switch" link set "$node" master br0
        on switch ethtool -K "$node" tx off tso off gso off >/dev/null
        manage "$node" "$(number_of "$node")"
    done
    address_clients
    route gateway 192.0.2.0/24 1 1
    route gateway 2001:db8:80::/64 1 1
    for ((server = 1; server <= SERVERS; server++)); do make_server "$server" switch 2; done
}

start_levels() {
    local node
    dirname "$SLRD" >"$DIR/programs"
    for node in "${LEVEL_ROUTERS[@]}"; do
        mkdir "$DIR/$node"
        issue "$node" "$(level_of "$node")"
        level_configuration "$node" >"$DIR/$node/slrd.yaml"
        start "$node" "$node" "$SLRD" --config "$DIR/$node/slrd.yaml"
        echo $! >"$DIR/$node/slrd.pid"
    done
    for node in "${LEVEL_ROUTERS[@]}"; do
        until_true 60 "slrd on $node" level_forwards "$node"
        kill -0 "$(<"$DIR/$node/slrd.pid")" 2>/dev/null || die 1 "slrd did not start: $(tail -n 1 "$DIR/$node.log")"
    done
}

# True as well when slrd has ended: there is nothing to wait for.
level_forwards() { grep -q 'workers are forwarding' "$DIR/$1.log" || ! kill -0 "$(<"$DIR/$1/slrd.pid")"; }

# level_configuration NODE
level_configuration() {
    local node=$1 own parent above='' child names='' ports='' sessions
    own=$(number_of "$node") parent=$(parent_of "$node")
    if [[ -n $parent ]]; then above="10.0.2.$(number_of "$parent"), \"2001:db8:2::$(number_of "$parent")\""; fi
    cat <<END
# The router $node of lab $NAME, made by scripts/lab. dpdk-config/lab.yaml and system.yaml explain the keys.
router:
  name: $node
  level: $(level_of "$node")
  tunnel_addresses: [10.0.2.$own, "2001:db8:2::$own"]
  parents: [$above]
dpdk: { hugepages: never, memory: 96MiB, buffers: 4096, file_prefix: $NAME-$node }
# Six routers share this machine's processors.
workers: { count: 1, idle: sleep }
ports:
END
    if [[ $node == network ]]; then
        cat <<END
  - name: clients
    device: "net_af_packet1,iface=clients"
    mtu: 1500
    addresses: [10.0.1.1/24, "2001:db8:1::1/64"]
END
    fi
    cat <<END
  - name: fabric
    device: "net_af_packet0,iface=fabric"
    mtu: $FABRIC_MTU
    addresses: [10.0.2.$own/24, "2001:db8:2::$own/64"]
routes:
END
    if [[ $node == network ]]; then
        printf '  - { prefix: 0.0.0.0/0, via: 10.0.1.254 }\n  - { prefix: "::/0", via: "2001:db8:1::254" }\n'
    else
        printf '  - { prefix: 0.0.0.0/0, via: 10.0.2.254 }\n  - { prefix: "::/0", via: "2001:db8:2::254" }\n'
    fi
    cat <<END
flows: { capacity_v4: 20000, capacity_v6: 20000 }
cluster: { key: $(openssl rand -hex 16), table_size: 4099 }
shortcuts: $SHORTCUTS
control:
  socket: $DIR/$node/slrd.sock
  certificate: $DIR/ca/$node.pem
  key: $DIR/ca/$node.key
  authority: $DIR/ca/ca.pem
  listen: 10.255.0.$own:9478
  interval: 500ms
END
    if [[ -n $parent ]]; then
        printf 'parents: [{ name: %s, address: "10.255.0.%d:9478" }]\n' "$parent" "$(number_of "$parent")"
    fi
    printf 'children:\n'
    for child in $(children_of "$node"); do
        names+="${names:+, }$child"
        printf '  - { name: %s, address: 10.0.2.%d, tunnel: %s, register: required }\n' "$child" "$(host_of "$child")" \
            "$(tunnel)"
    done
    cat <<END
virtual_hosts:
  - name: web
    addresses: [$VIP, "$VIP6"]
    services: [any]
    children: [$names]
END
    if [[ $SELECTION != consistent_hash ]]; then
        printf '    selection: %s\n    cost_function: "%s"\n' "$SELECTION" "$COST"
    fi
    if [[ $node == site* ]]; then printf '    health: { http: { path: /, expect: 200 } }\n'; fi
}

explain_levels() {
    local lab option
    option=$(name_option) lab="scripts/lab exec$option"
    cat <<END
Lab $NAME is up: $(node_list)

  client ── gateway ── network ─┬─ system1 ─┬─ site1 ── server1, server2
                                │           └─ site2 ── server3, server4      (every router is on the fabric, as the
                                └─ system2 ─── site3 ── server5, server6       servers are; what is drawn are tunnels)

  virtual host   $VIP and $VIP6
  configuration  $DIR/NODE/slrd.yaml; certificates in $DIR/ca
  slrd says      $DIR/NODE.log
  shortcuts      $SHORTCUTS

Try:
  $lab client curl http://$VIP/
  $lab network slrctl children
  $lab network slrctl flows
  $lab system1 slrctl top
  $lab site1 sh -c 'curl -s $METRICS | grep shortcut'
  scripts/lab status$option
  scripts/lab down$option
END
}
