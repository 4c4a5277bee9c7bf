#!/bin/sh
# Removes the user, unless messages are left in its folder. dpkg passes `purge`, rpm the number of
# packages left. The inbox stays: it may hold messages that nobody has handled.
set -e

if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
case $1 in
purge | 0)
    for folder in /etc/pleo-receiver /var/lib/pleo-receiver; do
        [ ! -d "$folder" ] || rmdir --ignore-fail-on-non-empty "$folder"
    done
    if [ ! -d /var/lib/pleo-receiver ] && getent passwd pleo-receiver >/dev/null; then
        userdel pleo-receiver
    fi
    ;;
esac
