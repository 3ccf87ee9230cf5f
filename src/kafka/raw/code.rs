//! Error codes as the numbers that they are.
//!
//! Safety: librdkafka passes on whatever number a broker answers, also one that it has no name for
//! itself (such as INCONSISTENT_TOPIC_ID, 103, to a fetch). The bindings have a Rust enum for codes, and a
//! number that it does not name must never be read as a value of it. So nothing here takes a code from
//! librdkafka by that enum: the functions that answer with one are declared once more, as in `rdkafka.h`
//! but with the number (a C enum with negative values is an `int`), and the fields that hold one are read
//! by [`code_at`]. (What is answered and not looked at is librdkafka's own, and named.)
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};

use rdkafka::bindings as rd;

pub const NO_ERROR: c_int = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR as c_int;

unsafe extern "C" {
    pub fn rd_kafka_err2str(code: c_int) -> *const c_char;
    pub fn rd_kafka_last_error() -> c_int;
    pub fn rd_kafka_error_code(error: *const rd::rd_kafka_error_t) -> c_int;
    pub fn rd_kafka_event_error(event: *mut rd::rd_kafka_event_t) -> c_int;
    pub fn rd_kafka_fatal_error(rk: *mut rd::rd_kafka_t, text: *mut c_char, text_bytes: usize) -> c_int;

    pub fn rd_kafka_subscribe(
        rk: *mut rd::rd_kafka_t,
        topics: *const rd::rd_kafka_topic_partition_list_t,
    ) -> c_int;
    pub fn rd_kafka_unsubscribe(rk: *mut rd::rd_kafka_t) -> c_int;
    pub fn rd_kafka_assign(
        rk: *mut rd::rd_kafka_t,
        partitions: *const rd::rd_kafka_topic_partition_list_t,
    ) -> c_int;
    pub fn rd_kafka_assignment(
        rk: *mut rd::rd_kafka_t,
        partitions: *mut *mut rd::rd_kafka_topic_partition_list_t,
    ) -> c_int;

    pub fn rd_kafka_pause_partitions(
        rk: *mut rd::rd_kafka_t,
        partitions: *mut rd::rd_kafka_topic_partition_list_t,
    ) -> c_int;
    pub fn rd_kafka_resume_partitions(
        rk: *mut rd::rd_kafka_t,
        partitions: *mut rd::rd_kafka_topic_partition_list_t,
    ) -> c_int;

    pub fn rd_kafka_committed(
        rk: *mut rd::rd_kafka_t,
        partitions: *mut rd::rd_kafka_topic_partition_list_t,
        timeout_ms: c_int,
    ) -> c_int;
    pub fn rd_kafka_query_watermark_offsets(
        rk: *mut rd::rd_kafka_t,
        topic: *const c_char,
        partition: i32,
        low: *mut i64,
        high: *mut i64,
        timeout_ms: c_int,
    ) -> c_int;

    pub fn rd_kafka_header_add(
        headers: *mut rd::rd_kafka_headers_t,
        name: *const c_char,
        name_bytes: isize,
        value: *const c_void,
        value_bytes: isize,
    ) -> c_int;
    pub fn rd_kafka_header_get_all(
        headers: *const rd::rd_kafka_headers_t,
        place: usize,
        name: *mut *const c_char,
        value: *mut *const c_void,
        value_bytes: *mut usize,
    ) -> c_int;
    pub fn rd_kafka_message_headers(
        message: *const rd::rd_kafka_message_t,
        headers: *mut *mut rd::rd_kafka_headers_t,
    ) -> c_int;
}

/// The code in a field of one of librdkafka's structures, which must not be borrowed as a whole while
/// the code may be one that the enum does not name.
///
/// # Safety
/// `field` is live.
pub unsafe fn code_at(field: *const rd::rd_kafka_resp_err_t) -> c_int {
    // SAFETY: live, as the caller promises; the enum is represented by an `i32`, which is `c_int`.
    unsafe { field.cast::<c_int>().read() }
}

/// The name that the bindings have for a code, if they have one.
pub fn named(code: c_int) -> Option<rd::rd_kafka_resp_err_t> {
    rd::rd_kafka_resp_err_t::try_from(code).ok()
}
