//! The one room with unsafe code: librdkafka's C interface, as far as `rdkafka` has no safe way to it
//! (batches from a queue, group metadata and the errors of transactions, topic ids, leaving a group).
//!
//! The safety argument, once for all blocks:
//!
//! 1. librdkafka is thread-safe: every function called here may be called from any thread at any time
//!    on a live handle (`rdkafka.h`, "Thread safety"). So [`Client`] is `Send` and `Sync`.
//! 2. Lifetimes. [`Client`] owns its `rd_kafka_t` and destroys it once, when the last `Arc` goes.
//!    Everything that librdkafka wants gone before that (queues, topics, messages, group metadata) is
//!    owned by a type here that frees it in `drop` and holds an `Arc<Client>` behind it, so it is
//!    always freed first, on whichever thread. Messages outlive their queue and their partition's
//!    assignment: each holds its own reference to its partition and its fetch buffer
//!    (`rd_kafka_op_t.rko_rktp`, `rko_u.fetch.rkbuf`).
//! 3. Pointers that librdkafka lends (the strings and lists of an event, the bytes of a message, the
//!    headers) are copied before their owner is freed, or borrowed from the Rust owner.
//! 4. Every string passed in is a `CString` that lives over the call; librdkafka copies it.
//! 5. librdkafka calls back into this crate at one place only, the wake-up of a [`Queue`]: see there.
//!    It has no other callbacks: everything comes as events that the caller polls for.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rdkafka::bindings as rd;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::record::{Records, SourceRecord, TopicPartition};
use crate::worker::port::{Member, TopicId};

/// An error as librdkafka reported it, decoded.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// What it is.
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
    pub fn of_code(err: rd::rd_kafka_resp_err_t) -> Failure {
        // SAFETY: returns a pointer to a static string for every code.
        let text = unsafe { string(rd::rd_kafka_err2str(err)) };
        Failure { code: err.into(), text, fatal: false, retriable: false }
    }

    fn check(err: rd::rd_kafka_resp_err_t) -> Result<(), Failure> {
        match err {
            rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
            err => Err(Failure::of_code(err)),
        }
    }

    /// Decodes and frees an error object; null is success.
    fn check_owned(error: *mut rd::rd_kafka_error_t) -> Result<(), Failure> {
        let Some(failure) = Failure::decode(error) else { return Ok(()) };
        // SAFETY: not null, owned by the caller, freed once, decoded before.
        unsafe { rd::rd_kafka_error_destroy(error) };
        Err(failure)
    }

    fn decode(error: *const rd::rd_kafka_error_t) -> Option<Failure> {
        if error.is_null() {
            return None;
        }
        // SAFETY: a live error object; the string is copied.
        unsafe {
            let err = rd::rd_kafka_error_code(error);
            if err == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return None;
            }
            Some(Failure {
                code: err.into(),
                text: string(rd::rd_kafka_error_string(error)),
                fatal: rd::rd_kafka_error_is_fatal(error) != 0,
                retriable: rd::rd_kafka_error_is_retriable(error) != 0,
            })
        }
    }
}

/// Copies a string that librdkafka lends; null is the empty string.
///
/// # Safety
/// `text` is null or a NUL-terminated string that lives over the call.
unsafe fn string(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// A C string of a name. No name of Kafka's contains a NUL; one that does is cut there, and then is
/// the name of nothing.
fn c_string(text: &str) -> CString {
    let bytes = text.bytes().take_while(|byte| *byte != 0).collect::<Vec<u8>>();
    CString::new(bytes).unwrap_or_default()
}

/// Milliseconds as librdkafka takes them.
fn timeout(ms: u64) -> c_int {
    c_int::try_from(ms).unwrap_or(c_int::MAX)
}

fn list(partitions: &[(TopicPartition, i64)]) -> Result<TopicPartitionList, Failure> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (partition, offset) in partitions {
        list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(*offset)).map_err(
            |error| Failure {
                code: RDKafkaErrorCode::InvalidArgument,
                text: format!("offset {offset} of {partition}: {error}"),
                fatal: false,
                retriable: false,
            },
        )?;
    }
    Ok(list)
}

