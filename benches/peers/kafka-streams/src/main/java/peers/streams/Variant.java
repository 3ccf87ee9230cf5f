package peers.streams;

import java.util.List;

/**
 * How the window is held and emitted: {@code close} or {@code suppress}; then {@code -heap} for a store in
 * memory instead of RocksDB; then {@code -cached} or {@code -direct} to differ from what is best.
 */
record Variant(boolean suppress, boolean heap, boolean cached) {
  static Variant of(String name) {
    List<String> words = List.of(name.split("-"));
    boolean suppress = words.get(0).equals("suppress");
    if (!suppress && !words.get(0).equals("close") || !List.of("heap", "cached", "direct").containsAll(words.subList(1, words.size()))) {
      throw new IllegalArgumentException("variant is close or suppress, then -heap, -cached, -direct if wanted");
    }
    return new Variant(suppress, words.contains("heap"), words.contains("cached") || suppress && !words.contains("direct"));
  }
}
