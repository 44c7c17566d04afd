# Shared by the scripts here: the repository's root, Debian packages, the Rust toolchain. To be sourced, not run.
# shellcheck shell=bash

export LC_ALL=C.UTF-8
PATH=$PATH:/usr/sbin:/sbin # where Debian keeps half of the tools, and a plain su does not look

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034  # used by the scripts that source this file
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
# What lets cargo build a second time more quickly makes the first time longer: for those who work here, not for those who try.
if [[ ! -d $TARGET/debug/incremental ]]; then export CARGO_INCREMENTAL=0; fi

# What each script needs. Small relatives are named where the usual package would also install a service:
# dnsmasq-base has the program of dnsmasq.
# shellcheck disable=SC2034  # used by the scripts that source this file
{
    BUILD_PACKAGES=(build-essential clang libclang-dev libdpdk-dev libpcap-dev pkg-config)
    BENCH_PACKAGES=(curl dpdk-dev jq)
    BUDGET_PACKAGES=(mawk valgrind)
    DEMO_PACKAGES=(tshark)
    LAB_PACKAGES=(bind9-dnsutils curl dnsmasq-base ethtool iperf3 iproute2 iputils-ping iputils-tracepath nginx-light
        openssl procps tcpdump)
    RECORD_PACKAGES=(bind9-dnsutils curl dnsmasq-base ethtool iperf3 iproute2 iputils-ping nginx-light openssl tcpdump
        tshark)
    SOAK_PACKAGES=(fping jq keepalived mawk python3 rt-tests stress-ng wrk)
    TRAINING_PACKAGES=(llvm-19)
    TUNNEL_PACKAGES=(iproute2 mawk python3 util-linux)
    TEST_PACKAGES=(jq keepalived prometheus python3-scapy shellcheck socat stress-ng wrk)
}

# Packages above that bring a service with them. Nobody asked for it to run.
SERVICES=(keepalived nginx prometheus)

# die STATUS MESSAGE: one line on standard error, then stop.
die() {
    printf '%s: %s\n' "${0##*/}" "$2" >&2
    exit "$1"
}

# usage_of SCRIPT: the comment block at the head of a script is its help.
usage_of() {
    sed -n '2{/^#$/d};2,/^[^#]/{s/^# \{0,1\}//p}' "$1"
}

# need_packages NAME...: installs those that are missing; without root names them and stops.
need_packages() {
    local name missing=()
    command -v dpkg-query apt-get >/dev/null || die 2 "no dpkg and apt-get here; the Debian packages needed are: $*"
    for name in $(printf '%s\n' "$@" | sort -u); do
        dpkg-query -W -f='${db:Status-Status}\n' "$name" 2>/dev/null | grep -qx installed || missing+=("$name")
    done
    ((${#missing[@]})) || return 0
    if ((EUID != 0)); then
        printf '%s: these Debian packages are missing; install them, then run this again:\n' "${0##*/}" >&2
        printf '  apt-get install --no-install-recommends %s\n' "${missing[*]}" >&2
        exit 2
    fi
    printf 'Installing Debian packages: %s\n' "${missing[*]}"
    (install_packages "${missing[@]}") || die 1 "the packages could not be installed; apt-get's last lines are above"
}

# Runs in a subshell of its own, so that its EXIT trap undoes the guard and leaves the caller's traps alone.
install_packages() {
    local log guard=/usr/sbin/policy-rc.d unit fresh=()
    log=$(mktemp)
    if [[ -e $guard ]]; then guard=; fi
    # shellcheck disable=SC2064  # the values of now are meant
    trap "rm -f '$log' $guard" EXIT
    if [[ -n $guard ]]; then
        # Debian starts a package's service as it installs it, unless this file forbids it (invoke-rc.d(8)).
        printf '#!/bin/sh\nexit 101\n' >"$guard"
        chmod 755 "$guard"
    fi
    for unit in "${SERVICES[@]}"; do
        [[ -e /lib/systemd/system/$unit.service ]] || fresh+=("$unit")
    done

    export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l
    local apt=(apt-get -q -o DPkg::Lock::Timeout=300)
    "${apt[@]}" update >"$log" 2>&1 || printf 'apt-get update failed; trying with the package lists that are here\n'
    if ! "${apt[@]}" install -y --no-install-recommends "$@" >>"$log" 2>&1; then
        tail -n 30 "$log" >&2
        return 1
    fi
    for unit in "${fresh[@]}"; do
        if [[ -e /lib/systemd/system/$unit.service ]] && command -v systemctl >/dev/null; then
            systemctl disable "$unit" >>"$log" 2>&1 || true
        fi
    done
}

# need_rust: cargo must be there and not older than Cargo.toml asks for. It cannot be installed from here.
need_rust() {
    local wanted have
    wanted=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$ROOT/Cargo.toml")
    command -v cargo >/dev/null || PATH=${HOME:-/root}/.cargo/bin:$PATH
    command -v cargo >/dev/null || die 2 "cargo is missing: install Rust $wanted or later, then run this again"
    have=$(cd "$ROOT" && rustc --version | cut -d' ' -f2) || die 2 "rustc does not run: repair the Rust installation"
    printf '%s\n%s\n' "$wanted" "$have" | sort -V -C ||
        die 2 "Rust $have is too old: Cargo.toml asks for $wanted or later; update it, then run this again"
}

BACKLOG=/proc/sys/net/core/netdev_max_backlog

# lengthen_backlog FILE: links between namespaces share one queue for each processor, of 1,000 packets if nobody has said
# otherwise: what a flood on one link leaves no room for is lost on another. FILE keeps how long it was.
lengthen_backlog() {
    local before
    before=$(cat $BACKLOG 2>/dev/null || echo 0)
    if ((before >= 65536)); then return; fi
    if (echo 65536 >$BACKLOG) 2>/dev/null; then
        echo "$before" >"$1"
    else
        printf '%s cannot be raised: where links are flooded others may lose packets\n' $BACKLOG
    fi
}

# restore_backlog FILE
restore_backlog() {
    if [[ ! -e $1 ]]; then return; fi
    cat "$1" >$BACKLOG
    rm "$1"
}

# duration SECONDS: "42 s" or "3 min 05 s".
duration() {
    if (($1 < 60)); then printf '%d s' "$1"; else printf '%d min %02d s' $(($1 / 60)) $(($1 % 60)); fi
}
