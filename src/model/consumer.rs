//! The client's side of a membership: what librdkafka does by itself between two calls of its user.
//!
//! It joins, hands the assignment out, beats its heart, notices that the group rebalances or that it was
//! thrown out, and joins again when its user has given the partitions back. Simpler than librdkafka: its
//! subscription does not change, and it hears of a topic that is created or deleted only when it joins.

use std::collections::{BTreeMap, VecDeque};

use crate::model::cluster::ClientSettings;
use crate::model::error::Code;
use crate::model::group::{Group, Identity, Join, anonymous};
use crate::record::TopicPartition;
use crate::worker::port::{LogEvent, Member};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It will send a join request.
    Out,
    /// It waits for the answer to its join request.
    Joining,
    /// It waits for its assignment.
    Syncing,
    /// It has its assignment.
    Steady,
    /// Its user is to give the partitions back.
    Revoking,
    /// It cannot go on: another client has its instance id, or the group does not take its settings.
    Failed(Code),
    /// It left. For good.
    Left,
}

/// A consumer that subscribes.
pub struct Consumer {
    pub settings: ClientSettings,
    topics: Vec<String>,
    phase: Phase,
    /// Who it is in the group.
    identity: Identity,
    pub events: VecDeque<LogEvent>,
    heartbeat_ms: u64,
    polled_ms: u64,
    /// Where it reads.
    pub positions: BTreeMap<TopicPartition, i64>,
    /// How far its user has got.
    pub read_up_to: BTreeMap<TopicPartition, i64>,
    /// The ends that it knows.
    pub ends: BTreeMap<TopicPartition, i64>,
}

impl Consumer {
    /// One that has not joined yet.
    pub fn new(settings: ClientSettings, topics: Vec<String>, now_ms: u64) -> Consumer {
        let identity = Identity { instance: settings.instance_id.clone(), ..anonymous() };
        Consumer {
            settings,
            topics,
            phase: Phase::Out,
            identity,
            events: VecDeque::new(),
            heartbeat_ms: now_ms,
            polled_ms: now_ms,
            positions: BTreeMap::new(),
            read_up_to: BTreeMap::new(),
            ends: BTreeMap::new(),
        }
    }

    /// Who it is just now, if it is anybody.
    pub fn identity(&self) -> Option<&Identity> {
        let somebody = self.identity.generation >= 0 && !self.identity.member.is_empty();
        somebody.then_some(&self.identity)
    }

    /// Why it cannot go on, if so.
    pub fn failed(&self) -> Option<Code> {
        if let Phase::Failed(code) = self.phase { Some(code) } else { None }
    }

    /// Whether its user has to give the partitions back before it may read.
    pub fn revoking(&self) -> bool {
        self.phase == Phase::Revoking
    }

    /// Whether it has left.
    pub fn left(&self) -> bool {
        self.phase == Phase::Left
    }

    /// Its user has called it.
    pub fn polled(&mut self, now_ms: u64) {
        self.polled_ms = now_ms;
    }

    /// Reads nothing any more.
    pub fn stop(&mut self) {
        self.positions.clear();
        self.read_up_to.clear();
    }

    /// Its user has given the partitions back.
    pub fn released(&mut self) {
        self.stop();
        self.ends.clear();
        if self.phase == Phase::Revoking {
            self.events.clear();
            self.phase = Phase::Out;
        }
    }

    /// Leaves the group for good.
    pub fn leave(&mut self, group: &mut Group, now_ms: u64) {
        if self.failed().is_none() && !self.identity.member.is_empty() {
            group.leave(&self.identity.member, now_ms);
        }
        self.stop();
        self.events.clear();
        self.forget();
        self.phase = Phase::Left;
    }

    fn forget(&mut self) {
        self.identity.generation = -1;
        self.identity.member.clear();
    }

    /// The partitions are lost. A consumer that had none simply joins again; one whose user is giving
    /// them back already hears no more of it.
    fn lose(&mut self) {
        match self.phase {
            Phase::Revoking => {}
            Phase::Steady => {
                // An assignment that was not heard of yet does not count any more.
                self.events.clear();
                self.events.push_back(LogEvent::Lost);
                self.phase = Phase::Revoking;
            }
            _ => self.phase = Phase::Out,
        }
    }

