#!/bin/busybox sh
# What the demo lease runs: says where it runs, then every two seconds that it still does; ends at once and well when asked to.
trap 'echo "demo tenant stopping"; kill "$pause" 2>/dev/null; exit 0' TERM INT
read -r group < /proc/self/cgroup
while read -r key value; do
    case $key in
    Cpus_allowed_list:) cpus=$value ;;
    Mems_allowed_list:) nodes=$value ;;
    esac
done < /proc/self/status
echo "demo tenant running in cgroup ${group#0::} on cpus $cpus, memory nodes $nodes"
tick=0
while :; do
    tick=$((tick + 1))
    echo "demo tenant tick $tick"
    sleep 2 &
    pause=$!
    wait "$pause"
done
