//! Writing records, each with a number that comes back with its delivery.
//!
//! Safety: a topic's handle is owned and freed once, before its client. Key and value are copied during
//! the call. Headers are owned here until the call that takes them succeeds. The number travels as a
//! pointer that nobody follows.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rdkafka::bindings as rd;

use super::client::Client;
use super::error::Failure;
use super::{c_string, code};

impl Client {
    /// A handle to write to `topic`.
    pub fn topic(self: &Arc<Self>, topic: &str) -> Result<Topic, Failure> {
        let name = c_string(topic);
        // SAFETY: an owned handle; null is an error that `rd_kafka_last_error` names.
        unsafe {
            match NonNull::new(rd::rd_kafka_topic_new(self.ptr(), name.as_ptr(), ptr::null_mut())) {
                Some(rkt) => Ok(Topic { rkt, client: self.clone() }),
                None => Err(Failure::of_code(code::rd_kafka_last_error())),
            }
        }
    }
}

/// A topic to write to.
pub struct Topic {
    rkt: NonNull<rd::rd_kafka_topic_t>,
    client: Arc<Client>,
}

// SAFETY: point 1 of the room's argument.
unsafe impl Send for Topic {}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: owned, freed once, before the client (`client` is dropped after this).
        unsafe { rd::rd_kafka_topic_destroy(self.rkt.as_ptr()) }
    }
}

/// A record to write, borrowed.
pub struct Outgoing<'a> {
    /// Where to.
    pub partition: i32,
    /// The key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names and values.
    pub headers: &'a [(String, Option<Vec<u8>>)],
    /// 0: the time of sending.
    pub timestamp_ms: i64,
    /// Comes back with the delivery.
    pub tag: usize,
}

impl Topic {
    /// Puts a record into the producer's queue, which copies it.
    pub fn produce(&self, record: &Outgoing<'_>) -> Result<(), Failure> {
        use rd::rd_kafka_vtype_t::*;
        let bytes = |bytes: Option<&[u8]>| rd::rd_kafka_vu_s__bindgen_ty_1 {
            mem: rd::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
                ptr: bytes.map_or(ptr::null_mut(), |bytes| bytes.as_ptr() as *mut c_void),
                size: bytes.map_or(0, <[u8]>::len),
            },
        };
        type Argument = rd::rd_kafka_vu_s__bindgen_ty_1;
        let headers = Headers::new(record.headers)?;
        let mut arguments = [
            (RD_KAFKA_VTYPE_RKT, Argument { rkt: self.rkt.as_ptr() }),
            (RD_KAFKA_VTYPE_PARTITION, Argument { i32_: record.partition }),
            (RD_KAFKA_VTYPE_MSGFLAGS, Argument { i: rd::RD_KAFKA_MSG_F_COPY }),
            (RD_KAFKA_VTYPE_TIMESTAMP, Argument { i64_: record.timestamp_ms }),
            (RD_KAFKA_VTYPE_OPAQUE, Argument { ptr: ptr::without_provenance_mut(record.tag) }),
            (RD_KAFKA_VTYPE_KEY, bytes(record.key)),
            (RD_KAFKA_VTYPE_VALUE, bytes(record.value)),
            (RD_KAFKA_VTYPE_HEADERS, Argument { headers: headers.0 }),
        ]
        .map(|(vtype, u)| rd::rd_kafka_vu_t { vtype, u });
        let count = arguments.len() - usize::from(headers.0.is_null());
        // SAFETY: each argument has the type that its tag demands. Key and value are copied during the
        // call; the headers change hands if it succeeds. The opaque is a number, never followed.
        let done = unsafe {
            Failure::check_owned(rd::rd_kafka_produceva(self.client.ptr(), arguments.as_mut_ptr(), count))
        };
        if done.is_ok() {
            std::mem::forget(headers);
        }
        done
    }
}

/// The headers of one record on their way; null when there are none.
struct Headers(*mut rd::rd_kafka_headers_t);

impl Headers {
    fn new(headers: &[(String, Option<Vec<u8>>)]) -> Result<Headers, Failure> {
        if headers.is_empty() {
            return Ok(Headers(ptr::null_mut()));
        }
        // SAFETY: an owned list; names and values are given with their lengths and copied.
        let list = Headers(unsafe { rd::rd_kafka_headers_new(headers.len()) });
        for (name, value) in headers {
            let (value, len) = match value {
                Some(value) => (value.as_ptr().cast::<c_void>(), value.len() as isize),
                None => (ptr::null(), 0),
            };
            // SAFETY: as above.
            Failure::check(unsafe {
                code::rd_kafka_header_add(list.0, name.as_ptr().cast(), name.len() as isize, value, len)
            })?;
        }
        Ok(list)
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: still owned (a success of `produce` forgets it).
            unsafe { rd::rd_kafka_headers_destroy(self.0) }
        }
    }
}
