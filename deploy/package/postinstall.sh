#!/bin/sh
# Creates the user and its folder, and restarts a receiver that runs.
set -e

getent passwd pleo-receiver >/dev/null ||
    useradd --system --user-group --home-dir /var/lib/pleo-receiver --no-create-home \
        --shell /usr/sbin/nologin pleo-receiver
install -d -o pleo-receiver -g pleo-receiver -m 700 /var/lib/pleo-receiver

if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    # The socket stays open meanwhile, so no connection is refused.
    systemctl try-restart pleo-receiver.service
fi
