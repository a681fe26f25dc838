#!/bin/busybox sh
# What the demo lease runs: says each second that it does, and ends at once and well when asked to.
trap 'echo "demo tenant stopping"; kill "$pause" 2>/dev/null; exit 0' TERM INT
echo "demo tenant running"
tick=0
while :; do
    tick=$((tick + 1))
    echo "demo tenant tick $tick"
    sleep 1 &
    pause=$!
    wait "$pause"
done
