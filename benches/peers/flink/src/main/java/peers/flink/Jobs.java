package peers.flink;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.sink.TransactionNamingStrategy;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.KafkaSourceOptions;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import peers.common.Bid;
import peers.common.Json;
import peers.common.Order;
import peers.common.Payment;
import peers.common.Total;

/** The workloads as jobs. All but the window are one chain of operators, without a shuffle. */
final class Jobs {
  private static final Duration OUT_OF_ORDER = Duration.ofSeconds(4);
  /** Below transaction.max.timeout.ms of a broker, 15 minutes. */
  private static final Duration TRANSACTION_TIMEOUT = Duration.ofMinutes(10);

  private final String bootstrap;
  private final String input;
  private final String output;
  private final String id;
  private final Duration window;

  Jobs(String bootstrap, String input, String output, String id, Duration window) {
    this.bootstrap = bootstrap;
    this.input = input;
    this.output = output;
    this.id = id;
    this.window = window;
  }

  void define(String workload, StreamExecutionEnvironment flink) {
    switch (workload) {
      case "window" -> window(flink);
      case "project" -> project(flink);
      case "q0" -> write(bids(flink, (key, value) -> Json.bid(value)), bid -> null, Json::q0);
      case "q1" -> write(bids(flink, (key, value) -> Json.bid(value)), bid -> null, Json::q1);
      case "q2" ->
          write(
              bids(flink, (key, value) -> Json.auctionAndPrice(value)).filter(bid -> bid.auction % 123 == 0),
              bid -> null,
              Json::q2);
      default -> throw new IllegalArgumentException("workload is window, project, q0, q1 or q2");
    }
  }

  private void window(StreamExecutionEnvironment flink) {
    Decoder.Decode<Payment> payment =
        (key, value) -> {
          Payment read = Json.payment(value);
          read.customer = new String(key, StandardCharsets.UTF_8);
          return read;
        };
    WatermarkStrategy<Payment> eventTime =
        WatermarkStrategy.<Payment>forBoundedOutOfOrderness(OUT_OF_ORDER)
            .withTimestampAssigner((read, kafkaTime) -> read.createdAt);
    DataStream<Total> totals =
        read(flink, Payment.class, payment, eventTime)
            .keyBy(read -> read.customer)
            .window(TumblingEventTimeWindows.of(window))
            .aggregate(new Sum(), new Sum.OfWindow())
            .uid("window");
    write(totals, total -> total.customer, Json::total);
  }

  private void project(StreamExecutionEnvironment flink) {
    DataStream<Order> paid =
        read(flink, Order.class, (key, value) -> Json.order(value), WatermarkStrategy.noWatermarks())
            .filter(order -> order.paid);
    write(paid, order -> order.customer, Json::projection);
  }

  private DataStream<Bid> bids(StreamExecutionEnvironment flink, Decoder.Decode<Bid> decode) {
    return read(flink, Bid.class, decode, WatermarkStrategy.noWatermarks());
  }

  private <T> DataStream<T> read(
      StreamExecutionEnvironment flink, Class<T> type, Decoder.Decode<T> decode, WatermarkStrategy<T> watermarks) {
    KafkaSource<T> source =
        KafkaSource.<T>builder()
            .setBootstrapServers(bootstrap)
            .setTopics(input)
            .setGroupId(id)
            .setClientIdPrefix(id)
            // The offsets of a checkpoint count. Without one a job begins anew, whatever its group committed.
            .setStartingOffsets(OffsetsInitializer.earliest())
            .setDeserializer(new Decoder<>(TypeInformation.of(type), decode))
            .setProperty(KafkaSourceOptions.PARTITION_DISCOVERY_INTERVAL_MS.key(), "-1")
            .setProperty(ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed")
            .setProperty(ConsumerConfig.MAX_POLL_RECORDS_CONFIG, "2000")
            .build();
    return flink.fromSource(source, watermarks, "input").uid("input");
  }

  private <T> void write(DataStream<T> rows, Encoder.Encode<T, String> key, Encoder.Encode<T, byte[]> value) {
    KafkaSink<T> sink =
        KafkaSink.<T>builder()
            .setBootstrapServers(bootstrap)
            .setRecordSerializer(new Encoder<>(output, key, value))
            .setDeliveryGuarantee(DeliveryGuarantee.EXACTLY_ONCE)
            .setTransactionalIdPrefix(id)
            .setTransactionNamingStrategy(TransactionNamingStrategy.POOLING)
            .setProperty(ProducerConfig.TRANSACTION_TIMEOUT_CONFIG, Long.toString(TRANSACTION_TIMEOUT.toMillis()))
            .setProperty(ProducerConfig.LINGER_MS_CONFIG, "100")
            .setProperty(ProducerConfig.BATCH_SIZE_CONFIG, Integer.toString(128 << 10))
            .setProperty(ProducerConfig.COMPRESSION_TYPE_CONFIG, "lz4")
            .build();
    rows.sinkTo(sink).name("output").uid("output");
  }
}
