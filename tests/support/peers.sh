#!/usr/bin/env bash
# The systems that Thalweg is measured beside: Kafka Streams and Apache Flink, with the benchmark's jobs.
#
#   peers.sh build     build both jars with Maven into the cache, each unless that of these sources is there
#   peers.sh jar NAME  print where the jar of kafka-streams or of flink is
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
sources=$(cd "$here/../../benches/peers" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/thalweg/peers

jar() { # NAME
  case $1 in
    kafka-streams | flink) echo "$cache/$1.jar" ;;
    *) echo "peers: there is no peer $1, only kafka-streams and flink" >&2; return 1 ;;
  esac
}

sources_of() { # NAME: a checksum; several work trees may share the cache
  (cd "$sources" && find common/src "$1/src" "$1/pom.xml" -type f -print0 | sort -z | xargs -0 cksum) | cksum
}

build_one() { # NAME
  local jar=$cache/$1.jar now build
  now=$(sources_of "$1")
  if [ -f "$jar" ] && [ "$(cat "$jar.sources" 2>/dev/null)" = "$now" ]; then
    echo "peers: $jar is that of these sources"
    return
  fi
  echo "peers: building $jar with Maven"
  mkdir -p "$cache"
  # Outside the work tree. The jar gets its name when it is complete, and then its checksum.
  build=$(mktemp -d "$cache/build-$1.XXXXXX")
  if ! mvn -q -B -f "$sources/$1/pom.xml" package "-Dpeers.build=$build"; then
    rm -rf "$build"
    return 1
  fi
  rm -f "$jar.sources"
  mv "$build/$1.jar" "$jar"
  echo "$now" >"$jar.sources"
  rm -rf "$build"
}

build() {
  build_one kafka-streams
  build_one flink
}

case ${1:-} in
  build) build ;;
  jar) jar "${2:?peers.sh jar NAME}" ;;
  *) sed -n '2,5p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
