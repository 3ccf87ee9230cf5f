//! The `thalweg` binary.

/// librdkafka, RocksDB and the engine allocate from many threads; measured, this allocator saves a
/// sixth of the CPU that consuming and producing take.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    use_small_pages();
    thalweg::cli::main()
}

/// The allocator would ask for transparent huge pages. Buffers come and go with each checkpoint, so that
/// most of a huge page is soon of no use and still resident: measured, a third more memory, and more
/// CPU as well, to clear and compact them. A kernel that refuses costs only that.
fn use_small_pages() {
    #[cfg(target_os = "linux")]
    let _refused = rustix::thread::disable_transparent_huge_pages(true);
}
