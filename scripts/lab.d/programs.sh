# What runs on the nodes of scripts/lab. To be sourced, not run.
# shellcheck shell=bash disable=SC2153  # NAME, DIR and the sizes are the lab's

METRICS=http://127.0.0.1:9477/metrics

# start NODE LABEL COMMAND...: keeps it running until the lab goes down; its words go to LABEL.log.
start() {
    local node=$1 log=$DIR/$2.log
    shift 2
    (join_group "$node" && exec ip netns exec "$NAME-$node" setsid "$@" >>"$log" 2>&1 </dev/null) &
}

# The lab's control group, where such can be made (version 2, mounted beside version 1 or alone).
group() {
    local root
    root=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
    if [[ -n $root && -w $root/cgroup.procs ]]; then printf '%s/slr-lab-%s' "$root" "$NAME"; fi
}

# A control group for each server, seen in namespaces at $DIR/groups: /sys is another one there.
make_groups() {
    local server group
    group=$(group)
    if [[ -z $group ]]; then return; fi
    for ((server = 1; server <= SERVERS; server++)); do mkdir -p "$group/server$server"; done
    mkdir "$DIR/groups"
    mount --bind "$group" "$DIR/groups"
}

# join_group NODE: what this process becomes counts for the node's load.
join_group() { if [[ -e $DIR/groups/$1 ]]; then echo "$BASHPID" >"$DIR/groups/$1/cgroup.procs"; fi; }

remove_groups() {
    local group
    if mountpoint -q "$DIR/groups"; then umount "$DIR/groups"; fi
    group=$(group)
    if [[ -n $group && -e $group ]]; then find "$group" -depth -type d -exec rmdir {} + || true; fi
}

# issue NODE LEVEL: a certificate from the lab's own authority, which is made with the first one.
issue() {
    [[ -e $DIR/ca ]] || "$SLRCTL" ca init --directory "$DIR/ca" --name "lab $NAME" >/dev/null
    "$SLRCTL" ca issue "$1" --level "$2" --offer "$VIP/32" --offer "$VIP6/128" --directory "$DIR/ca" >/dev/null
}

# proof NODE: the keys of its configuration by which it shows who it is.
proof() { printf 'certificate: %s.pem, key: %s.key, authority: %s/ca.pem' "$DIR/ca/$1" "$DIR/ca/$1" "$DIR/ca"; }

find_slrd() {
    local build newest=''
    if [[ -z $SLRD ]]; then
        for build in release debug; do
            if [[ -x $TARGET/$build/slrd && $TARGET/$build/slrd -nt $newest ]]; then newest=$TARGET/$build/slrd; fi
        done
        if [[ -z $newest ]]; then
            need_rust
            printf 'Building slrd (the first time takes a few minutes)\n'
            (cd "$ROOT" && cargo build --locked --release --bins)
            newest=$TARGET/release/slrd
        fi
        SLRD=$newest
    fi
    [[ -x $SLRD ]] || die 2 "$SLRD is no program"
    AGENT=$(dirname "$SLRD")/slr-host
    SLRCTL=$(dirname "$SLRD")/slrctl
    [[ -x $AGENT && -x $SLRCTL ]] || die 2 "slr-host or slrctl is not beside $SLRD; build it with cargo build --bins"
}

# Files of pseudo-random bytes, alike in every lab. On the disk, because /run is memory on most machines.
make_files() {
    local www size key=00000000000000000000000000000000
    www=$(mktemp -d "/var/tmp/$NAME.XXXXXX")
    chmod 755 "$www"
    ln -s "$www" "$DIR/www"
    mkdir "$www/upload"
    for size in "${SIZES[@]}"; do
        head -c "$size" /dev/zero | openssl enc -aes-128-ctr -nosalt -K $key -iv $key | tee "$www/$size" |
            sha256sum | sed "s/-$/$size/"
    done >"$www/SHA256SUMS"
}

start_servers() {
    local server
    make_groups
    for ((server = 1; server <= SERVERS; server++)); do
        mkdir "$DIR/server$server"
        start_agent "$server"
        start_nginx "server$server"
        start_names "server$server"
        start "server$server" "server$server-iperf3" iperf3 --server
    done
    for ((server = 1; server <= SERVERS; server++)); do
        until_true 20 "slr-host on server$server" agent_serves "server$server"
        [[ -e $DIR/server$server/agent.sock ]] ||
            die 1 "slr-host did not start: $(tail -n 1 "$DIR/server$server-agent.log")"
    done
}