/// Copies the partitions of a list.
///
/// # Safety
/// `list` is null or a live list.
unsafe fn partitions_of(
    list: *const rd::rd_kafka_topic_partition_list_t,
) -> Vec<(TopicPartition, i64, rd::rd_kafka_resp_err_t)> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: `elems` points to `cnt` elements.
    unsafe {
        let count = usize::try_from((*list).cnt).unwrap_or(0);
        (0..count)
            .map(|index| {
                let element = &*(*list).elems.add(index);
                (TopicPartition::new(&string(element.topic), element.partition), element.offset, element.err)
            })
            .collect()
    }
}

/// Which half of librdkafka a client is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Consumer,
    Producer,
}

/// A librdkafka client. All that it tells arrives in [`Client::events`].
pub(super) struct Client {
    rk: NonNull<rd::rd_kafka_t>,
}

// SAFETY: point 1 of the file's argument.
unsafe impl Send for Client {}
// SAFETY: point 1 of the file's argument.
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

    /// The queue of all events. For a member of a group this is the consumer's queue, into which the
    /// client's own is forwarded.
    pub fn events(self: &Arc<Self>) -> Queue {
        // SAFETY: the returned handles are owned references; `get_consumer` is null without a group.
        let ptr = unsafe {
            let consumer = rd::rd_kafka_queue_get_consumer(self.rk.as_ptr());
            if consumer.is_null() {
                rd::rd_kafka_queue_get_main(self.rk.as_ptr())
            } else {
                rd::rd_kafka_poll_set_consumer(self.rk.as_ptr());
                consumer
            }
        };
        Queue { ptr, wake: None, client: self.clone() }
    }

    /// A new, empty queue.
    pub fn queue(self: &Arc<Self>) -> Queue {
        // SAFETY: an owned handle, never null.
        Queue { ptr: unsafe { rd::rd_kafka_queue_new(self.rk.as_ptr()) }, wake: None, client: self.clone() }
    }

    /// The error that ended this client, if one did.
    pub fn fatal(&self) -> Option<Failure> {
        let mut text = [0 as c_char; 512];
        // SAFETY: writes a NUL-terminated string within the length.
        unsafe {
            let err = rd::rd_kafka_fatal_error(self.rk.as_ptr(), text.as_mut_ptr(), text.len());
            Failure::check(err).err().map(|failure| Failure {
                text: string(text.as_ptr()),
                fatal: true,
                ..failure
            })
        }
    }

    /// Joins the group with these topics.
    pub fn subscribe(&self, topics: &[String]) -> Result<(), Failure> {
        let mut list = TopicPartitionList::with_capacity(topics.len());
        for topic in topics {
            list.add_topic_unassigned(topic);
        }
        // SAFETY: a live list, copied by the call.
        Failure::check(unsafe { rd::rd_kafka_subscribe(self.rk.as_ptr(), list.ptr()) })
    }

    /// Gives up the subscription: a revocation follows, and after its answer the leave request.
    pub fn unsubscribe(&self) -> Result<(), Failure> {
        // SAFETY: a live client.
        Failure::check(unsafe { rd::rd_kafka_unsubscribe(self.rk.as_ptr()) })
    }

    /// Makes this the assignment and answers a rebalance; `None` answers a revocation.
    pub fn assign(&self, partitions: Option<&[(TopicPartition, i64)]>) -> Result<(), Failure> {
        let list = partitions.map(list).transpose()?;
        let list = list.as_ref().map_or(ptr::null_mut(), |list| list.ptr());
        // SAFETY: null or a live list, copied by the call.
        Failure::check(unsafe { rd::rd_kafka_assign(self.rk.as_ptr(), list) })
    }

    /// Returns when the client's main thread has done what was asked of it before: what an `assign`
    /// stops is stopped then, and its partition queues are cut loose. Takes microseconds.
    pub fn settle(&self) -> Result<(), Failure> {
        let mut list = ptr::null_mut();
        // SAFETY: on success an owned list is returned and freed here.
        unsafe {
            Failure::check(rd::rd_kafka_assignment(self.rk.as_ptr(), &mut list))?;
            rd::rd_kafka_topic_partition_list_destroy(list);
        }
        Ok(())
    }

    /// Whether the partitions now to be revoked are somebody else's already.
    pub fn assignment_lost(&self) -> bool {
        // SAFETY: a live client.
        unsafe { rd::rd_kafka_assignment_lost(self.rk.as_ptr()) != 0 }
    }

    /// Sends what is fetched of `partition` from now on into `queue`.
    pub fn forward(&self, partition: &TopicPartition, queue: &Queue) -> Result<(), Failure> {
        let topic = c_string(&partition.topic);
        // SAFETY: the source handle is owned and freed here; librdkafka keeps its own reference to the
        // target, so that dropping `queue` later is no matter.
        unsafe {
            let source =
                rd::rd_kafka_queue_get_partition(self.rk.as_ptr(), topic.as_ptr(), partition.partition);
            if source.is_null() {
                let err = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION;
                return Err(Failure::of_code(err));
            }
            rd::rd_kafka_queue_forward(source, queue.ptr);
            rd::rd_kafka_queue_destroy(source);
        }
        Ok(())
    }

    /// Begins to close the consumer; what it still has to say comes in `events`.
    pub fn close(&self, events: &Queue) -> Result<(), Failure> {
        // SAFETY: live handles; the error is owned by `check_owned`.
        Failure::check_owned(unsafe { rd::rd_kafka_consumer_close_queue(self.rk.as_ptr(), events.ptr) })
    }

    /// Whether the consumer has closed.
    pub fn closed(&self) -> bool {
        // SAFETY: a live client.
        unsafe { rd::rd_kafka_consumer_closed(self.rk.as_ptr()) != 0 }
    }

    /// Who this consumer is in its group just now; `None` when it is nobody (not joined, thrown out,
    /// closed): the group coordinator checks nothing for a generation below 0 or an empty member id,
    /// so such metadata must not reach a transaction.
    pub fn membership(self: &Arc<Self>) -> Option<Membership> {
        // SAFETY: an owned object or null; the string is copied.
        unsafe {
            let ptr = NonNull::new(rd::rd_kafka_consumer_group_metadata(self.rk.as_ptr()))?;
            let member = Member {
                generation: rd::rd_kafka_consumer_group_metadata_generation_id(ptr.as_ptr()),
                id: string(rd::rd_kafka_consumer_group_metadata_member_id(ptr.as_ptr())),
            };
            let membership = Membership { ptr, member, _client: self.clone() };
            (membership.member.generation >= 0 && !membership.member.id.is_empty()).then_some(membership)
        }
    }

    /// Whether this consumer is no member, or has sent its request to leave.
    pub fn left(&self) -> bool {
        // SAFETY: an owned object or null; the string is read before it is freed.
        unsafe {
            let ptr = rd::rd_kafka_consumer_group_metadata(self.rk.as_ptr());
            if ptr.is_null() {
                return true;
            }
            let left = string(rd::rd_kafka_consumer_group_metadata_member_id(ptr)).is_empty();
            rd::rd_kafka_consumer_group_metadata_destroy(ptr);
            left
        }
    }

    /// The group's committed offsets: for each partition its offset (below 0: none) or its error.
    pub fn committed(
        &self,
        partitions: &[TopicPartition],
        timeout_ms: u64,
    ) -> Result<Vec<Result<i64, Failure>>, Failure> {
        let list = list(&partitions.iter().map(|p| (p.clone(), 0)).collect::<Vec<_>>())?;
        // SAFETY: a live list, filled in place and read before it is freed.
        unsafe {
            Failure::check(rd::rd_kafka_committed(self.rk.as_ptr(), list.ptr(), timeout(timeout_ms)))?;
            let found = partitions_of(list.ptr());
            Ok(found.into_iter().map(|(_, offset, err)| Failure::check(err).map(|()| offset)).collect())
        }
    }

    /// Asks the leader for the first and the end offset of a partition; with `read_committed` the end
    /// is the last stable offset.
    pub fn watermarks(&self, partition: &TopicPartition, timeout_ms: u64) -> Result<(i64, i64), Failure> {
        let topic = c_string(&partition.topic);
        let (mut low, mut high) = (-1, -1);
        // SAFETY: plain out parameters.
        Failure::check(unsafe {
            rd::rd_kafka_query_watermark_offsets(
                self.rk.as_ptr(),
                topic.as_ptr(),
                partition.partition,
                &mut low,
                &mut high,
                timeout(timeout_ms),
            )
        })?;
        Ok((low, high))
    }

    /// Fences the producers before this one; see `rd_kafka_init_transactions`.
    pub fn init_transactions(&self, timeout_ms: u64) -> Result<(), Failure> {
        // SAFETY: a live client; the error is owned by `check_owned`.
        Failure::check_owned(unsafe { rd::rd_kafka_init_transactions(self.rk.as_ptr(), timeout(timeout_ms)) })
    }

    /// Begins a transaction.
    pub fn begin(&self) -> Result<(), Failure> {
        // SAFETY: as above.
        Failure::check_owned(unsafe { rd::rd_kafka_begin_transaction(self.rk.as_ptr()) })
    }

    /// Adds the offsets to the transaction, as the member that `membership` was taken from.
    pub fn send_offsets(
        &self,
        offsets: &[(TopicPartition, i64)],
        membership: &Membership,
        timeout_ms: u64,
    ) -> Result<(), Failure> {
        let list = list(offsets)?;
        // SAFETY: live handles, copied by the call.
        Failure::check_owned(unsafe {
            rd::rd_kafka_send_offsets_to_transaction(
                self.rk.as_ptr(),
                list.ptr(),
                membership.ptr.as_ptr(),
                timeout(timeout_ms),
            )
        })
    }

    /// Commits. All deliveries must have been taken from the events before, or it waits for them.
    pub fn commit(&self, timeout_ms: u64) -> Result<(), Failure> {
        // SAFETY: a live client; the error is owned by `check_owned`.
        Failure::check_owned(unsafe {
            rd::rd_kafka_commit_transaction(self.rk.as_ptr(), timeout(timeout_ms))
        })
    }

    /// A handle to write to `topic`.
    pub fn topic(self: &Arc<Self>, topic: &str) -> Result<Topic, Failure> {
        let name = c_string(topic);
        // SAFETY: an owned handle; null is an error that `rd_kafka_last_error` names.
        unsafe {
            match NonNull::new(rd::rd_kafka_topic_new(self.rk.as_ptr(), name.as_ptr(), ptr::null_mut())) {
                Some(rkt) => Ok(Topic { rkt, client: self.clone() }),
                None => Err(Failure::of_code(rd::rd_kafka_last_error())),
            }
        }
    }
}

