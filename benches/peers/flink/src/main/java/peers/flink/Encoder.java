package peers.flink;

import java.io.Serializable;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Optional;
import java.util.Properties;
import org.apache.flink.connector.kafka.lineage.DefaultKafkaDatasetFacet;
import org.apache.flink.connector.kafka.lineage.DefaultKafkaDatasetIdentifier;
import org.apache.flink.connector.kafka.lineage.KafkaDatasetFacet;
import org.apache.flink.connector.kafka.lineage.KafkaDatasetFacetProvider;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.kafka.clients.producer.ProducerRecord;

/**
 * Makes a record of each {@code T}, with a key unless that is null; its time is the row's. The
 * sink asks for the topic, to find transactions that were left open there.
 */
final class Encoder<T> implements KafkaRecordSerializationSchema<T>, KafkaDatasetFacetProvider {
  private static final long serialVersionUID = 1;

  private final String topic;
  private final Encode<T, String> key;
  private final Encode<T, byte[]> value;

  Encoder(String topic, Encode<T, String> key, Encode<T, byte[]> value) {
    this.topic = topic;
    this.key = key;
    this.value = value;
  }

  @Override
  public ProducerRecord<byte[], byte[]> serialize(T row, KafkaSinkContext context, Long time) {
    String name = key.encode(row);
    byte[] bytes = name == null ? null : name.getBytes(StandardCharsets.UTF_8);
    return new ProducerRecord<>(topic, null, time, bytes, value.encode(row));
  }

  @Override
  public Optional<KafkaDatasetFacet> getKafkaDatasetFacet() {
    return Optional.of(
        new DefaultKafkaDatasetFacet(DefaultKafkaDatasetIdentifier.ofTopics(List.of(topic)), new Properties()));
  }

  interface Encode<T, R> extends Serializable {
    R encode(T row);
  }
}
