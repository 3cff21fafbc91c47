#!/usr/bin/env bash
# Installs pgweir as a service of systemd. Again with a new binary, it replaces the old one and leaves the
# configuration alone.
#
#   sudo deploy/ec2/install.sh target/release/pgweir
#
# With DESTDIR=DIR everything goes below that directory, and neither users nor services are touched: for packages.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
readonly root="${DESTDIR:-}"
readonly bundle=https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem

if [ $# != 1 ] || ! [ -x "$1" ]; then
    echo "usage: $0 BINARY, built by: cargo build --release --locked" >&2
    exit 2
fi
if [ -z "$root" ] && [ "$(id -u)" != 0 ]; then
    echo "Please run this as root, or with DESTDIR=DIR" >&2
    exit 2
fi

if [ -z "$root" ] && ! getent passwd pgweir >/dev/null; then
    useradd --system --user-group --no-create-home --home-dir / --shell /usr/sbin/nologin pgweir
fi

# Installed beside and renamed: the running program keeps its file.
install -D -m 755 "$1" "$root/usr/local/bin/pgweir.new"
mv "$root/usr/local/bin/pgweir.new" "$root/usr/local/bin/pgweir"
install -D -m 644 "$here/pgweir.service" "$root/etc/systemd/system/pgweir.service"
install -d -m 755 "$root/etc/pgweir"
if ! [ -e "$root/etc/pgweir/pgweir.toml" ]; then
    install -m 644 "$here/pgweir.toml" "$root/etc/pgweir/pgweir.toml"
fi
[ -z "$root" ] || exit 0

authorities=/etc/pgweir/rds-global-bundle.pem
if ! [ -e "$authorities" ]; then
    if curl --fail --silent --show-error --max-time 30 --output "$authorities.new" "$bundle"; then
        # Whatever umask root has: pgweir reads it.
        chmod 644 "$authorities.new"
        mv "$authorities.new" "$authorities"
    else
        echo "There is no way from here to $bundle: please bring it as $authorities." >&2
    fi
fi
systemctl daemon-reload
systemctl enable --quiet pgweir
if systemctl --quiet is-active pgweir; then
    systemctl restart pgweir
    echo "pgweir was replaced and started anew."
else
    cat <<'NEXT'
pgweir is installed. Now:
  1. put the secret's ARN and the database's endpoint into /etc/pgweir/pgweir.toml
  2. sudo -u pgweir /usr/local/bin/pgweir check --config /etc/pgweir/pgweir.toml
  3. sudo systemctl start pgweir
NEXT
fi
