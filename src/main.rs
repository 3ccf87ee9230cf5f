//! The `thalweg` binary.

/// librdkafka, RocksDB and the engine allocate from many threads; measured, this allocator saves a
/// sixth of the CPU that consuming and producing take.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    thalweg::cli::main()
}
