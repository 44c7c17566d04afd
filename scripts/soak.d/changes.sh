# The parts of scripts/soak about what a router forgets, and servers that come and go. To be sourced, not run.
# shellcheck shell=bash disable=SC2153,SC2034  # NAME, DIR and so on are those of scripts/soak

show_forget() {
    lab_up --servers 3 --small
    start_wrk 3600
    holds 'the worker forgets its flows 100 times' forget
    kill -INT "${WRK[@]}"
    end_wrk
    holds 'it has asked for flows that it had forgotten, or chosen their server again' chosen_again
}

forget() {
    local turn
    for ((turn = 0; turn < 100; turn++)); do
        on router slrctl forget 0 >/dev/null || return 1
        sleep 0.1
    done
}

# More entries were made than there were connections.
chosen_again() { (($(metrics | awk '/^slr_flows_inserted_total/ { sum += $2 } END { print sum }') > 2000)); }

# One of ten servers is added and taken out again, after no new connections have gone to it for a moment.
show_servers() {
    local broken
    lab_up --servers 10 --small
    take_out && on router slrctl reload >/dev/null
    start_idle
    start_wrk 3600
    holds 'server10 is added and taken out 100 times' come_and_go
    kill -INT "${WRK[@]}"
    end_wrk
    broken=$(ask_idle)
    holds "none of $IDLE_COUNT idle connections failed: $broken did" test "$broken" -eq 0
    end_idle
}

take_out() { sed -i 's/, server10\]/]/' "$DIR/slrd.yaml"; }
put_in() { sed -i 's/, server9\]/, server9, server10]/' "$DIR/slrd.yaml"; }

# until_unused SERVER: until no connection is left there, as whoever takes a server out would.
until_unused() {
    local end=$((SECONDS + 30))
    while [[ -n $(on "$1" ss -Htn state established "src $VIP") ]]; do
        ((SECONDS < end)) || return 1
        sleep 0.1
    done
}

come_and_go() {
    local turn
    for ((turn = 0; turn < 100; turn++)); do
        put_in
        on router slrctl reload || return 1
        sleep 0.5
        on router slrctl drain server10 || return 1
        sleep 0.5
        until_unused server10 || return 1
        take_out
        on router slrctl reload || return 1
        on router slrctl undrain server10 || return 1
    done >/dev/null
}
