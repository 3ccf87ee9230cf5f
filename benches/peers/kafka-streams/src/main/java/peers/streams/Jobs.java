package peers.streams;

import java.time.Duration;
import java.util.Properties;
import java.util.function.Function;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.EmitStrategy;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Suppressed;
import org.apache.kafka.streams.kstream.Suppressed.BufferConfig;
import org.apache.kafka.streams.kstream.TimeWindowedKStream;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.processor.TimestampExtractor;
import org.apache.kafka.streams.state.BuiltInDslStoreSuppliers.InMemoryDslStoreSuppliers;
import org.apache.kafka.streams.state.BuiltInDslStoreSuppliers.RocksDBDslStoreSuppliers;
import org.apache.kafka.streams.state.WindowStore;
import peers.common.Bid;
import peers.common.Json;
import peers.common.Order;
import peers.common.Payment;
import peers.common.Total;

/** The workloads as topologies; none needs a repartition topic. */
final class Jobs {
  private static final Duration OUT_OF_ORDER = Duration.ofSeconds(4);
  /** Beyond the window's size. Longer than the hour by which the closing records are ahead: they must not expire what they close. */
  private static final Duration RETENTION = Duration.ofMinutes(75);

  private static final TimestampExtractor CREATED_AT =
      (order, partitionTime) -> ((Payment) order.value()).createdAt;

  private final StreamsBuilder builder = new StreamsBuilder();
  private final String input;
  private final String output;
  private final Duration window;
  private final Variant variant;

  Jobs(String input, String output, Duration window, Variant variant) {
    this.input = input;
    this.output = output;
    this.window = window;
    this.variant = variant;
  }

  Topology topology(String workload, Properties settings) {
    switch (workload) {
      case "window" -> window();
      case "project" -> project();
      case "q0" -> bids(Json::bid).to(output, Produced.with(Serdes.ByteArray(), writing(Json::q0)));
      case "q1" -> bids(Json::bid).to(output, Produced.with(Serdes.ByteArray(), writing(Json::q1)));
      case "q2" ->
          bids(Json::auctionAndPrice)
              .filter((key, bid) -> bid.auction % 123 == 0)
              .to(output, Produced.with(Serdes.ByteArray(), writing(Json::q2)));
      default -> throw new IllegalArgumentException("workload is window, project, q0, q1 or q2");
    }
    return builder.build(settings);
  }

  private void window() {
    TimeWindowedKStream<String, Payment> windows =
        builder
            .stream(
                input, Consumed.with(Serdes.String(), reading(Json::payment)).withTimestampExtractor(CREATED_AT))
            .groupByKey()
            .windowedBy(TimeWindows.ofSizeAndGrace(window, OUT_OF_ORDER));
    if (!variant.suppress()) windows = windows.emitStrategy(EmitStrategy.onWindowClose());

    KTable<Windowed<String>, Sum> sums =
        windows.aggregate(() -> Sum.ZERO, (customer, payment, sum) -> sum.plus(payment.amount), store());
    if (variant.suppress()) sums = sums.suppress(Suppressed.untilWindowCloses(BufferConfig.unbounded()));

    sums.toStream()
        .map((window, sum) -> KeyValue.pair(window.key(), sum.of(window)))
        .to(output, Produced.with(Serdes.String(), writing(Json::total)));
  }

  private Materialized<String, Sum, WindowStore<Bytes, byte[]>> store() {
    Materialized<String, Sum, WindowStore<Bytes, byte[]>> store =
        Materialized.<String, Sum, WindowStore<Bytes, byte[]>>as("sums")
            .withKeySerde(Serdes.String())
            .withValueSerde(Sum.SERDE)
            .withRetention(window.plus(RETENTION))
            .withStoreType(variant.heap() ? new InMemoryDslStoreSuppliers() : new RocksDBDslStoreSuppliers());
    return variant.cached() ? store.withCachingEnabled() : store.withCachingDisabled();
  }

  private void project() {
    builder
        .stream(input, Consumed.with(Serdes.ByteArray(), reading(Json::order)))
        .filter((key, order) -> order.paid)
        // The key is the customer already, and stays.
        .to(output, Produced.with(Serdes.ByteArray(), writing(Json::projection)));
  }

  private KStream<byte[], Bid> bids(Function<byte[], Bid> parse) {
    return builder.stream(input, Consumed.with(Serdes.ByteArray(), reading(parse)));
  }

  private static <T> Serde<T> reading(Function<byte[], T> parse) {
    return Serdes.serdeFrom(
        (topic, value) -> {
          throw new UnsupportedOperationException("only read");
        },
        (topic, bytes) -> parse.apply(bytes));
  }

  private static <T> Serde<T> writing(Function<T, byte[]> write) {
    return Serdes.serdeFrom(
        (topic, value) -> write.apply(value),
        (topic, bytes) -> {
          throw new UnsupportedOperationException("only written");
        });
  }
}
