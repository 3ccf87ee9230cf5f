package peers.common;

/** One customer's orders of one window. */
public class Total {
  public String customer;
  public long windowStart;
  public long orders;
  public long amount;
}
