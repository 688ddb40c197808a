#!/bin/sh
# Installs what building and testing sftpfs needs on Debian and Ubuntu, if it is missing.
# Usage: packages.sh PACKAGE...
#
# Nothing is started: openssh-server is here for its programs, and a service that was not running
# before does not run afterwards, nor at the next boot.
set -eu

missing=
for package in "$@"; do
    state=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
    [ "$state" = "install ok installed" ] || missing="$missing $package"
done
if ! command -v cargo >/dev/null; then
    echo "packages.sh: there is no cargo; install Rust from https://rustup.rs first" >&2
    exit 1
fi
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null; then
    echo "packages.sh: no apt-get here; install by hand:$missing" >&2
    exit 1
fi

as_root=
if [ "$(id -u)" -ne 0 ]; then
    as_root=sudo
    command -v sudo >/dev/null || { echo "packages.sh: run as root to install:$missing" >&2; exit 1; }
fi
echo "packages.sh: installing$missing"

# invoke-rc.d(8) asks this file whether a service may be started; 101 says no.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap '$as_root rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
fi
$as_root apt-get update -qq || true
# shellcheck disable=SC2086 # a list of words
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
case " $missing " in
*" openssh-server "*)
    if [ -d /run/systemd/system ]; then
        $as_root systemctl disable --quiet ssh.service ssh.socket 2>/dev/null || true
    fi
    ;;
esac
