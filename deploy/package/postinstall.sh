#!/bin/sh
# Creates the user and its folder, and restarts a receiver that runs.
set -e

getent group pleo-receiver >/dev/null || groupadd --system pleo-receiver
# Without a home: a handler could leave start-up files of a shell there.
getent passwd pleo-receiver >/dev/null ||
    useradd --system --gid pleo-receiver --home-dir /nonexistent --no-create-home \
        --shell /usr/sbin/nologin pleo-receiver
group=$(id -gn pleo-receiver)

# It may be a link to another disk, which need not be there now.
[ -e /var/lib/pleo-receiver ] || [ -L /var/lib/pleo-receiver ] ||
    install -d -o pleo-receiver -g "$group" -m 700 /var/lib/pleo-receiver

# The configuration may hold secrets. Other owners and rights are the administrator's choice.
protect() {
    if [ "$(stat -c '%U:%G:%a' "$1")" = "root:root:$2" ]; then
        chgrp "$group" "$1"
        chmod "$3" "$1"
    fi
}
protect /etc/pleo-receiver 755 750
protect /etc/pleo-receiver/pleo.toml 644 640

if [ -d /run/systemd/system ]; then
    # The socket stays open meanwhile, so no connection is refused. A failed start would leave the
    # package half-installed.
    systemctl daemon-reload && systemctl try-restart pleo-receiver.service ||
        echo 'pleo-receiver was not restarted; see `journalctl -u pleo-receiver`' >&2
fi
