package peers.streams;

import java.nio.ByteBuffer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.kstream.Windowed;
import peers.common.Total;

/** The aggregate, 16 bytes in the store. */
record Sum(long orders, long amount) {
  static final Sum ZERO = new Sum(0, 0);
  static final Serde<Sum> SERDE =
      Serdes.serdeFrom(
          (topic, sum) ->
              sum == null ? null : ByteBuffer.allocate(16).putLong(sum.orders).putLong(sum.amount).array(),
          (topic, bytes) -> {
            if (bytes == null) return null;
            ByteBuffer buffer = ByteBuffer.wrap(bytes);
            return new Sum(buffer.getLong(), buffer.getLong());
          });

  Sum plus(long cents) {
    return new Sum(orders + 1, amount + cents);
  }

  Total of(Windowed<String> window) {
    Total total = new Total();
    total.customer = window.key();
    total.windowStart = window.window().start();
    total.orders = orders;
    total.amount = amount;
    return total;
  }
}
