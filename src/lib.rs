//! Thalweg: a Kafka-native stream processor.
//!
//! A topology consumes Kafka topics, applies keyed, windowed, stateful operators and writes Kafka
//! topics, exactly once from end to end. State changes, outputs and source offsets are committed in
//! one Kafka transaction; RocksDB is a cache of what was committed, so a crash never wipes it.
//!
//! The modules are layers; one never imports another further down this list:
//! [`record`], [`time`], [`random`], [`planted`] and [`ablation`]; [`format`] and [`expression`];
//! [`state`] and [`window`]; [`operator`] and [`topology`]; [`task`] and [`worker`];
//! [`kafka`], [`rocks`], [`model`] and [`simulator`];
//! [`runtime`], [`telemetry`], [`service`], [`settings`], [`testing`] and [`generator`]; [`cli`].

pub mod ablation;
pub mod planted;
pub mod random;
pub mod record;
pub mod time;

pub mod expression;
pub mod format;

pub mod state;
pub mod window;

pub mod operator;
pub mod topology;

pub mod task;
pub mod worker;

pub mod kafka;
pub mod model;
pub mod rocks;
pub mod simulator;

pub mod generator;
pub mod runtime;
pub mod service;
pub mod settings;
pub mod telemetry;
pub mod testing;

pub mod cli;