# start_agent NUMBER: slr-host.
start_agent() {
    local node=server$1
    ((CLUSTER > 0)) || issue "$node" 0
    agent_configuration "$1" >"$DIR/$node/agent.yaml"
    start "$node" "$node-agent" "$AGENT" --config "$DIR/$node/agent.yaml"
    echo $! >"$DIR/$node/agent.pid"
}

# True as well when slr-host has ended: there is nothing to wait for.
agent_serves() {
    grep -q 'slr-host: .* serves ' "$DIR/$1-agent.log" || ! kill -0 "$(<"$DIR/$1/agent.pid")"
}

# How tunnels are taken off on the first server.
agent_way() { sed -n 's/^slr-host: decapsulation by \([a-z]*\):.*/\1/p' "$DIR/server1-agent.log"; }

# agent_configuration NUMBER
agent_configuration() {
    local net=2 routers='10.0.2.1, "2001:db8:2::1"'
    if [[ -n $NARROW ]]; then net=3; fi
    # Whichever router the network has sent a connection to; shortcuts come from whichever level.
    if ((CLUSTER > 0 || LEVELS == 3)) || [[ -n $PAIR ]]; then routers='10.0.2.0/29, "2001:db8:2::/125"'; fi
    cat <<END
# The agent of server$1 of lab $NAME, made by scripts/lab. dpdk-config/host.yaml explains the keys.
agent: { name: server$1, tunnel_addresses: [10.0.$net.$((10 + $1)), "2001:db8:$net::$((10 + $1))"] }
interfaces: [eth0]
routers: [$routers]
decapsulation: $WAY
tunnels: [$(tunnel)]
virtual_hosts:
  - name: web
    addresses: [$VIP, "$VIP6"]
    health: { tcp: { port: 80 } }
$(loaded "$1")
drain: { timeout: ${DRAIN}s }
$(above "$1")
state: $DIR/server$1/state
END
    if [[ -z $LOAD && -e $DIR/groups ]]; then printf 'load: { cgroup: %s/groups/server%d }\n' "$DIR" "$1"; fi
    if ((CLUSTER > 0)) && [[ $RECOVERY == echo || $RECOVERY == both ]]; then
        printf 'recovery: { echo: { key: %s } }\n' "$ECHO_KEY"
    fi
}

# loaded NUMBER: how loaded a server is, where the lab has an expression for that; application is what its file says.
loaded() {
    if [[ -z $LOAD ]]; then return; fi
    echo 0.0 >"$DIR/server$1/load"
    printf '    application: { file: %s/server%d/load }\n    load: "%s"\nload: { interval: 250ms }' "$DIR" "$1" "$LOAD"
}

# above NUMBER: who a server's router is and how it shows who it is; those of a cluster hear of servers by their checks.
above() {
    local node=server$1 parent=$NAME at=1
    if ((CLUSTER > 0)); then
        printf 'control: { socket: %s/%s/agent.sock }\n' "$DIR" "$node"
        return
    fi
    if ((LEVELS == 3)); then
        parent=$(site_of "$1")
        at=$(number_of "$parent")
    fi
    if [[ -n $PAIR ]]; then
        printf 'parents:\n  - { name: router1, address: 10.255.0.1:9478 }\n'
        if [[ $PAIR == slrd ]]; then printf '  - { name: router2, address: 10.255.0.2:9478 }\n'; fi
    else
        printf 'parents: [{ name: %s, address: 10.255.0.%d:9478 }]\n' "$parent" "$at"
    fi
    printf 'control: { socket: %s/%s/agent.sock, %s }\n' "$DIR" "$node" "$(proof "$node")"
}

# The kind of tunnel, as configurations name it.
tunnel() {
    case $TUNNEL in
    gue1) printf '{ gue: { variant: 1 } }' ;;
    mpls) printf '{ mpls: { label: 1000 } }' ;;
    *) printf '%s' "$TUNNEL" ;;
    esac
}

# start_names NODE: a name server, over UDP, that knows who.lab.
start_names() {
    start "$1" "$1-dnsmasq" dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --pid-file \
        --user=root --log-facility=- --txt-record=who.lab,"$1"
}

# start_nginx NODE
start_nginx() {
    local own=$DIR/$1
    cat >"$own/nginx.conf" <<END
user root;
worker_processes 1;
daemon off;
pid $own/nginx.pid;
error_log stderr;
events { worker_connections 4096; }
http {
    access_log off;
    sendfile on;
    keepalive_requests 1000000;
    keepalive_timeout 1d;
    client_max_body_size 0;
    client_body_temp_path $DIR/www/body-$1;
    proxy_temp_path $own/proxy;
    fastcgi_temp_path $own/fastcgi;
    scgi_temp_path $own/scgi;
    uwsgi_temp_path $own/uwsgi;
    default_type application/octet-stream;
    server {
        listen 80 backlog=4096;
        listen [::]:80 backlog=4096;
        root $DIR/www/;
        add_header Server-Name $1;
        location = / {
            default_type text/plain;
            return 200 "$1 serves \$remote_addr at \$server_addr\n";
        }
        location /upload/ { dav_methods PUT DELETE; }
    }
}
END
    start "$1" "$1-nginx" nginx -e stderr -c "$own/nginx.conf" -p "$own"
}

