#!/bin/busybox sh
# What the demo virtual machine runs: says what it has, then every second that it still runs; powers off when its power button
# is pressed. There is nothing else in its initrd but busybox and the kernel modules of /modules.
bb=/bin/busybox
$bb mount -t devtmpfs dev /dev
$bb mount -t proc proc /proc
$bb mount -t sysfs sys /sys
while read -r module; do
    $bb insmod "/modules/$module.ko"
done < /modules/order
while read -r key value _; do
    case $key in MemTotal:) memory=$value ;; esac
done < /proc/meminfo
echo "demo guest running on $($bb nproc) cpus, $memory kB of memory"
for disk in /sys/class/block/vd*; do
    [ -e "$disk" ] && read -r sectors < "$disk/size" && echo "demo guest has disk ${disk##*/} of $((sectors / 2048)) MiB"
done
# A press is one record of the input device; the read ends with it (kernel Documentation/input/input.rst).
for button in /dev/input/event*; do
    [ -e "$button" ] || continue
    (
        $bb dd if="$button" of=/dev/null bs=24 count=1 2> /dev/null
        echo "demo guest powers off"
        $bb poweroff -f
    ) &
done
tick=0
while :; do
    tick=$((tick + 1))
    echo "demo guest tick $tick"
    $bb sleep 1
done
