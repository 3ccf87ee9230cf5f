package peers.common;

/** What the window needs of an order. Public fields and no constructor: a POJO by Flink's rules. */
public class Payment {
  public String customer;
  public long amount;
  public long createdAt;
}
