#!/usr/bin/env bash
# Installs what the build and the tests need and a bare Debian or Ubuntu lacks. Does nothing, and
# needs no rights, where everything is there.
set -euo pipefail

java_ok() { # Apache Kafka 4 needs Java 17 or newer
  local version
  version=$(java -version 2>&1 | sed -nE 's/.* version "([0-9]+).*/\1/p' | head -n 1) || return 1
  [ "${version:-0}" -ge 17 ]
}
header() { # searched in the compiler's own path
  echo "#include <$1>" | cc -E -x c - >/dev/null 2>&1
}
libclang() {
  compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null || [ -n "${LIBCLANG_PATH:-}" ]
}

missing=()
command -v cc >/dev/null && command -v g++ >/dev/null && command -v make >/dev/null || missing+=(build-essential)
command -v clang++ >/dev/null || missing+=(clang)
libclang || missing+=(libclang-dev)
command -v ccache >/dev/null || missing+=(ccache)
command -v pkg-config >/dev/null || missing+=(pkg-config)
header openssl/ssl.h || missing+=(libssl-dev)
header zlib.h || missing+=(zlib1g-dev)
java_ok || missing+=(java)
command -v mvn >/dev/null || missing+=(maven)

if [ ${#missing[@]} -gt 0 ]; then
  echo "setup: missing on this machine: ${missing[*]}"
  if ! command -v apt-get >/dev/null; then
    echo "setup: there is no apt-get here: install them by hand (java: version 17 or newer) and try again" >&2
    exit 1
  fi
  root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "setup: run this as root, or install sudo" >&2; exit 1; }
    root=(sudo)
  fi
  echo "setup: ${root[*]} apt-get update"
  "${root[@]}" apt-get update -qq
  packages=()
  for package in "${missing[@]}"; do
    if [ "$package" = java ]; then
      # Not every release has 17; a newer one serves as well.
      package=default-jre-headless
      if apt-cache show openjdk-17-jdk-headless >/dev/null 2>&1; then package=openjdk-17-jdk-headless; fi
    fi
    packages+=("$package")
  done
  echo "setup: ${root[*]} apt-get install ${packages[*]}"
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi
if ! command -v cargo >/dev/null; then
  echo "setup: Rust is missing: install the stable toolchain with rustup (https://rustup.rs) and try again" >&2
  exit 1
fi
