#!/usr/bin/env bash
# One Apache Kafka broker (KRaft, combined mode) on the loopback, for tests, the demo and play.
#
#   kafka.sh fetch                download the jars into the cache, unless they are there
#   kafka.sh run DIR PORT CPORT [LISTEN ADVERTISED]
#                                 become a broker (this process) with its data under DIR; with a second
#                                 listener that sends its clients to a proxy's port, if that is given
#   kafka.sh start PORT           start one in the background; returns when it serves
#   kafka.sh stop PORT            stop it; its data stays
#   kafka.sh free-port            print a port that nothing listens on
#   kafka.sh topic PORT NAME...   create topics of four partitions, unless they are there
#   kafka.sh produce PORT NAME    write the lines of stdin, each a key, a tab and a value
#   kafka.sh consume PORT NAME    show the committed records, keys first, from the first one on
#
# Settings in DIR/more.properties come on top of the script's. A broker's own log is DIR/server.log; that
# of the start before, DIR/server.log.1.
set -euo pipefail

version=4.3.1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/thalweg/kafka
libs=$cache/libs-$version-$(cksum <"$here/kafka-pom.xml" | cut -d' ' -f1)

fetch() {
  # The folder gets its name last, so it is there only if it is complete.
  [ -d "$libs" ] && return
  echo "kafka: fetching Apache Kafka $version from Maven Central into $libs"
  rm -rf "$libs.part"
  mkdir -p "$libs.part"
  cp "$here/kafka-pom.xml" "$cache/pom-$version.xml"
  mvn -q -B -f "$cache/pom-$version.xml" dependency:copy-dependencies \
    -DincludeScope=runtime "-DoutputDirectory=$libs.part"
  mv "$libs.part" "$libs"
}

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_port() { # below the range from which the kernel takes ports for clients
  local port
  for _ in $(seq 100); do
    port=$((20000 + RANDOM % 10000))
    if ! listening "$port"; then
      echo "$port"
      return
    fi
  done
  echo "kafka: found no free port between 20000 and 29999" >&2
  return 1
}

