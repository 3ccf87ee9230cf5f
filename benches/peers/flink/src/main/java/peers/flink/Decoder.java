package peers.flink;

import java.io.Serializable;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/** Makes a {@code T} of each record. */
final class Decoder<T> implements KafkaRecordDeserializationSchema<T> {
  private static final long serialVersionUID = 1;

  private final TypeInformation<T> type;
  private final Decode<T> decode;

  Decoder(TypeInformation<T> type, Decode<T> decode) {
    this.type = type;
    this.decode = decode;
  }

  @Override
  public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<T> out) {
    out.collect(decode.decode(record.key(), record.value()));
  }

  @Override
  public TypeInformation<T> getProducedType() {
    return type;
  }

  interface Decode<T> extends Serializable {
    T decode(byte[] key, byte[] value);
  }
}
