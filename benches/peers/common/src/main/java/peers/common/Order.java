package peers.common;

/** What the projection needs of an order, {@code status} as whether it is "paid". */
public class Order {
  public String orderId;
  public String customer;
  public long amount;
  public boolean paid;
  public long createdAt;
}