    /// Takes the next step that needs no waiting; whether there was one. `fresh` is an id for a new
    /// member, `count` tells how many partitions a topic has.
    pub fn step(
        &mut self,
        group: &mut Group,
        fresh: &mut u64,
        count: &dyn Fn(&str) -> i32,
        now_ms: u64,
    ) -> bool {
        let phase = self.phase;
        match phase {
            Phase::Out => {
                *fresh += 1;
                let name = self.settings.instance_id.as_deref().unwrap_or("thalweg");
                let asked = Join {
                    member: self.identity.member.clone(),
                    instance: self.settings.instance_id.clone(),
                    topics: self.topics.clone(),
                    session_ms: self.settings.session_timeout_ms,
                    rebalance_ms: self.settings.max_poll_interval_ms,
                };
                match group.join(asked, format!("{name}-{fresh}"), now_ms) {
                    Ok(member) => {
                        self.identity.member = member;
                        self.phase = Phase::Joining;
                    }
                    Err(code) => self.refused(code),
                }
            }
            Phase::Joining => match group.joined(&self.identity.member) {
                Ok(Some(generation)) => {
                    // Known from here on, before any assignment is.
                    self.identity.generation = generation;
                    self.phase = Phase::Syncing;
                }
                Ok(None) => {}
                Err(code) => self.refused(code),
            },
            Phase::Syncing => {
                let all = group.leads(&self.identity.member).then(|| group.range(count));
                match group.sync(&self.identity, all, now_ms) {
                    Ok(Some(partitions)) => {
                        self.phase = Phase::Steady;
                        self.heartbeat_ms = now_ms + self.heartbeat_interval_ms();
                        let member =
                            Member { generation: self.identity.generation, id: self.identity.member.clone() };
                        self.events.push_back(LogEvent::Assigned { partitions, member });
                    }
                    Ok(None) => {}
                    Err(code) => self.refused(code),
                }
            }
            Phase::Steady | Phase::Revoking | Phase::Failed(_) | Phase::Left => {}
        }
        phase != self.phase
    }

    fn refused(&mut self, code: Code) {
        match code {
            Code::FencedInstanceId | Code::InvalidSessionTimeout => {
                self.events.clear();
                self.phase = Phase::Failed(code);
            }
            Code::RebalanceInProgress if self.phase == Phase::Steady => {
                self.phase = Phase::Revoking;
                self.events.push_back(LogEvent::Revoked);
            }
            Code::RebalanceInProgress => self.phase = Phase::Out,
            Code::IllegalGeneration => {
                self.identity.generation = -1;
                self.lose();
            }
            _ => {
                self.forget();
                self.lose();
            }
        }
    }

    fn heartbeat_interval_ms(&self) -> u64 {
        (self.settings.session_timeout_ms / 6).clamp(100, 1_000)
    }

    fn beats(&self) -> bool {
        matches!(self.phase, Phase::Steady | Phase::Revoking) && !self.identity.member.is_empty()
    }

    /// When it does something by itself next.
    pub fn next_ms(&self) -> Option<u64> {
        self.beats().then(|| self.heartbeat_ms.min(self.polled_ms + self.settings.max_poll_interval_ms))
    }

    /// Beats its heart; leaves if its user has not called for too long (a static member goes silent).
    pub fn tick(&mut self, group: &mut Group, now_ms: u64) {
        if !self.beats() {
            return;
        }
        if self.polled_ms + self.settings.max_poll_interval_ms <= now_ms {
            if self.settings.instance_id.is_none() {
                group.leave(&self.identity.member, now_ms);
            }
            self.forget();
            self.lose();
        } else if self.heartbeat_ms <= now_ms {
            self.heartbeat_ms = now_ms + self.heartbeat_interval_ms();
            match group.heartbeat(&self.identity, now_ms) {
                // It knows already.
                Ok(()) | Err(Code::RebalanceInProgress) if self.phase == Phase::Revoking => {}
                Ok(()) => {}
                Err(code) => self.refused(code),
            }
        }
    }
}