start_router() {
    issue "$NAME" site
    configuration >"$DIR/slrd.yaml"
    dirname "$SLRD" >"$DIR/programs"
    start router slrd "$SLRD" --config "$DIR/slrd.yaml"
    ROUTER=$!
    echo $ROUTER >"$DIR/slrd.pid"
    until_true 30 slrd router_forwards
    kill -0 "$ROUTER" 2>/dev/null || die 1 "slrd did not start: $(tail -n 1 "$DIR/slrd.log")"
}

until_served() {
    until_true 20 "http://$VIP/" on client curl -sf --max-time 1 -o /dev/null "http://$VIP/"
    until_true 20 "http://[$VIP6]/" on client curl -sf --max-time 1 -o /dev/null "http://[$VIP6]/"
}

# True as well when slrd has ended: there is nothing to wait for.
router_forwards() { grep -q 'workers are forwarding' "$DIR/slrd.log" || ! kill -0 "$ROUTER"; }

# device NUMBER INTERFACE
device() {
    case $DRIVER in
    net_af_packet) printf '%s%d,iface=%s,qpairs=%d' "$DRIVER" "$1" "$2" "$WORKERS" ;;
    net_af_xdp) printf '%s%d,iface=%s,queue_count=%d' "$DRIVER" "$1" "$2" "$WORKERS" ;;
    esac
}

configuration() {
    local server net=2 names=''
    if [[ -n $NARROW ]]; then net=3; fi
    cat <<END
# The router of lab $NAME, made by scripts/lab. dpdk-config/lab.yaml explains the keys.
router: { name: $NAME, tunnel_addresses: [10.0.2.1, "2001:db8:2::1"] }
dpdk: { memory: 256MiB, buffers: $((8192 * WORKERS)), file_prefix: $NAME }
workers: { count: $WORKERS, idle: sleep }
ports:
  - { name: clients, device: "$(device 0 clients)", mtu: 1500, addresses: [10.0.1.1/24, "2001:db8:1::1/64"] }
  - name: servers
    device: "$(device 1 servers)"
    mtu: $FABRIC_MTU
    # Nobody is in 10.64.0.0/15: next hops that do not answer, for trying out.
    addresses: [10.0.2.1/24, "2001:db8:2::1/64", 10.64.0.1/15]
forwarding: on
routes:
  - { prefix: 0.0.0.0/0, via: 10.0.1.254 }
  - { prefix: "::/0", via: "2001:db8:1::254" }
END
    if [[ -n $NARROW ]]; then
        cat <<END
  - { prefix: 10.0.3.0/24, via: 10.0.2.253 }
  - { prefix: "2001:db8:3::/64", via: "2001:db8:2::253" }
END
    fi
    printf 'flows: { capacity_v4: 100000, capacity_v6: 100000 }\n'
    printf 'cluster: { key: %s }\n' "$(openssl rand -hex 16)"
    printf 'children:\n'
    for ((server = 1; server <= SERVERS; server++)); do
        names+="${names:+, }server$server"
        if ((server % 2)); then
            printf '  - { name: server%d, address: 10.0.%d.%d, tunnel: %s, register: required }\n' \
                "$server" $net $((10 + server)) "$(tunnel)"
        else
            printf '  - { name: server%d, address: "2001:db8:%d::%d", tunnel: %s, register: required }\n' \
                "$server" $net $((10 + server)) "$(tunnel)"
        fi
    done
    cat <<END
virtual_hosts:
  - name: web
    addresses: [$VIP, "$VIP6"]
    services: [any]
    selection: $SELECTION
    children: [$names]
    health: { http: { path: /, expect: 200 } }
END
    if [[ $SELECTION != consistent_hash ]]; then printf '    cost_function: "%s"\n' "$COST"; fi
    cat <<END
metrics: { listen: ${METRICS:7:14} }
control: { socket: $DIR/slrd.sock, listen: 10.255.0.1:9478, $(proof "$NAME") }
END
}

# until_true SECONDS WHAT COMMAND...: waits until it is so.
until_true() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= end)); then
            tail -n 5 "$DIR"/*.log >&2 || true
            die 1 "$what did not come up in time; the last lines of the logs are above"
        fi
        sleep 0.1
    done
}