/// Who a consumer is in its group, as the coordinator knows it.
pub(super) struct Membership {
    ptr: NonNull<rd::rd_kafka_consumer_group_metadata_t>,
    /// The member; its generation is not negative, its id not empty.
    pub member: Member,
    _client: Arc<Client>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        // SAFETY: owned, freed once.
        unsafe { rd::rd_kafka_consumer_group_metadata_destroy(self.ptr.as_ptr()) }
    }
}

/// A topic to write to.
pub(super) struct Topic {
    rkt: NonNull<rd::rd_kafka_topic_t>,
    client: Arc<Client>,
}

// SAFETY: point 1 of the file's argument.
unsafe impl Send for Topic {}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: owned, freed once, before the client (`client` is dropped after this).
        unsafe { rd::rd_kafka_topic_destroy(self.rkt.as_ptr()) }
    }
}

/// A record to write, borrowed.
pub(super) struct Outgoing<'a> {
    pub partition: i32,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
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
        let done = Failure::check_owned(unsafe {
            rd::rd_kafka_produceva(self.client.rk.as_ptr(), arguments.as_mut_ptr(), count)
        });
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
                rd::rd_kafka_header_add(list.0, name.as_ptr().cast(), name.len() as isize, value, len)
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

/// What a client tells.
#[derive(Debug)]
pub(super) enum Event {
    /// The group gives these partitions; the answer is [`Client::assign`].
    Assign(Vec<TopicPartition>),
    /// The group takes all partitions; the answer is [`Client::assign`] of `None`.
    Revoke,
    /// Something is wrong.
    Error(Failure),
    /// A line for the log: syslog level, facility, text.
    Log(c_int, String, String),
    /// Statistics, as JSON.
    Statistics(String),
    /// Records were written, or were not.
    Delivered(Vec<Delivery>),
    /// Records arrived where none should.
    Records,
    /// Nothing of interest.
    Other,
}

