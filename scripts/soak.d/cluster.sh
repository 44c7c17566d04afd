# The part of scripts/soak about a cluster of routers that keep no flows for each other. To be sourced, not run.
# shellcheck shell=bash disable=SC2153  # NAME, DIR and so on are those of scripts/soak

STEADY_COUNT=20

# through ROUTER: has the access router send all connections there.
through() { on gateway ip route replace 192.0.2.0/24 via "10.0.1.$1"; }

# moved_twice: WHOLE of STEADY_COUNT downloads survive two changes of their router, with WAIT as the longest wait for data, in
# milliseconds.
moved_twice() {
    local sum downloads
    sum=$(awk '$2 == "1M" { print $1 }' "$DIR/www/SHA256SUMS")
    through 1
    (run_on client "$ROOT/scripts/lab.d/steady" "$VIP" 1M "$sum" $STEADY_COUNT >"$WORK/steady") &
    downloads=$!
    sleep 2
    through 2
    sleep 2
    through 3
    wait $downloads
    read -r WHOLE WAIT < <(sed -n 's/^whole \([0-9]*\), longest wait \([0-9]*\) ms$/\1 \2/p' "$WORK/steady")
}

# found EVENT: what the routers that got the connections have counted of it.
found() {
    local router
    for router in router2 router3; do on $router curl -sf http://127.0.0.1:9477/metrics; done |
        awk -v event="\"$1\"" '/^slr_recovery_events_total/ && index($0, event) { sum += $2 } END { print sum + 0 }'
}

show_cluster() {
    local way round failed=0 worst=0
    for way in whohas echo; do
        lab_up --cluster 3 --servers 3 --recovery $way
        for ((round = 1; round <= ROUNDS; round++)); do
            moved_twice
            printf '        by %s, round %d: %d of %d downloads whole, longest wait %d ms\n' \
                $way "$round" "$WHOLE" $STEADY_COUNT "$WAIT"
            if ((WHOLE < STEADY_COUNT)); then failed=$((failed + 1)); fi
            if ((WAIT > worst)); then worst=$WAIT; fi
        done
        if [[ $way == whohas ]]; then
            holds "$(found peers_found) flows were found by WHOHAS, $(found echo_installed) by echoes" \
                test "$(found peers_found)" -ge $((2 * STEADY_COUNT * ROUNDS)) -a "$(found echo_installed)" -eq 0
        else
            holds "$(found echo_installed) flows were found by echoes, $(found peers_found) by WHOHAS" \
                test "$(found echo_installed)" -ge $((STEADY_COUNT * ROUNDS)) -a "$(found peers_found)" -eq 0
        fi
        lab_down
    done
    lab_up --cluster 3 --servers 3 --recovery none
    moved_twice
    holds "without either $WHOLE of $STEADY_COUNT downloads survive" test "$WHOLE" -eq 0
    holds "no download failed in $((2 * ROUNDS)) rounds" test $failed -eq 0
    printf 'rounds %d, failed %d, worst gap %d ms\n' $((2 * ROUNDS)) $failed "$worst"
}
