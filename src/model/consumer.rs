//! The client's side of a membership: what librdkafka does by itself between two calls of its user.
//!
//! It joins, hands the assignment out, beats its heart, notices that the group rebalances or that it was
//! thrown out, and joins again when its user has given the partitions back. Now and then it looks at its
//! topics, and joins again when they have other partitions than before. Simpler than librdkafka: its
//! subscription does not change.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

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

/// What may happen to a request of a consumer to its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// It does not arrive.
    Lost,
    /// It takes effect, and its answer does not arrive.
    Unanswered,
    /// It takes no effect, and is answered with this.
    Refused(Code),
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
    /// When the group last answered.
    heard_ms: u64,
    polled_ms: u64,
    /// It was never given partitions, or has lost them since.
    lost: bool,
    /// Its user has not called it for too long: it does not beat its heart before it joins again.
    silent: bool,
    /// Its process is stopped: it does nothing at all.
    pub frozen: bool,
    /// Until then nothing gets through between it and its group.
    pub cut_off_ms: u64,
    /// What happens to its next request: to join, for its assignment, or a heartbeat.
    pub mishap: Option<Mishap>,
    /// Who it was before it asked to join.
    member_before: String,
    /// How many partitions its topics have, as far as it knows.
    counts: Vec<i32>,
    /// When it looks at them next.
    refresh_ms: u64,
    /// Topics that are missing, which its user is to be told.
    pub missing: VecDeque<String>,
    /// Where it reads.
    pub positions: BTreeMap<TopicPartition, i64>,
    /// Partitions of which it takes nothing for now.
    pub paused: BTreeSet<TopicPartition>,
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
            heard_ms: now_ms,
            polled_ms: now_ms,
            lost: true,
            silent: false,
            frozen: false,
            cut_off_ms: 0,
            mishap: None,
            member_before: String::new(),
            counts: Vec::new(),
            refresh_ms: now_ms,
            missing: VecDeque::new(),
            positions: BTreeMap::new(),
            paused: BTreeSet::new(),
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

    /// Whether it was fenced while it had no partitions: most likely by its own past.
    pub fn is_fenced_by_itself(&self) -> bool {
        self.phase == Phase::Failed(Code::FencedInstanceId) && self.lost
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
        self.paused.clear();
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

    /// Leaves the group for good, which hears of it if its coordinator is there; whether it was a member.
    pub fn leave(&mut self, group: Option<&mut Group>, now_ms: u64) -> bool {
        let member = self.failed().is_none() && !self.identity.member.is_empty();
        if let Some(group) = group.filter(|_| member) {
            group.leave(&self.identity.member, now_ms);
        }
        self.stop();
        self.events.clear();
        self.forget();
        self.phase = Phase::Left;
        member
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
                self.lost = true;
                self.phase = Phase::Revoking;
            }
            _ => self.phase = Phase::Out,
        }
    }

    /// Whether there may be a step to take.
    pub fn steps(&self, now_ms: u64) -> bool {
        let waits = match self.phase {
            Phase::Out => self.counts.iter().all(|count| *count == 0) && now_ms < self.refresh_ms,
            Phase::Joining | Phase::Syncing => false,
            Phase::Steady | Phase::Revoking | Phase::Failed(_) | Phase::Left => true,
        };
        !waits && !self.frozen && self.cut_off_ms <= now_ms
    }

    /// Its user has no right to the group.
    pub fn deny(&mut self) {
        self.phase = Phase::Failed(Code::GroupAuthorizationFailed);
    }

    /// The coordinator is gone, and whatever it was asked.
    pub fn interrupted(&mut self) {
        match self.phase {
            Phase::Joining => {
                self.identity.member.clone_from(&self.member_before);
                self.phase = Phase::Out;
            }
            Phase::Syncing => self.phase = Phase::Out,
            _ => {}
        }
    }

    /// Looks at its topics, and notes those that have gone missing.
    fn look(&mut self, count: &dyn Fn(&str) -> i32) {
        let counts: Vec<i32> = self.topics.iter().map(|topic| count(topic)).collect();
        for (index, topic) in self.topics.iter().enumerate() {
            if counts[index] == 0 && self.counts.get(index).is_none_or(|before| *before > 0) {
                self.missing.push_back(topic.clone());
            }
        }
        self.counts = counts;
    }

    /// Looks at its topics if it is time, and wants to join again if they have changed.
    pub fn refresh(&mut self, count: &dyn Fn(&str) -> i32, now_ms: u64, next_ms: u64) {
        if !self.beats() || now_ms < self.refresh_ms {
            return;
        }
        self.refresh_ms = next_ms;
        let before = std::mem::take(&mut self.counts);
        self.counts.clone_from(&before);
        self.look(count);
        if before != self.counts && self.phase == Phase::Steady {
            self.refused(Code::RebalanceInProgress);
        }
    }

    /// Takes the next step that needs no waiting; whether there was one. `fresh` is an id for a new
    /// member, `count` tells how many partitions a topic has, `refresh_ms` when to look again.
    pub fn step(
        &mut self,
        group: &mut Group,
        fresh: &mut u64,
        count: &dyn Fn(&str) -> i32,
        now_ms: u64,
        refresh_ms: u64,
    ) -> bool {
        let phase = self.phase;
        match phase {
            Phase::Out => {
                self.look(count);
                self.refresh_ms = refresh_ms;
                if self.counts.iter().all(|count| *count == 0) {
                    // There is nothing to join for.
                    return false;
                }
                self.silent = false;
                self.member_before.clone_from(&self.identity.member);
                *fresh += 1;
                let name = self.settings.instance_id.as_deref().unwrap_or("thalweg");
                let name = format!("{name}-{fresh}");
                let asked = Join {
                    member: self.identity.member.clone(),
                    instance: self.settings.instance_id.clone(),
                    topics: self.topics.clone(),
                    session_ms: self.settings.session_timeout_ms,
                    rebalance_ms: self.settings.max_poll_interval_ms,
                };
                match self.request(|| group.join(asked, name, now_ms)) {
                    Some(Ok(member)) => {
                        self.identity.member = member;
                        self.phase = Phase::Joining;
                    }
                    Some(Err(code)) => self.refused(code),
                    None => {}
                }
            }
            Phase::Joining => match group.joined(&self.identity) {
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
                let identity = self.identity.clone();
                match self.request(|| group.sync(&identity, all, now_ms)) {
                    Some(Ok(Some(partitions))) => {
                        self.phase = Phase::Steady;
                        self.lost = false;
                        self.heartbeat_ms = now_ms + self.heartbeat_interval_ms();
                        self.heard_ms = now_ms;
                        let member =
                            Member { generation: self.identity.generation, id: self.identity.member.clone() };
                        self.events.push_back(LogEvent::Assigned { partitions, member });
                    }
                    Some(Ok(None)) => {}
                    Some(Err(code)) => self.refused(code),
                    None => self.phase = Phase::Out,
                }
            }
            Phase::Steady | Phase::Revoking | Phase::Failed(_) | Phase::Left => {}
        }
        phase != self.phase
    }

    /// Sends a request to the group; `None` if no answer comes that tells anything.
    fn request<T>(&mut self, send: impl FnOnce() -> Result<T, Code>) -> Option<Result<T, Code>> {
        match self.mishap.take() {
            None => Some(send()),
            Some(Mishap::Lost) => None,
            Some(Mishap::Unanswered) => {
                // Whatever came of it.
                let _unheard = send();
                None
            }
            Some(Mishap::Refused(code)) if code.passes() => None,
            Some(Mishap::Refused(code)) => Some(Err(code)),
        }
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
        let holds = matches!(self.phase, Phase::Steady | Phase::Revoking);
        holds && !self.frozen && !self.silent
    }

    /// When its user has not called it for too long.
    fn unattended_ms(&self) -> u64 {
        self.polled_ms + self.settings.max_poll_interval_ms
    }

    /// When it has not heard of the group for so long that its session must have ended. It does not look
    /// while its user is to give the partitions back.
    fn session_end_ms(&self) -> u64 {
        if self.phase == Phase::Steady { self.heard_ms + self.settings.session_timeout_ms } else { u64::MAX }
    }

    /// When it does something by itself next.
    pub fn next_ms(&self, now_ms: u64) -> Option<u64> {
        if self.beats() {
            let next_ms = self.heartbeat_ms.min(self.unattended_ms()).min(self.session_end_ms());
            return Some(next_ms.min(self.refresh_ms));
        }
        let waits = matches!(self.phase, Phase::Out | Phase::Joining | Phase::Syncing) && !self.frozen;
        let next_ms = if self.phase == Phase::Out { self.refresh_ms } else { 0 }.max(self.cut_off_ms);
        Some(next_ms).filter(|next_ms| waits && *next_ms > now_ms)
    }

    /// Beats its heart, also while its user is to give back what is lost: as nobody then. Gives up who it was
    /// if it could not for a whole session, having been stopped or cut off; leaves if its user has not called
    /// for too long (a static member goes silent). `group` is `None` if its coordinator is away.
    pub fn tick(&mut self, group: Option<&mut Group>, now_ms: u64) {
        if !self.beats() {
            return;
        }
        let group = group.filter(|_| self.cut_off_ms <= now_ms);
        if self.session_end_ms() <= now_ms {
            self.forget();
            self.lose();
        } else if self.unattended_ms() <= now_ms {
            if let Some(group) = group.filter(|_| self.settings.instance_id.is_none()) {
                group.leave(&self.identity.member, now_ms);
            }
            self.silent = true;
            self.forget();
            self.lose();
        } else if self.heartbeat_ms <= now_ms {
            self.heartbeat_ms = now_ms + self.heartbeat_interval_ms();
            let Some(group) = group else { return };
            let identity = self.identity.clone();
            let Some(answer) = self.request(|| group.heartbeat(&identity, now_ms)) else { return };
            self.heard_ms = now_ms;
            match answer {
                // It knows already.
                Ok(()) | Err(Code::RebalanceInProgress) if self.phase == Phase::Revoking => {}
                Ok(()) => {}
                Err(code) => self.refused(code),
            }
        }
    }
}
