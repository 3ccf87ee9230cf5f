package peers.flink;

import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.streaming.api.functions.windowing.ProcessWindowFunction;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.util.Collector;
import peers.common.Payment;
import peers.common.Total;

/** Counts and adds a customer's payments of a window. */
final class Sum implements AggregateFunction<Payment, Sum.Accumulator, Sum.Accumulator> {
  private static final long serialVersionUID = 1;

  /** A POJO by Flink's rules; the backend keeps it per customer and window. */
  public static class Accumulator {
    public long orders;
    public long amount;
  }

  @Override
  public Accumulator createAccumulator() {
    return new Accumulator();
  }

  @Override
  public Accumulator add(Payment payment, Accumulator sum) {
    sum.orders += 1;
    sum.amount += payment.amount;
    return sum;
  }

  @Override
  public Accumulator getResult(Accumulator sum) {
    return sum;
  }

  @Override
  public Accumulator merge(Accumulator a, Accumulator b) {
    a.orders += b.orders;
    a.amount += b.amount;
    return a;
  }

  /** Adds key and window to the result. */
  static final class OfWindow extends ProcessWindowFunction<Accumulator, Total, String, TimeWindow> {
    private static final long serialVersionUID = 1;

    @Override
    public void process(String customer, Context context, Iterable<Accumulator> result, Collector<Total> out) {
      Accumulator sum = result.iterator().next();
      Total total = new Total();
      total.customer = customer;
      total.windowStart = context.window().getStart();
      total.orders = sum.orders;
      total.amount = sum.amount;
      out.collect(total);
    }
  }
}