/// The fate of one record.
#[derive(Debug)]
pub(super) struct Delivery {
    /// [`Outgoing::tag`].
    pub tag: usize,
    /// Its offset, or why it has none.
    pub offset: Result<i64, Failure>,
}

/// What is called when a queue that was empty no longer is.
pub(super) type Wake = Box<dyn Fn() + Send + Sync>;

/// A queue of events or of fetched records. It may hold more than one client's thread can see: taking
/// from it is thread-safe.
pub(super) struct Queue {
    ptr: *mut rd::rd_kafka_queue_t,
    wake: Option<Arc<Wake>>,
    client: Arc<Client>,
}

// SAFETY: point 1 of the file's argument.
unsafe impl Send for Queue {}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the handle is owned and freed once, before the client (point 2).
        unsafe {
            if self.wake.is_some() {
                rd::rd_kafka_queue_cb_event_enable(self.ptr, None, ptr::null_mut());
            }
            rd::rd_kafka_queue_destroy(self.ptr);
        }
    }
}

impl Queue {
    /// Has `wake` called by one of librdkafka's threads whenever the queue stops being empty. It must
    /// not call into Kafka and must return at once; a panic in it ends the process.
    pub fn set_wake(&mut self, wake: Arc<Wake>) {
        unsafe extern "C" fn call(_: *mut rd::rd_kafka_t, wake: *mut c_void) {
            // SAFETY: points to the `Wake` that the queue's `Arc` keeps alive, see below.
            unsafe { (*wake.cast_const().cast::<Wake>())() }
        }
        let opaque = Arc::as_ptr(&wake).cast_mut().cast::<c_void>();
        // SAFETY: librdkafka calls it under the queue's lock and replaces or removes it under the same
        // lock (`rd_kafka_q_cb_event_enable`, `rd_kafka_q_io_event`), so after this call the former one
        // is called no more, and after the removal in `drop` this one is not: the `Arc` outlives it.
        unsafe { rd::rd_kafka_queue_cb_event_enable(self.ptr, Some(call), opaque) };
        self.wake = Some(wake);
    }

