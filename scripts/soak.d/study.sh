# A large hierarchy, simulated. To be sourced by scripts/soak, not run.
# shellcheck shell=bash disable=SC2153  # WORK and ROOT are those of scripts/soak

# The sample of a large topology: as it is, without its failure by least cost, and with another one.
show_study() {
    local sample=$ROOT/dpdk-config/topology.yaml died=40 name
    cp "$sample" "$WORK/shares.yaml"
    sed 's/^selection:.*/selection: least_cost/; s/^seconds:.*/seconds: 30.0/; /^events:/,$d' "$sample" >"$WORK/cheapest.yaml"
    sed 's/kill: .*/fail: network }/' "$sample" >"$WORK/failing.yaml"
    for name in shares cheapest failing; do holds "a study, $name" study $name; done
    holds "by shares the busiest site has $(of shares .site_imbalance) times the mean load" \
        is shares '.site_imbalance <= 1.15'
    holds "by least cost the busiest one has $(of cheapest .site_imbalance) times that" is cheapest '.site_imbalance > 1.3'
    holds 'a site that dies gets flows for 4 intervals at most' is shares "[.samples[] | select(.at > $died + 4) | .lost] | add == 0"
    local traffic="[.samples[] | select(.at > $died + 4) | .control_bytes_per_second] | add"
    holds "control traffic is the same when everything fails" same_within_5 "$(of shares "$traffic")" "$(of failing "$traffic")"
    local work="[.samples[] | select(.at > $died + 4) | .messages] | add"
    holds "routers take in no more messages then" no_more "$(of shares "$work")" "$(of failing "$work")"
}

no_more() { awk -v one="$1" -v other="$2" 'BEGIN { exit !(one > 0 && other / one < 1.05) }'; }

study() {
    local run=(cargo run --locked --release --quiet --manifest-path "$ROOT/Cargo.toml" --bin slr-sim --)
    TIMEFORMAT='        %U s of processor time'
    time "${run[@]}" --config "$WORK/$1.yaml" --json "$WORK/$1.json" >"$WORK/$1.txt" || return 1
    tail -n 1 "$WORK/$1.txt" | sed 's/^/        /'
}

of() { jq "$2" "$WORK/$1.json"; }
is() { jq -e "$2" "$WORK/$1.json" >/dev/null; }
same_within_5() { awk -v one="$1" -v other="$2" 'BEGIN { exit !(one > 0 && other / one > 0.95 && other / one < 1.05) }'; }
