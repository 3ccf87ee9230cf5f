//! Placeholder.

pub mod store;

pub use header::Header;
mod header {
    /// Placeholder.
    #[derive(Clone, PartialEq, Debug)]
    pub struct Header;
}
