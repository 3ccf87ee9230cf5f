package peers.streams;

import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import peers.common.Arguments;

/** Runs one of {@link Jobs} under exactly-once until SIGTERM. */
public final class Main {
  public static void main(String[] args) throws Exception {
    Arguments arguments = new Arguments(args);
    String workload = arguments.get("workload");
    Jobs jobs =
        new Jobs(
            arguments.get("input"),
            arguments.get("output"),
            Duration.ofMillis(Long.parseLong(arguments.get("window_ms", "60000"))),
            Variant.of(arguments.get("variant", "close-heap")));
    Properties settings = settings(arguments);
    // What is left of the command line comes last and wins.
    settings.putAll(arguments.settings());

    KafkaStreams streams = new KafkaStreams(jobs.topology(workload, settings), settings);
    CountDownLatch ended = new CountDownLatch(1);
    streams.setUncaughtExceptionHandler(
        failure -> {
          failure.printStackTrace();
          return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
    streams.setStateListener(
        (now, before) -> {
          if (now == KafkaStreams.State.ERROR) ended.countDown();
        });
    Runtime.getRuntime()
        .addShutdownHook(
            new Thread(
                () -> {
                  boolean failed = streams.state() == KafkaStreams.State.ERROR;
                  boolean closed = streams.close(Duration.ofSeconds(30));
                  Runtime.getRuntime().halt(failed || !closed ? 1 : 0);
                }));
    streams.start();
    ended.await();
    System.exit(1);
  }

  /** The reason for each is in ../README.md. */
  private static Properties settings(Arguments arguments) {
    String id = arguments.get("id");
    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, id);
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments.get("bootstrap"));
    settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments.get("state_dir"));
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, arguments.getInt("threads"));
    settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, arguments.getInt("commit_ms"));
    settings.put(StreamsConfig.TOPOLOGY_OPTIMIZATION_CONFIG, StreamsConfig.OPTIMIZE);
    settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 256L << 20);
    settings.put(StreamsConfig.ROCKSDB_CONFIG_SETTER_CLASS_CONFIG, RocksDb.class);
    settings.put(
        StreamsConfig.WINDOW_STORE_CHANGE_LOG_ADDITIONAL_RETENTION_MS_CONFIG, Duration.ofDays(36_500).toMillis());
    settings.put(StreamsConfig.InternalConfig.EMIT_INTERVAL_MS_KSTREAMS_WINDOWED_AGGREGATION, 0L);

    settings.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.GROUP_INSTANCE_ID_CONFIG), id);
    settings.putAll(
        Map.of(
            StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 2_000,
            StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 128 << 10,
            StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4"));
    return settings;
  }
}
