//! `thalweg`, of which parts can be switched off: `THALWEG_WITHOUT=write-behind,cache ablated run …`.

/// As that of the service.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    thalweg::ablation::switch_off(&std::env::var("THALWEG_WITHOUT").unwrap_or_default());
    thalweg::cli::main()
}
