# Sourced by the scripts beside it: makes sure that Debian packages are installed.

# need_packages PACKAGE... installs those that are missing, and says so.
need_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
  done
  [ "${#missing[@]}" -eq 0 ] && return 0
  if ! command -v apt-get >/dev/null; then
    echo "ops: this is no Debian; install what these packages hold yourself: ${missing[*]}" >&2
    return 1
  fi
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    as_root=(sudo)
  fi
  echo "ops: installing ${missing[*]}" >&2
  "${as_root[@]}" apt-get update -qq >/dev/null
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# need_rust checks for cargo; rustup then takes the version that rust-toolchain.toml names.
need_rust() {
  command -v cargo >/dev/null && return 0
  if [ -x "$HOME/.cargo/bin/cargo" ]; then
    export PATH="$HOME/.cargo/bin:$PATH"
    return 0
  fi
  echo "ops: cargo is missing; install Rust from https://rustup.rs and start again" >&2
  return 1
}

# What the build needs: a C and C++ compiler, and libclang for the bindings of RocksDB.
BUILD_PACKAGES=(g++ libclang-dev make)

# Builds outside of the checkout are kept between checkouts: RocksDB takes its time.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/fleet-brain/target}"
