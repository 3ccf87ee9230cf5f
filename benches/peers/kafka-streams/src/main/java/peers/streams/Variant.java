package peers.streams;

/** How the window is held and emitted. */
record Variant(boolean suppress, boolean heap) {
  static Variant of(String name) {
    return switch (name) {
      case "close" -> new Variant(false, false);
      case "close-heap" -> new Variant(false, true);
      case "suppress" -> new Variant(true, false);
      case "suppress-heap" -> new Variant(true, true);
      default -> throw new IllegalArgumentException("variant is close, close-heap, suppress or suppress-heap");
    };
  }
}
