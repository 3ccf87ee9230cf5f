package peers.streams;

import java.util.Map;
import org.apache.kafka.streams.state.RocksDBConfigSetter;
import org.rocksdb.BlockBasedTableConfig;
import org.rocksdb.Cache;
import org.rocksdb.LRUCache;
import org.rocksdb.Options;

/** One block cache for all stores instead of one of 50 MiB for each, and larger write buffers. */
public final class RocksDb implements RocksDBConfigSetter {
  private static final Cache CACHE = new LRUCache(256L << 20);

  @Override
  public void setConfig(String store, Options options, Map<String, Object> configs) {
    BlockBasedTableConfig table = (BlockBasedTableConfig) options.tableFormatConfig();
    table.setBlockCache(CACHE);
    table.setCacheIndexAndFilterBlocks(true);
    table.setPinTopLevelIndexAndFilter(true);
    options.setTableFormatConfig(table);
    options.setWriteBufferSize(64L << 20);
    options.setMaxWriteBufferNumber(3);
  }

  @Override
  public void close(String store, Options options) {
    // The cache is shared by the stores that are still open.
  }
}
