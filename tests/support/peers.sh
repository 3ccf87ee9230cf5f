#!/usr/bin/env bash
# The systems that Thalweg is measured beside: Kafka Streams and Apache Flink, with the benchmark's jobs.
#
#   peers.sh build     build both jars with Maven into the cache, each unless it is newer than its sources
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

fresh() { # NAME: whether the jar is newer than all that it is made of
  local jar=$cache/$1.jar
  [ -f "$jar" ] || return
  [ -z "$(find "$sources/common/src" "$sources/$1/src" "$sources/$1/pom.xml" -newer "$jar" -print -quit)" ]
}

build_one() { # NAME
  local jar=$cache/$1.jar build=$cache/build-$1
  if fresh "$1"; then
    echo "peers: $jar is newer than its sources"
    return
  fi
  echo "peers: building $jar with Maven"
  mkdir -p "$cache"
  # Outside the work tree, and under another name until it is complete. What is edited meanwhile is newer.
  rm -rf "$build"
  touch "$cache/$1.started"
  mvn -q -B -f "$sources/$1/pom.xml" package "-Dpeers.build=$build"
  touch -r "$cache/$1.started" "$build/$1.jar"
  mv "$build/$1.jar" "$jar"
  rm -rf "$build" "$cache/$1.started"
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