write_config() { # DIR PORT CPORT [LISTEN ADVERTISED]
  local proxied='' proxy='' protocol=''
  if [ $# -gt 3 ]; then
    proxied=,PROXIED://127.0.0.1:$4 proxy=,PROXIED://127.0.0.1:$5 protocol=,PROXIED:PLAINTEXT
  fi
  mkdir -p "$1"
  cat >"$1/server.properties" <<CONFIG
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:$2,CONTROLLER://127.0.0.1:$3$proxied
advertised.listeners=PLAINTEXT://127.0.0.1:$2$proxy
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT$protocol
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:$3
log.dirs=$1/data
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
# A dead process's transaction is given up soon after its own time-out, not up to 10 s later.
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
# After a kill the broker's own old session must end before it may register again.
broker.session.timeout.ms=6000
broker.heartbeat.interval.ms=1000
log.retention.ms=-1
log.retention.check.interval.ms=60000
log.segment.delete.delay.ms=1000
log.cleaner.threads=1
log.cleaner.dedupe.buffer.size=8388608
num.network.threads=2
num.io.threads=4
background.threads=2
CONFIG
  # The last value counts.
  if [ -f "$1/more.properties" ]; then cat "$1/more.properties" >>"$1/server.properties"; fi
  cat >"$1/log4j2.properties" <<CONFIG
status=error
shutdownHook=disable
appender.file.type=File
appender.file.name=file
appender.file.fileName=$1/server.log
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d %p %c{1} %m%n
rootLogger.level=info
rootLogger.appenderRefs=file
rootLogger.appenderRef.file.ref=file
CONFIG
}

run() { # DIR PORT CPORT [LISTEN ADVERTISED]
  local dir=$1
  fetch
  write_config "$@"
  if [ ! -f "$dir/data/meta.properties" ]; then
    local id
    id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=')
    java -Xmx64m -XX:TieredStopAtLevel=1 "-Dlog4j2.configurationFile=$dir/log4j2.properties" -cp "$libs/*" \
      kafka.tools.StorageTool format --standalone --cluster-id "A${id:1}" \
      --config "$dir/server.properties" >"$dir/format.log" 2>&1 \
      || { echo "kafka: formatting $dir failed:" >&2; cat "$dir/format.log" >&2; exit 1; }
  fi
  [ ! -f "$dir/server.log" ] || mv "$dir/server.log" "$dir/server.log.1"
  # KAFKA_JVM: other options of the JVM, separated by spaces. Without it, those for little memory.
  local options
  read -ra options <<<"${KAFKA_JVM:--Xms128m -Xmx512m -XX:+UseSerialGC}"
  exec java "${options[@]}" "-Dlog4j2.configurationFile=$dir/log4j2.properties" \
    -cp "$libs/*" kafka.Kafka "$dir/server.properties" >"$dir/stdout.log" 2>&1
}

# The id may be that of a process that nobody has reaped yet, or have gone to another process since.
alive() { grep -qsa kafka "/proc/$1/cmdline"; }

await() { # PID DIR: returns when the broker serves
  for _ in $(seq 600); do
    if grep -q 'Kafka Server started' "$2/server.log" 2>/dev/null; then return; fi
    # Our child, which may be between two programs just now and have no command line.
    if ! kill -0 "$1" 2>/dev/null; then break; fi
    sleep 0.1
  done
  echo "kafka: the broker did not start; the end of its log:" >&2
  tail -n 30 "$2/server.log" "$2/stdout.log" >&2 || true
  return 1
}

start() { # PORT [DIR]
  local port=$1 dir=${2:-$cache/broker-$1} pid
  mkdir -p "$dir"
  if [ -f "$dir/pid" ] && alive "$(cat "$dir/pid")"; then
    echo "kafka: already running on 127.0.0.1:$port"
    return
  fi
  if listening "$port"; then
    echo "kafka: something else listens on port $port; choose another with KAFKA_PORT" >&2
    return 1
  fi
  fetch
  rm -f "$dir/server.log"
  # A session of its own, so that Ctrl-C in this terminal does not reach it.
  setsid "${BASH_SOURCE[0]}" run "$dir" "$port" "$(free_port)" </dev/null >"$dir/start.log" 2>&1 &
  pid=$!
  echo "$pid" >"$dir/pid"
  await "$pid" "$dir" || { stop "$port" "$dir"; return 1; }
  echo "kafka: 127.0.0.1:$port, data and log in $dir"
}

stop() { # PORT [DIR]
  local dir=${2:-$cache/broker-$1} pid
  pid=$(cat "$dir/pid" 2>/dev/null) || { echo "kafka: none was started on port $1"; return; }
  if alive "$pid"; then kill "$pid"; fi
  for _ in $(seq 100); do
    alive "$pid" || break
    sleep 0.1
  done
  if alive "$pid"; then kill -KILL "$pid"; fi
  rm -f "$dir/pid"
}

tool() { # CLASS ARGUMENT...
  fetch
  exec java -Xmx128m -XX:TieredStopAtLevel=1 -Dlog4j2.level=error -cp "$libs/*" "org.apache.kafka.tools.$1" "${@:2}"
}

topic() { # PORT NAME...
  local name
  for name in "${@:2}"; do
    (tool TopicCommand --bootstrap-server "127.0.0.1:$1" --create --if-not-exists --partitions 4 --topic "$name")
  done
}

produce() { # PORT NAME
  tool ConsoleProducer --bootstrap-server "127.0.0.1:$1" --topic "$2" --reader-property parse.key=true
}

consume() { # PORT NAME
  tool consumer.ConsoleConsumer --bootstrap-server "127.0.0.1:$1" --topic "$2" --from-beginning \
    --isolation-level read_committed --formatter-property print.key=true
}

case ${1:-} in
  fetch) fetch ;;
  run) run "${@:2}" ;;
  start) start "$2" "${3:-}" ;;
  stop) stop "$2" "${3:-}" ;;
  free-port) free_port ;;
  topic | produce | consume) "$@" ;;
  *) sed -n '2,16p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
