package peers.streams;

import java.util.Arrays;
import java.util.List;

/**
 * How the window is held and emitted: {@code close} or {@code suppress}, then {@code -heap} for a store in
 * memory instead of RocksDB, then {@code -cached} for a record cache before the store ({@code suppress}
 * always has it: without it every single update would go through the buffer).
 */
record Variant(boolean suppress, boolean heap, boolean cached) {
  static Variant of(String name) {
    String[] words = name.split("-");
    List<String> options = Arrays.asList(words).subList(1, words.length);
    boolean suppress = words[0].equals("suppress");
    if (!suppress && !words[0].equals("close") || !List.of("heap", "cached").containsAll(options)) {
      throw new IllegalArgumentException("variant is close or suppress, then -heap and -cached if wanted");
    }
    return new Variant(suppress, options.contains("heap"), suppress || options.contains("cached"));
  }
}
