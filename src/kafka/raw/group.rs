//! Being a member of a group: joining, answering rebalances, knowing who one is, leaving.
//!
//! Safety: plain calls on a live handle. Lists and strings are copied by the call that takes them; group
//! metadata and lists that come back are owned and freed once.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as rd;

use super::client::Client;
use super::code;
use super::error::{Failure, string};
use super::list::{list, partitions_of};
use super::queue::Queue;
use crate::record::TopicPartition;
use crate::worker::port::Member;

impl Client {
    /// Joins the group with these topics.
    pub fn subscribe(&self, topics: &[String]) -> Result<(), Failure> {
        let mut list = TopicPartitionList::with_capacity(topics.len());
        for topic in topics {
            list.add_topic_unassigned(topic);
        }
        // SAFETY: a live list, copied by the call.
        Failure::check(unsafe { code::rd_kafka_subscribe(self.ptr(), list.ptr()) })
    }

    /// Gives up the subscription: a revocation follows, and after its answer the leave request.
    pub fn unsubscribe(&self) -> Result<(), Failure> {
        // SAFETY: a live client.
        Failure::check(unsafe { code::rd_kafka_unsubscribe(self.ptr()) })
    }

    /// Makes this the assignment and answers a rebalance; `None` answers a revocation.
    pub fn assign(&self, partitions: Option<&[(TopicPartition, i64)]>) -> Result<(), Failure> {
        let list = partitions
            .map(|all| list(all.iter().map(|(partition, offset)| (partition, *offset))))
            .transpose()?;
        let list = list.as_ref().map_or(ptr::null_mut(), |list| list.ptr());
        // SAFETY: null or a live list, copied by the call.
        Failure::check(unsafe { code::rd_kafka_assign(self.ptr(), list) })
    }

    /// Pauses partitions, or goes on with them behind the last record that was taken from a queue. What had arrived and
    /// was not taken is fetched again then; none of it is taken while they are paused. A partition that the client does
    /// not know any more is not paused, so there is nothing to go on with. Waits for the client's main thread:
    /// microseconds.
    pub fn pause(&self, partitions: &[TopicPartition], paused: bool) -> Result<(), Failure> {
        let list = list(partitions.iter().map(|partition| (partition, 0)))?;
        // SAFETY: a live list, in which the call notes errors.
        Failure::check(unsafe {
            match paused {
                true => code::rd_kafka_pause_partitions(self.ptr(), list.ptr()),
                false => code::rd_kafka_resume_partitions(self.ptr(), list.ptr()),
            }
        })?;
        // SAFETY: the list is alive.
        let told = unsafe { partitions_of(list.ptr()) };
        let unknown = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION as c_int;
        let mut told = told.iter().filter(|element| paused || element.err != unknown);
        told.try_for_each(|element| Failure::check(element.err))
    }

    /// Returns when the client's main thread has done what was asked of it before: what an `assign`
    /// stops is stopped then, and its partition queues are cut loose. Takes microseconds.
    pub fn settle(&self) -> Result<(), Failure> {
        let mut list = ptr::null_mut();
        // SAFETY: an owned list is returned, or null, and freed here.
        unsafe {
            let found = Failure::check(code::rd_kafka_assignment(self.ptr(), &mut list));
            if !list.is_null() {
                rd::rd_kafka_topic_partition_list_destroy(list);
            }
            found
        }
    }

    /// Whether the partitions now to be revoked are somebody else's already.
    pub fn assignment_lost(&self) -> bool {
        // SAFETY: a live client.
        unsafe { rd::rd_kafka_assignment_lost(self.ptr()) != 0 }
    }

    /// Begins to close the consumer; what it still has to say comes in `events`.
    pub fn close(self: &Arc<Self>, events: &Queue) -> Result<(), Failure> {
        // SAFETY: live handles; the error is owned by `check_owned`.
        unsafe { Failure::check_owned(rd::rd_kafka_consumer_close_queue(self.ptr(), events.of(self))) }
    }

    /// Whether the consumer has closed.
    pub fn closed(&self) -> bool {
        // SAFETY: a live client.
        unsafe { rd::rd_kafka_consumer_closed(self.ptr()) != 0 }
    }

    /// Who this consumer is in its group just now; `None` when it is nobody (not joined, thrown out,
    /// closed): the group coordinator checks nothing for a generation below 0 or an empty member id,
    /// so such metadata must not reach a transaction.
    pub fn membership(&self) -> Option<Membership> {
        // SAFETY: an owned object or null; the string is copied.
        unsafe {
            let ptr = NonNull::new(rd::rd_kafka_consumer_group_metadata(self.ptr()))?;
            let member = Member {
                generation: rd::rd_kafka_consumer_group_metadata_generation_id(ptr.as_ptr()),
                id: string(rd::rd_kafka_consumer_group_metadata_member_id(ptr.as_ptr())),
            };
            let membership = Membership { ptr, member };
            (membership.member.generation >= 0 && !membership.member.id.is_empty()).then_some(membership)
        }
    }

    /// Whether this consumer is no member, or has sent its request to leave.
    pub fn left(&self) -> bool {
        // SAFETY: an owned object or null; the string is read before it is freed.
        unsafe {
            let ptr = rd::rd_kafka_consumer_group_metadata(self.ptr());
            if ptr.is_null() {
                return true;
            }
            let left = string(rd::rd_kafka_consumer_group_metadata_member_id(ptr)).is_empty();
            rd::rd_kafka_consumer_group_metadata_destroy(ptr);
            left
        }
    }
}

/// Who a consumer is in its group, as the coordinator knows it.
pub struct Membership {
    ptr: NonNull<rd::rd_kafka_consumer_group_metadata_t>,
    /// The member; its generation is not negative, its id not empty.
    pub member: Member,
}

// SAFETY: strings and a number of its own, copied from the client, which nobody changes; freed once, by whoever
// drops it last.
unsafe impl Send for Membership {}
// SAFETY: as above.
unsafe impl Sync for Membership {}

impl Membership {
    pub(super) fn ptr(&self) -> *const rd::rd_kafka_consumer_group_metadata_t {
        self.ptr.as_ptr()
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        // SAFETY: owned, freed once.
        unsafe { rd::rd_kafka_consumer_group_metadata_destroy(self.ptr.as_ptr()) }
    }
}
