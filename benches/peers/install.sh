# Sourced by the scripts beside it: installs a server and leaves no service of it running.
. "$(dirname "${BASH_SOURCE[0]}")/../../ops/packages.sh"

# install_server PACKAGE installs it where it is missing. Debian starts what it installs, unless
# this policy says no; and at the next boot, unless it is disabled.
install_server() {
  dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'install ok installed' && return 0
  local as_root=() policy=/usr/sbin/policy-rc.d made=
  [ "$(id -u)" -eq 0 ] || as_root=(sudo)
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod +x "$policy"
    made=1
  fi
  local failed=
  need_packages "$1" || failed=1
  [ -z "$made" ] || "${as_root[@]}" rm -f "$policy"
  [ -z "$failed" ] || return 1
  "${as_root[@]}" systemctl disable --quiet "$1" 2>/dev/null || true
}
