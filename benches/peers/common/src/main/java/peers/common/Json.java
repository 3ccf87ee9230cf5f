package peers.common;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamWriteFeature;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;

/**
 * JSON by Jackson's streaming parser and generator, without data binding. Every record is read to its end,
 * so a malformed one is refused wherever it is broken; fields that the job does not need are skipped, not
 * made into objects. One factory serves all threads: it recycles its buffers per thread.
 */
public final class Json {
  private static final JsonFactory FACTORY =
      JsonFactory.builder()
          .enable(StreamWriteFeature.USE_FAST_DOUBLE_WRITER)
          .build();

  private Json() {}

  /** Amount and time; the customer is the record's key. */
  public static Payment payment(byte[] json) {
    Payment payment = new Payment();
    read(json, (parser, field) -> {
      switch (field) {
        case "amount" -> payment.amount = parser.getLongValue();
        case "created_at" -> payment.createdAt = parser.getLongValue();
        default -> parser.skipChildren();
      }
    });
    return payment;
  }

  public static Order order(byte[] json) {
    Order order = new Order();
    read(json, (parser, field) -> {
      switch (field) {
        case "order_id" -> order.orderId = parser.getText();
        case "customer" -> order.customer = parser.getText();
        case "amount" -> order.amount = parser.getLongValue();
        case "status" -> order.paid = parser.getText().equals("paid");
        case "created_at" -> order.createdAt = parser.getLongValue();
        default -> parser.skipChildren();
      }
    });
    return order;
  }

  public static Bid bid(byte[] json) {
    Bid bid = new Bid();
    read(json, (parser, field) -> {
      switch (field) {
        case "auction" -> bid.auction = parser.getLongValue();
        case "bidder" -> bid.bidder = parser.getLongValue();
        case "price" -> bid.price = parser.getLongValue();
        case "channel" -> bid.channel = parser.getText();
        case "url" -> bid.url = parser.getText();
        case "date_time" -> bid.dateTime = parser.getLongValue();
        case "extra" -> bid.extra = parser.getText();
        default -> parser.skipChildren();
      }
    });
    return bid;
  }

  /** The fields that q2 needs. */
  public static Bid auctionAndPrice(byte[] json) {
    Bid bid = new Bid();
    read(json, (parser, field) -> {
      switch (field) {
        case "auction" -> bid.auction = parser.getLongValue();
        case "price" -> bid.price = parser.getLongValue();
        default -> parser.skipChildren();
      }
    });
    return bid;
  }

  public static byte[] total(Total total) {
    return write(json -> {
      json.writeStringField("customer", total.customer);
      json.writeNumberField("window_start", total.windowStart);
      json.writeNumberField("orders", total.orders);
      json.writeNumberField("amount", total.amount);
    });
  }

  public static byte[] projection(Order order) {
    return write(json -> {
      json.writeStringField("order_id", order.orderId);
      json.writeStringField("customer", order.customer);
      json.writeNumberField("amount", order.amount);
      json.writeNumberField("created_at", order.createdAt);
    });
  }

  public static byte[] q0(Bid bid) {
    return write(json -> {
      json.writeNumberField("auction", bid.auction);
      json.writeNumberField("bidder", bid.bidder);
      json.writeNumberField("price", bid.price);
      rest(json, bid);
    });
  }

  public static byte[] q1(Bid bid) {
    return write(json -> {
      json.writeNumberField("auction", bid.auction);
      json.writeNumberField("bidder", bid.bidder);
      json.writeNumberField("price", 0.908 * bid.price);
      rest(json, bid);
    });
  }

  public static byte[] q2(Bid bid) {
    return write(json -> {
      json.writeNumberField("auction", bid.auction);
      json.writeNumberField("price", bid.price);
    });
  }

  private static void rest(JsonGenerator json, Bid bid) throws IOException {
    json.writeStringField("channel", bid.channel);
    json.writeStringField("url", bid.url);
    json.writeNumberField("date_time", bid.dateTime);
    json.writeStringField("extra", bid.extra);
  }

  private interface Field {
    /** The parser stands at the field's value. */
    void read(JsonParser parser, String name) throws IOException;
  }

  private static void read(byte[] json, Field field) {
    try (JsonParser parser = FACTORY.createParser(json)) {
      if (parser.nextToken() != JsonToken.START_OBJECT) throw new IllegalArgumentException("no JSON object");
      for (String name = parser.nextFieldName(); name != null; name = parser.nextFieldName()) {
        parser.nextToken();
        field.read(parser, name);
      }
    } catch (IOException broken) {
      throw new UncheckedIOException(broken);
    }
  }

  private interface Fields {
    void write(JsonGenerator json) throws IOException;
  }

  private static byte[] write(Fields fields) {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream(256);
    try (JsonGenerator json = FACTORY.createGenerator(bytes)) {
      json.writeStartObject();
      fields.write(json);
      json.writeEndObject();
    } catch (IOException impossible) {
      throw new UncheckedIOException(impossible);
    }
    return bytes.toByteArray();
  }
}
