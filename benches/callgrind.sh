#!/bin/sh
# Counts the instructions of a verification whose signature is wrong in the first, a middle or the last
# byte, with one secret and with four. The counts must be equal. Needs valgrind. Passes its arguments to
# cargo, for example `benches/callgrind.sh --no-default-features --features rustcrypto`.
set -eu

here=$(dirname "$0")
cargo build --release --quiet --manifest-path "$here/Cargo.toml" --bin instructions "$@"
program=${CARGO_TARGET_DIR:-$here/target}/release/instructions

status=0
for secrets in 1 4; do
    counts=
    for byte in 0 15 31; do
        count=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null --collect-atstart=no \
            '--toggle-collect=*measured_verification*' "$program" "$byte" "$secrets" 2>&1 |
            sed -n 's/^==[0-9]*== Collected : *\([0-9]*\)$/\1/p')
        echo "secrets: $secrets, wrong byte: $byte, instructions: ${count:-none}"
        counts="$counts ${count:-none}"
    done
    set -- $counts
    # A count near zero means that valgrind did not find the function.
    if [ "$1" = none ] || [ "$1" -lt 1000 ] || [ "$1" != "$2" ] || [ "$1" != "$3" ]; then
        echo "secrets: $secrets: the counts differ or are missing" >&2
        status=1
    fi
done
exit $status
