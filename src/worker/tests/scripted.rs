//! Single behaviours of the worker, step by step.