    /// The next event, waiting up to `timeout_ms` for one.
    pub fn poll(&self, timeout_ms: u64) -> Option<Event> {
        // SAFETY: the event is owned, read and then freed here.
        unsafe {
            let event = rd::rd_kafka_queue_poll(self.ptr, timeout(timeout_ms));
            if event.is_null() {
                return None;
            }
            let read = read_event(event);
            rd::rd_kafka_event_destroy(event);
            Some(read)
        }
    }

    /// Takes up to `records_max` records that have arrived, waiting up to `timeout_ms` for the first.
    /// `known` are partitions whose names need not be made anew.
    pub fn consume(&self, records_max: usize, timeout_ms: u64, known: &[TopicPartition]) -> Arrived {
        let mut messages = Vec::with_capacity(records_max);
        // SAFETY: librdkafka writes up to the capacity and says how many; they are owned from then on
        // and pass, each exactly once, to a `RawRecords` or are freed by `Arrived::add`.
        unsafe {
            let count = rd::rd_kafka_consume_batch_queue(
                self.ptr,
                timeout(timeout_ms),
                messages.as_mut_ptr(),
                records_max,
            );
            messages.set_len(usize::try_from(count).unwrap_or(0));
        }
        let mut arrived = Arrived::default();
        for message in messages {
            arrived.add(message, known, &self.client);
        }
        arrived
    }
}

