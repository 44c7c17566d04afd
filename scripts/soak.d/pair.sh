# The parts of scripts/soak about pairs of routers. To be sourced, not run.
# shellcheck shell=bash disable=SC2153,SC2034  # NAME, DIR and so on are those of scripts/soak

# Fewer where processors are scarce: what fails then fails for want of them.
IDLE_COUNT=${SLR_SOAK_IDLE:-2000} DOWNLOAD_COUNT=${SLR_SOAK_DOWNLOADS:-200}

# role ROUTER
role() { on "router$1" slrctl --json ha 2>/dev/null | jq -r .role; }

# until_role ROUTER ROLE
until_role() {
    local end=$((SECONDS + 30))
    until [[ $(role "$1") == "$2" ]]; do
        ((SECONDS < end)) || return 1
        sleep 0.1
    done
}

# start_idle: connections that do nothing until they are asked for, by a line to the descriptor IDLE.
start_idle() {
    mkfifo "$WORK/ask"
    (run_on client "$ROOT/scripts/lab.d/idle" "$IDLE_COUNT" "$VIP" <"$WORK/ask" >"$WORK/idle") &
    exec {IDLE}>"$WORK/ask"
    until grep -q "^open $IDLE_COUNT\$" "$WORK/idle"; do sleep 0.5; done
}

# ask_idle: says how many of them fail.
ask_idle() {
    local before
    before=$(wc -l <"$WORK/idle")
    echo >&"$IDLE"
    until (($(wc -l <"$WORK/idle") > before)); do sleep 0.1; done
    tail -n 1 "$WORK/idle" | sed 's/.*failed //'
}

end_idle() { exec {IDLE}>&-; }

# start_pings: a line for each answer, with its time. Before all others, as what fping sleeps through looks like a gap. Beside
# it somebody says when each processor stood still for anybody, as those of a virtual machine do.
start_pings() {
    (run_on client chrt --fifo 2 fping -D -l -i 1 -p 1 -t 1000 "$VIP" >"$WORK/pings" 2>&1) &
    PINGS=$!
    (exec cyclictest --quiet --smp --priority=3 --interval=1000 --spike=2000 --spike-nodes=100000 >"$WORK/still" 2>&1) &
    STILL=$!
}

# end_pings: GAP is the longest time without an answer, in milliseconds, WHEN it began, in seconds since FAULT, and OURS the
# longest of those times less those in which a processor stood still.
end_pings() {
    kill -INT "$PINGS" "$STILL" 2>/dev/null || true
    wait "$PINGS" "$STILL" || true
    read -r GAP WHEN OURS < <(gaps "$WORK/pings" "$WORK/still" "$FAULT")
}

# gaps PINGS STILL FAULT
gaps() {
    python3 - "$@" <<'END'
import re
import sys
import time

pings, still, fault = sys.argv[1:]
# When an answer came: when it is told.
answers = [float(at) for at in re.findall(r"^\[([0-9.]+)\].* bytes, ", open(pings).read(), re.M)]
# Of the monotonic clock, when that was over.
apart = time.time() - time.monotonic()
spikes = re.findall(r"Spike: *(\d+): TS: *(\d+)", open(still).read())
stood = sorted((apart + (int(end) - int(long)) / 1e6, apart + int(end) / 1e6) for long, end in spikes)


def standing(since, until):
    """For how long between the two."""
    total = 0.0
    for begin, end in stood:
        total += max(0.0, min(end, until) - max(begin, since))
        since = max(since, min(end, until))
    return total


times = list(zip(answers, answers[1:]))
gap, when = max((until - since, since) for since, until in times)
ours = max(until - since - standing(since, until) for since, until in times)
print(f"{1000 * gap:.0f} {when - float(fault):.2f} {1000 * ours:.0f}")
END
}

# start_many_downloads: slow ones, so that every round falls into them. Of one process: hundreds that begin and end would keep
# the routers, which share their processors, from going on.
start_many_downloads() {
    (run_on client curl -sSf --no-progress-meter -Z --parallel-immediate --parallel-max "$DOWNLOAD_COUNT" -m 120 --limit-rate 130k \
        -o "$WORK/download#1" "http://$VIP/1M?[1-$DOWNLOAD_COUNT]" >"$WORK/downloads" 2>&1) &
    DOWNLOADING=$!
}

# end_many_downloads: LOST is how many were not whole.
end_many_downloads() {
    wait "$DOWNLOADING" || true
    local sum
    sum=$(awk '$2 == "1M" { print $1 }' "$DIR/www/SHA256SUMS")
    sort "$WORK/downloads" | uniq -c | sed 's/^/        /'
    LOST=$((DOWNLOAD_COUNT - $(find "$WORK" -name 'download[0-9]*' -exec sha256sum {} + | grep -c "^$sum" || true)))
    rm -f "$WORK"/download[0-9]*
}

# start_again ROUTER: until it answers. What the dead one had may not be free yet; then it ends and is started once more, as an
# init would.
start_again() {
    local pid='' end=$((SECONDS + 20))
    until [[ -n $(role "$1") ]]; do
        ((SECONDS < end)) || return 1
        if [[ -z $pid || ! -e /proc/$pid/exe ]]; then
            (run_on "router$1" slrd --config "$DIR/router$1/slrd.yaml" >>"$DIR/router$1.log" 2>&1) &
            pid=$!
            disown $pid
            echo $pid >"$DIR/router$1/slrd.pid"
        fi
        sleep 0.1
    done
    # As scripts/lab does.
    chrt --all-tasks --fifo --pid 1 "$pid"
}

