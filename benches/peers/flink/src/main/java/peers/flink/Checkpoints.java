package peers.flink;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.PathMatcher;
import java.nio.file.attribute.FileTime;
import java.util.Comparator;
import java.util.Optional;
import java.util.stream.Stream;

/** Finds what an earlier run left behind. */
final class Checkpoints {
  private Checkpoints() {}

  /** A checkpoint is complete once its metadata has its name, {@code JOB/chk-N/_metadata}. */
  static Optional<Path> latest(Path checkpoints) throws IOException {
    if (!Files.exists(checkpoints)) return Optional.empty();
    PathMatcher metadata = FileSystems.getDefault().getPathMatcher("glob:**/chk-*/_metadata");
    try (Stream<Path> found = Files.find(checkpoints, 3, (path, file) -> metadata.matches(path))) {
      return found.max(Comparator.comparing(Checkpoints::written)).map(Path::getParent);
    }
  }

  private static FileTime written(Path path) {
    try {
      return Files.getLastModifiedTime(path);
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    }
  }
}