/// Copies an event.
///
/// # Safety
/// `event` is live and not null.
unsafe fn read_event(event: *mut rd::rd_kafka_event_t) -> Event {
    // SAFETY: each accessor is called on the type of event that it is for; what it lends is copied.
    unsafe {
        match rd::rd_kafka_event_type(event) {
            rd::RD_KAFKA_EVENT_REBALANCE => match rd::rd_kafka_event_error(event) {
                rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                    let list = rd::rd_kafka_event_topic_partition_list(event);
                    Event::Assign(partitions_of(list).into_iter().map(|(partition, ..)| partition).collect())
                }
                _ => Event::Revoke,
            },
            rd::RD_KAFKA_EVENT_ERROR => Event::Error(Failure {
                text: string(rd::rd_kafka_event_error_string(event)),
                fatal: rd::rd_kafka_event_error_is_fatal(event) != 0,
                ..Failure::of_code(rd::rd_kafka_event_error(event))
            }),
            rd::RD_KAFKA_EVENT_LOG => {
                let (mut facility, mut text, mut level) = (ptr::null(), ptr::null(), 0);
                rd::rd_kafka_event_log(event, &mut facility, &mut text, &mut level);
                Event::Log(level, string(facility), string(text))
            }
            rd::RD_KAFKA_EVENT_STATS => Event::Statistics(string(rd::rd_kafka_event_stats(event))),
            rd::RD_KAFKA_EVENT_DR => {
                let mut deliveries = Vec::with_capacity(rd::rd_kafka_event_message_count(event));
                while let Some(message) = rd::rd_kafka_event_message_next(event).as_ref() {
                    let failed = |failure: Failure| {
                        let rkt = message.rkt;
                        let topic =
                            if rkt.is_null() { String::new() } else { string(rd::rd_kafka_topic_name(rkt)) };
                        let text = format!("{topic}[{}]: {}", message.partition, failure.text);
                        Failure { text, ..failure }
                    };
                    let offset = Failure::check(message.err).map(|()| message.offset).map_err(failed);
                    deliveries.push(Delivery { tag: message._private.addr(), offset });
                }
                Event::Delivered(deliveries)
            }
            rd::RD_KAFKA_EVENT_FETCH => Event::Records,
            _ => Event::Other,
        }
    }
}

/// What [`Queue::consume`] took.
#[derive(Default)]
pub(super) struct Arrived {
    /// Records, one element per partition.
    pub batches: Vec<RawRecords>,
    /// Partitions whose end was reached (with `enable.partition.eof`), and where: past all markers.
    pub ends: Vec<(TopicPartition, i64)>,
    /// Partitions that cannot be read, from which offset, and why.
    pub failures: Vec<(TopicPartition, i64, Failure)>,
}

impl Arrived {
    fn add(&mut self, message: *mut rd::rd_kafka_message_t, known: &[TopicPartition], client: &Arc<Client>) {
        use rd::rd_kafka_resp_err_t::*;
        // SAFETY: a live message that this call owns.
        let m = unsafe { &*message };
        if m.err == RD_KAFKA_RESP_ERR_NO_ERROR {
            // Records of a partition come in long runs: look from the end.
            let batch = self
                .batches
                .iter_mut()
                .rev()
                .find(|b| b.rkt == m.rkt && b.partition.partition == m.partition);
            let batch = match batch {
                Some(batch) => batch,
                None => {
                    let partition = partition_of(m, known);
                    self.batches.push(RawRecords {
                        messages: Vec::new(),
                        rkt: m.rkt,
                        partition,
                        bytes: 0,
                        _client: client.clone(),
                    });
                    let last = self.batches.len() - 1;
                    &mut self.batches[last]
                }
            };
            batch.bytes += m.key_len + m.len;
            batch.messages.push(message);
            return;
        }
        let partition = partition_of(m, known);
        // SAFETY: the message is live until it is freed, here and once; its text is copied before.
        unsafe {
            if m.err == RD_KAFKA_RESP_ERR__PARTITION_EOF {
                self.ends.push((partition, m.offset));
            } else {
                let text = string(rd::rd_kafka_message_errstr(message));
                self.failures.push((partition, m.offset, Failure { text, ..Failure::of_code(m.err) }));
            }
            rd::rd_kafka_message_destroy(message);
        }
    }
}

fn partition_of(message: &rd::rd_kafka_message_t, known: &[TopicPartition]) -> TopicPartition {
    // SAFETY: the topic handle of a live message, or null for an error of no topic; the name lives as
    // long as the handle.
    let topic = unsafe {
        if message.rkt.is_null() { c"" } else { CStr::from_ptr(rd::rd_kafka_topic_name(message.rkt)) }
    };
    let found =
        known.iter().find(|p| p.partition == message.partition && p.topic.as_bytes() == topic.to_bytes());
    found.cloned().unwrap_or_else(|| TopicPartition::new(&topic.to_string_lossy(), message.partition))
}

/// Records of one partition as librdkafka's own messages; nothing is copied.
pub(super) struct RawRecords {
    messages: Vec<*mut rd::rd_kafka_message_t>,
    rkt: *mut rd::rd_kafka_topic_t,
    partition: TopicPartition,
    bytes: usize,
    _client: Arc<Client>,
}

