//! Errors and the strings that explain them.
//!
//! Safety: an error object is decoded while it lives and freed once by whoever owns it; every string
//! that librdkafka lends is copied at once. For codes see `code`.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int};

use rdkafka::bindings as rd;
use rdkafka::types::RDKafkaErrorCode;

use super::code;

/// An error as librdkafka reported it, decoded.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What it is; `Unknown` for a code that only the broker knows.
    pub code: RDKafkaErrorCode,
    /// librdkafka's own text.
    pub text: String,
    /// The client can do nothing more.
    pub fatal: bool,
    /// The same call may be made again. (Whether a transaction can be aborted is of no interest: after
    /// any other error its producer is replaced, which aborts it.)
    pub retriable: bool,
}

impl Failure {
    /// A failure that librdkafka told by a bare code.
    pub(super) fn of_code(code: c_int) -> Failure {
        let (name, text) = match code::named(code) {
            // SAFETY: a static string, or one that this thread's next such call overwrites; copied here.
            Some(err) => (err.into(), unsafe { string(code::rd_kafka_err2str(code)) }),
            None => (RDKafkaErrorCode::Unknown, format!("error code {code} of a newer broker")),
        };
        Failure { code: name, text, fatal: false, retriable: false }
    }

    pub(super) fn of(err: rd::rd_kafka_resp_err_t) -> Failure {
        Failure::of_code(err as c_int)
    }

    pub(super) fn check(code: c_int) -> Result<(), Failure> {
        if code == code::NO_ERROR { Ok(()) } else { Err(Failure::of_code(code)) }
    }

    /// Decodes and frees an error object; null is success.
    ///
    /// # Safety
    /// `error` is null, or live and the caller's to free.
    pub(super) unsafe fn check_owned(error: *mut rd::rd_kafka_error_t) -> Result<(), Failure> {
        // SAFETY: as the caller promises; freed once, after it was decoded. Null is ignored.
        unsafe {
            let failure = Failure::decode(error);
            rd::rd_kafka_error_destroy(error);
            failure.map_or(Ok(()), Err)
        }
    }

    /// What an error object says; null and one without an error are none.
    ///
    /// # Safety
    /// `error` is null or live.
    pub(super) unsafe fn decode(error: *const rd::rd_kafka_error_t) -> Option<Failure> {
        if error.is_null() {
            return None;
        }
        // SAFETY: live, as the caller promises; the string is copied.
        unsafe {
            let failure = Failure::check(code::rd_kafka_error_code(error)).err()?;
            Some(Failure {
                text: string(rd::rd_kafka_error_string(error)),
                fatal: rd::rd_kafka_error_is_fatal(error) != 0,
                retriable: rd::rd_kafka_error_is_retriable(error) != 0,
                ..failure
            })
        }
    }
}

/// Copies a string that librdkafka lends; null is the empty string.
///
/// # Safety
/// `text` is null or a NUL-terminated string that lives over the call.
pub(super) unsafe fn string(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
