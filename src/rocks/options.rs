//! How RocksDB is set up.

use std::ffi::c_int;

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, Env, Error, LogLevel, Options,
    WriteBufferManager,
};

/// A store's write buffer is never larger, so that writing it out stays short.
const WRITE_BUFFER_BYTES_MAX: usize = 64 << 20;
const WRITE_BUFFER_BYTES_MIN: usize = 1 << 20;

/// What the stores of a process may use together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RocksSettings {
    /// Blocks, indexes and filters kept in memory, in bytes.
    pub block_cache_bytes: usize,
    /// Writes that are not on disk yet, in bytes. Beyond it stores write out early; not a hard limit.
    pub write_buffer_bytes: usize,
    /// Threads that compact; one more writes buffers out.
    pub background_threads: usize,
    /// Open files per store; -1: as many as it has. A lower number costs reads, which open files again.
    pub max_open_files: i32,
    /// From this many points on a write becomes a table file instead of going through the write buffer: what making
    /// a file costs beside its content, four syncs among it, is little next to so many.
    pub table_points_min: usize,
}

impl Default for RocksSettings {
    fn default() -> Self {
        RocksSettings {
            block_cache_bytes: 64 << 20,
            write_buffer_bytes: 64 << 20,
            background_threads: 2,
            max_open_files: 256,
            table_points_min: 16_384,
        }
    }
}

/// What all stores of a process share.
pub(super) struct Shared {
    options: Options,
    table_points_min: usize,
}

impl Shared {
    pub(super) fn new(settings: &RocksSettings) -> Result<Shared, Error> {
        let threads = c_int::try_from(settings.background_threads.max(1)).unwrap_or(c_int::MAX - 1);
        let mut options = Options::default();
        let mut env = Env::new()?;
        env.set_high_priority_background_threads(1);
        env.set_low_priority_background_threads(threads);
        options.set_env(&env);
        options.set_max_background_jobs(threads + 1);
        options.set_write_buffer_manager(&WriteBufferManager::new_write_buffer_manager(
            settings.write_buffer_bytes,
            // Stalling would block all stores until one has written out.
            false,
        ));
        options.create_if_missing(true);
        options.set_paranoid_checks(true);
        options.set_max_open_files(settings.max_open_files);
        options.set_compression_type(DBCompressionType::Lz4);
        // Two buffers, one filling while the other is written out.
        let half = settings.write_buffer_bytes / 2;
        options.set_write_buffer_size(half.clamp(WRITE_BUFFER_BYTES_MIN, WRITE_BUFFER_BYTES_MAX));
        // Many small stores share the limit on write buffers, and each takes whole arena blocks.
        options.set_arena_block_size(256 << 10);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_bytes_per_sync(1 << 20);
        options.set_block_based_table_factory(&tables(settings));
        // It is short: a task's files are few. The usual 4 MiB for each open store add up.
        options.set_manifest_preallocation_size(64 << 10);
        // Its own log and statistics: enough to see what it complained about.
        options.set_log_level(LogLevel::Warn);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(1 << 20);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        Ok(Shared { options, table_points_min: settings.table_points_min })
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    pub(super) fn table_points_min(&self) -> usize {
        self.table_points_min
    }
}

/// The layout of table files. Checksums are verified at every read, which is the default.
fn tables(settings: &RocksSettings) -> BlockBasedOptions {
    let mut tables = BlockBasedOptions::default();
    tables.set_block_cache(&Cache::new_lru_cache(settings.block_cache_bytes));
    // Most misses of the engine's cache are keys that do not exist yet: the filter answers them.
    tables.set_bloom_filter(10.0, false);
    tables.set_optimize_filters_for_memory(true);
    // Small entries mean large indexes and filters: they count as cached blocks, in partitions, so that
    // the limit on memory holds and one read does not load all of them.
    tables.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    tables.set_partition_filters(true);
    tables.set_cache_index_and_filter_blocks(true);
    tables.set_pin_top_level_index_and_filter(true);
    tables.set_pin_l0_filter_and_index_blocks_in_cache(true);
    tables
}