// SAFETY: the messages are owned by this value alone, and librdkafka lets any thread read and free
// them. (Not `Sync`: reading headers parses them into the message.)
unsafe impl Send for RawRecords {}

impl Drop for RawRecords {
    fn drop(&mut self) {
        for message in &self.messages {
            // SAFETY: owned, freed once, before the client (`_client` is dropped after this).
            unsafe { rd::rd_kafka_message_destroy(*message) }
        }
    }
}

impl RawRecords {
    fn message(&self, index: usize) -> &rd::rd_kafka_message_t {
        // SAFETY: live as long as `self`.
        unsafe { &*self.messages[index] }
    }

    /// The offset after the last record.
    pub fn next_offset(&self) -> i64 {
        self.messages.len().checked_sub(1).map_or(0, |last| self.message(last).offset + 1)
    }
}

/// The bytes at `data`, or `None` for null.
///
/// # Safety
/// `data` is null or points to `len` bytes that live as long as `'b`.
unsafe fn bytes<'b>(data: *const c_void, len: usize) -> Option<&'b [u8]> {
    // SAFETY: as the caller promises.
    (!data.is_null()).then(|| unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) })
}

impl Records for RawRecords {
    fn topic_partition(&self) -> &TopicPartition {
        &self.partition
    }

    fn len(&self) -> usize {
        self.messages.len()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn record(&self, index: usize) -> SourceRecord<'_> {
        let m = self.message(index);
        let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: a live message, whose bytes live as long as it does.
        unsafe {
            SourceRecord {
                offset: m.offset,
                timestamp_ms: rd::rd_kafka_message_timestamp(m, &mut kind),
                key: bytes(m.key, m.key_len),
                value: bytes(m.payload, m.len),
                records: self,
                index,
            }
        }
    }

    fn headers<'b>(&'b self, index: usize, visit: &mut dyn FnMut(&'b str, Option<&'b [u8]>)) {
        let m = self.message(index);
        let mut headers = ptr::null_mut();
        // SAFETY: the headers, their names and values belong to the message and live as long as it.
        // They are parsed at the first call, by one thread at a time (not `Sync`).
        unsafe {
            if Failure::check(rd::rd_kafka_message_headers(m, &mut headers)).is_err() {
                return; // There are none.
            }
            for place in 0.. {
                let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
                let found = rd::rd_kafka_header_get_all(headers, place, &mut name, &mut value, &mut len);
                if Failure::check(found).is_err() {
                    return; // That was the last one.
                }
                // Kafka's header names are UTF-8; one that is not gets the replacement character.
                visit(CStr::from_ptr(name).to_str().unwrap_or("\u{fffd}"), bytes(value, len));
            }
        }
    }
}

/// What [`describe_topics`] finds out about one topic: its id and its number of partitions.
pub(super) type TopicFound = Result<(TopicId, i32), Failure>;

/// Sends an admin request and waits for its result, of which `read` makes a copy.
fn request<R>(
    client: &Arc<Client>,
    op: rd::rd_kafka_admin_op_t,
    timeout_ms: u64,
    send: impl FnOnce(*mut rd::rd_kafka_t, *mut rd::rd_kafka_AdminOptions_t, *mut rd::rd_kafka_queue_t),
    read: impl FnOnce(*mut rd::rd_kafka_event_t) -> R,
) -> Result<R, Failure> {
    let queue = client.queue();
    let mut text = [0 as c_char; 256];
    // SAFETY: the options are owned and freed after the request has copied them; the event is owned,
    // read and freed here. A reply after the time-out goes to a queue that is gone and is dropped.
    unsafe {
        let rk = client.rk.as_ptr();
        let options = rd::rd_kafka_AdminOptions_new(rk, op);
        let ms = timeout(timeout_ms);
        rd::rd_kafka_AdminOptions_set_request_timeout(options, ms, text.as_mut_ptr(), text.len());
        send(rk, options, queue.ptr);
        rd::rd_kafka_AdminOptions_destroy(options);
        let event = rd::rd_kafka_queue_poll(queue.ptr, timeout(timeout_ms.saturating_add(1_000)));
        if event.is_null() {
            return Err(Failure::of_code(rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TIMED_OUT));
        }
        let result = match Failure::check(rd::rd_kafka_event_error(event)) {
            Ok(()) => Ok(read(event)),
            Err(failure) => Err(Failure { text: string(rd::rd_kafka_event_error_string(event)), ..failure }),
        };
        rd::rd_kafka_event_destroy(event);
        result
    }
}

