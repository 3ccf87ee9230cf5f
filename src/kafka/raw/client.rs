//! The handle of a client: made, asked for its fatal error, destroyed.
//!
//! Safety: the handle is made once, never null, and destroyed once, by the drop of the one [`Client`]
//! that owns it. Clients are shared by `Arc` and librdkafka is thread-safe, so a client may be used by
//! several threads and be dropped by any of them, except by one of librdkafka's own: these run no code of
//! this crate but a [`Wake`](super::Wake), which must not call into Kafka.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rdkafka::bindings as rd;

use super::error::{Failure, string};
use super::{c_string, code};

/// Which half of librdkafka a client is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Consumer,
    Producer,
}

/// A librdkafka client. All that it tells arrives in [`Client::events`].
pub struct Client {
    rk: NonNull<rd::rd_kafka_t>,
}

// SAFETY: point 1 of the room's argument.
unsafe impl Send for Client {}
// SAFETY: point 1 of the room's argument.
unsafe impl Sync for Client {}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: the last reference; queues, topics and messages are gone (point 2). The flag keeps
        // it from waiting for a rebalance that nobody answers; `KafkaLog::leave` closes properly.
        unsafe { rd::rd_kafka_destroy_flags(self.rk.as_ptr(), rd::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE) }
    }
}

impl Client {
    /// Creates a client. A later setting overrides an earlier one of the same name.
    pub fn new(kind: Kind, settings: &[(String, String)]) -> Result<Arc<Client>, String> {
        let mut text = [0 as c_char; 512];
        // SAFETY: `conf` is owned here until `rd_kafka_new` succeeds, which takes it; `text` is
        // NUL-terminated by librdkafka within its length.
        unsafe {
            let conf = rd::rd_kafka_conf_new();
            for (name, value) in settings {
                let (name, value) = (c_string(name), c_string(value));
                let set =
                    rd::rd_kafka_conf_set(conf, name.as_ptr(), value.as_ptr(), text.as_mut_ptr(), text.len());
                if set != rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK {
                    rd::rd_kafka_conf_destroy(conf);
                    return Err(string(text.as_ptr()));
                }
            }
            let (kind, events) = match kind {
                Kind::Consumer => (rd::rd_kafka_type_t::RD_KAFKA_CONSUMER, rd::RD_KAFKA_EVENT_REBALANCE),
                Kind::Producer => (rd::rd_kafka_type_t::RD_KAFKA_PRODUCER, rd::RD_KAFKA_EVENT_DR),
            };
            let events =
                events | rd::RD_KAFKA_EVENT_ERROR | rd::RD_KAFKA_EVENT_STATS | rd::RD_KAFKA_EVENT_LOG;
            rd::rd_kafka_conf_set_events(conf, events);
            let rk = rd::rd_kafka_new(kind, conf, text.as_mut_ptr(), text.len());
            let Some(rk) = NonNull::new(rk) else {
                rd::rd_kafka_conf_destroy(conf);
                return Err(string(text.as_ptr()));
            };
            let client = Arc::new(Client { rk });
            // Logs go where the other events go (the setting `log.queue` is on).
            rd::rd_kafka_set_log_queue(rk.as_ptr(), ptr::null_mut());
            Ok(client)
        }
    }

    /// The live handle.
    pub(super) fn ptr(&self) -> *mut rd::rd_kafka_t {
        self.rk.as_ptr()
    }

    /// The error that ended this client, if one did.
    pub fn fatal(&self) -> Option<Failure> {
        let mut text = [0 as c_char; 512];
        // SAFETY: writes a NUL-terminated string within the length.
        let (code, text) = unsafe {
            let code = code::rd_kafka_fatal_error(self.ptr(), text.as_mut_ptr(), text.len());
            (code, string(text.as_ptr()))
        };
        let failure = Failure::check(code).err()?;
        Some(Failure { text, fatal: true, ..failure })
    }
}
