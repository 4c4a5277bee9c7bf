#!/bin/sh
# Stops the receiver, but not for an upgrade. dpkg passes `remove`, rpm the number of packages left.
set -e

case $1 in
remove | 0)
    if [ -d /run/systemd/system ]; then
        systemctl disable --now pleo-receiver.socket pleo-receiver.service || true
    fi
    ;;
esac