/// Looks topics up by name; the answers are in the order of the names.
pub(super) fn describe_topics(
    client: &Arc<Client>,
    names: &[String],
    timeout_ms: u64,
) -> Result<Vec<TopicFound>, Failure> {
    let c_names = names.iter().map(|name| c_string(name)).collect::<Vec<_>>();
    let mut pointers = c_names.iter().map(|name| name.as_ptr()).collect::<Vec<_>>();
    let op = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    let found = request(
        client,
        op,
        timeout_ms,
        // SAFETY: the collection is owned, copied by the request and freed.
        |rk, options, queue| unsafe {
            let topics = rd::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            rd::rd_kafka_DescribeTopics(rk, topics, options, queue);
            rd::rd_kafka_TopicCollection_destroy(topics);
        },
        // SAFETY: the event is the result of this request; all that it lends is copied.
        |event| unsafe {
            let mut count = 0;
            let result = rd::rd_kafka_event_DescribeTopics_result(event);
            let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &mut count);
            (0..count).map(|index| read_topic(*topics.add(index))).collect::<Vec<_>>()
        },
    )?;
    let missing = || Failure::of_code(rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
    let lookup =
        |name: &String| found.iter().find(|(found, _)| found == name).map(|(_, topic)| topic.clone());
    Ok(names.iter().map(|name| lookup(name).unwrap_or_else(|| Err(missing()))).collect())
}

/// # Safety
/// `topic` is live.
unsafe fn read_topic(topic: *const rd::rd_kafka_TopicDescription_t) -> (String, TopicFound) {
    // SAFETY: as the caller promises; what is lent is copied.
    unsafe {
        let name = string(rd::rd_kafka_TopicDescription_name(topic));
        if let Some(failure) = Failure::decode(rd::rd_kafka_TopicDescription_error(topic)) {
            return (name, Err(failure));
        }
        let mut partitions = 0;
        rd::rd_kafka_TopicDescription_partitions(topic, &mut partitions);
        let uuid = rd::rd_kafka_TopicDescription_topic_id(topic);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&rd::rd_kafka_Uuid_most_significant_bits(uuid).to_be_bytes());
        id[8..].copy_from_slice(&rd::rd_kafka_Uuid_least_significant_bits(uuid).to_be_bytes());
        (name, Ok((id, i32::try_from(partitions).unwrap_or(i32::MAX))))
    }
}

/// All committed offsets of a group; empty when it is unknown.
pub(super) fn group_offsets(
    client: &Arc<Client>,
    group: &str,
    timeout_ms: u64,
) -> Result<Vec<(TopicPartition, i64)>, Failure> {
    let group = c_string(group);
    let op = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS;
    request(
        client,
        op,
        timeout_ms,
        // SAFETY: the request object is owned, copied by the call and freed; null: all partitions.
        |rk, options, queue| unsafe {
            let mut wanted = rd::rd_kafka_ListConsumerGroupOffsets_new(group.as_ptr(), ptr::null());
            rd::rd_kafka_ListConsumerGroupOffsets(rk, &mut wanted, 1, options, queue);
            rd::rd_kafka_ListConsumerGroupOffsets_destroy(wanted);
        },
        // SAFETY: the event is the result of this request; all that it lends is copied.
        |event| unsafe {
            let mut count = 0;
            let result = rd::rd_kafka_event_ListConsumerGroupOffsets_result(event);
            let groups = rd::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &mut count);
            let Some(group) = (count > 0).then(|| *groups) else { return Ok(Vec::new()) };
            if let Some(failure) = Failure::decode(rd::rd_kafka_group_result_error(group)) {
                return Err(failure);
            }
            let mut offsets = Vec::new();
            for (partition, offset, err) in partitions_of(rd::rd_kafka_group_result_partitions(group)) {
                Failure::check(err)?;
                offsets.extend((offset >= 0).then_some((partition, offset)));
            }
            Ok(offsets)
        },
    )?
}