# One round: the active router dies, or loses its links; the other takes over; the first one comes back and takes over again.
# pair_round NUMBER
pair_round() {
    local link
    FAULT=$EPOCHREALTIME
    if (($1 % 2)); then
        kill -9 "$(<"$DIR/router1/slrd.pid")"
        until_role 2 active && start_again 1 || return 1
    else
        for link in c-router1 router1 m-router1; do on switch ip link set $link down; done
        until_role 2 active || return 1
        for link in c-router1 router1 m-router1; do on switch ip link set $link up; done
    fi
    until_role 1 active && until_role 2 standby
}

# rank_kernel SCHED PRIORITY: of the threads that take packets from one machine of the lab to the next. They are no part of any
# of these machines, and behind 200 downloads they stand still at times.
rank_kernel() {
    local thread
    for thread in $(pgrep -x 'ksoftirqd/[0-9]+'); do chrt "--$1" --pid "$2" "$thread"; done
}

show_pair() {
    local round failed=0 worst=0 worst_ours=0 broken
    trap 'rank_kernel other 0; lab_down; rm -rf "$WORK"' EXIT
    rank_kernel fifo 1
    lab_up --pair --servers 3 --small --heartbeat 10 --preempt 2s
    until_role 1 active
    on client sysctl -q -w net.ipv4.tcp_rmem='4096 16384 32768'
    on client iperf3 -c "$VIP" -t 80000 -b 5M >"$WORK/iperf3" 2>&1 &
    local iperf3=$!
    start_idle
    for ((round = 1; round <= ROUNDS; round++)); do
        start_many_downloads
        start_pings
        sleep 2
        pair_round $round || echo "roles are $(role 1), $(role 2)" >>"$WORK/rounds"
        sleep 1
        end_pings
        end_many_downloads
        broken=$(ask_idle)
        printf '        round %d: gap %d ms %s s after the fault, %d ms but for a machine that stood still, ' \
            $round "$GAP" "$WHEN" "$OURS"
        printf 'downloads failed %d, idle connections failed %d\n' $LOST "$broken"
        ((GAP <= worst)) || worst=$GAP
        ((OURS <= worst_ours)) || worst_ours=$OURS
        if ((LOST > 0 || broken > 0)) || [[ -s $WORK/rounds ]]; then
            failed=$((failed + 1))
            cat "$WORK/rounds"
            tail -n 5 "$DIR"/router[12].log
        fi
        : >"$WORK/rounds"
    done
    holds 'iperf3 goes on' kill -0 $iperf3
    kill $iperf3 || true
    end_idle
    rank_kernel other 0
    holds "no connection failed in $ROUNDS rounds" test $failed -eq 0
    holds "nothing was silent for more than 50 ms: $worst_ours ms, but for a machine that stood still" \
        test "$worst_ours" -le 50
    printf 'rounds %d, failed %d, worst gap %d ms\n' "$ROUNDS" $failed "$worst"
}

# has ROUTER: whether keepalived has the pair's address.
keepalived_has() { on router2 ip -4 address show dev clients | grep -q '10\.0\.1\.10/'; }

# elected WHO: waits until that one alone is active.
elected() {
    local end=$((SECONDS + 20))
    if [[ $1 == slrd ]]; then
        until [[ $(role 1) == active ]] && ! keepalived_has; do ((SECONDS < end)) || return 1; sleep 0.02; done
    else
        until [[ $(role 1) != active ]] && keepalived_has; do ((SECONDS < end)) || return 1; sleep 0.02; done
    fi
}

# Elections between slrd and keepalived, and who advertises meanwhile.
show_vrrp() {
    local turn failed=0 both
    lab_up --pair --peer keepalived --servers 1 --small --heartbeat 100
    elected slrd
    (run_on switch tcpdump -n -l -tt -i br2 'ip proto 112' >"$WORK/vrrp" 2>"$WORK/vrrp.words") &
    local capture=$!
    until grep -q 'listening on' "$WORK/vrrp.words"; do sleep 0.1; done
    for ((turn = 0; turn < 20; turn++)); do
        on router1 slrctl ha standby >/dev/null
        elected keepalived || failed=$((failed + 1))
        # Long enough that one reign is told from the next.
        sleep 0.6
        on router1 slrctl ha active >/dev/null
        elected slrd || failed=$((failed + 1))
        sleep 0.6
    done
    sleep 0.5
    kill -INT $capture
    wait $capture || true
    holds "20 elections each way, $failed of 40 not as wanted" test $failed -eq 0
    both=$(overlap)
    holds "both advertised for $both ms at most, an interval is 100 ms" test "$both" -le 100
}

# overlap: the longest time for which both were active by their advertisements, in milliseconds. One is so from its first to
# its last one, of which none is far from the next.
overlap() {
    python3 - "$WORK/vrrp" <<'END'
import re
import sys

reigns = {}
for line in open(sys.argv[1]):
    found = re.match(r"([0-9.]+) IP ([0-9.]+) > .* prio (\d+),", line)
    if not found:
        continue
    time, who, priority = float(found[1]), found[2], int(found[3])
    own = reigns.setdefault(who, [])
    if priority == 0:
        own.append(None)
    elif own and own[-1] and time - own[-1][1] < 0.35:
        own[-1][1] = time
    else:
        own.append([time, time])
first, second = ([reign for reign in own if reign] for own in reigns.values())
both = [min(a[1], b[1]) - max(a[0], b[0]) for a in first for b in second]
print(max(0, round(1000 * max(both))))
END
}
