#!/usr/bin/env bash
# The systems that Thalweg is measured beside: Kafka Streams and Apache Flink, with the benchmark's jobs.
#
#   peers.sh build     build both jars with Maven into the cache, each unless that of these sources is there
#   peers.sh jar NAME  print where the jar of kafka-streams or of flink is
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
sources=$(cd "$here/../../benches/peers" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/thalweg/peers

# Named by a checksum of its sources: work trees of several states share the cache.
jar() { # NAME
  local sum
  case $1 in
    kafka-streams | flink) ;;
    *) echo "peers: there is no peer $1, only kafka-streams and flink" >&2; return 1 ;;
  esac
  sum=$(cd "$sources" && find common/src "$1/src" "$1/pom.xml" -type f -print0 | sort -z | xargs -0 cksum | cksum)
  echo "$cache/$1-${sum%% *}.jar"
}

build_one() { # NAME
  local jar build
  jar=$(jar "$1")
  if [ -f "$jar" ]; then
    echo "peers: $jar is there"
    return
  fi
  echo "peers: building $jar with Maven"
  mkdir -p "$cache"
  find "$cache" -name "$1-*.jar" -mtime +7 -delete
  # Outside the work tree. The jar gets its name when it is complete.
  build=$(mktemp -d "$cache/build-$1.XXXXXX")
  if ! mvn -q -B -f "$sources/$1/pom.xml" package "-Dpeers.build=$build"; then
    rm -rf "$build"
    return 1
  fi
  mv "$build/$1.jar" "$jar"
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
