//! A consumer group of the classic protocol, as its coordinator sees it: members, static members,
//! generations, sessions, the phases of a rebalance; committed offsets and those of open transactions.
//!
//! Simpler than Kafka: no limit on a group's size, no protocol but `range`; a member's id is given at
//! its first join request (KIP-394's second round trip has no effect that a client could see); a static
//! member that comes back with other topics does not cause a rebalance.

use std::collections::BTreeMap;

use crate::model::error::Code;
use crate::model::transactions::Writer;
use crate::record::TopicPartition;
use crate::worker::alignment::Standing;
use crate::worker::port::SourceOffset;

/// How long the offsets of a group without members are kept (`offsets.retention.minutes`).
pub const OFFSETS_RETENTION_MS: u64 = 7 * 24 * 3_600_000;
/// The shortest and longest session (`group.min.session.timeout.ms`, `group.max.session.timeout.ms`).
const SESSION_MS: std::ops::RangeInclusive<u64> = 6_000..=1_800_000;
/// How often that is looked at (`offsets.retention.check.interval.ms`).
const RETENTION_CHECK_MS: u64 = 600_000;

/// The phases of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It has no members.
    Empty,
    /// Its members are to join again, until this time.
    Preparing(u64),
    /// They have joined; the leader's assignment is awaited, until this time.
    Completing(u64),
    /// Every member has its partitions.
    Stable,
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The group's generation; -1: none.
    pub generation: i32,
    /// The member id; empty: none.
    pub member: String,
    /// The static member's name.
    pub instance: Option<String>,
}

/// What a member asks for when it joins.
#[derive(Clone, Debug)]
pub struct Join {
    /// Its id; empty for a new member.
    pub member: String,
    /// The static member's name.
    pub instance: Option<String>,
    /// What it wants to read.
    pub topics: Vec<String>,
    /// How long it may be silent.
    pub session_ms: u64,
    /// How long it may take to join again.
    pub rebalance_ms: u64,
}

#[derive(Clone)]
struct Member {
    asked: Join,
    /// It waits for the answer to its join request.
    joining: bool,
    /// It has asked for its assignment in this generation.
    synced: bool,
    assignment: Vec<TopicPartition>,
    session_end_ms: u64,
}

/// A generation that was complete.
#[derive(Clone)]
struct Written {
    generation: i32,
    members: BTreeMap<String, Member>,
    instances: BTreeMap<String, String>,
    leader: Option<String>,
}

/// A committed offset.
#[derive(Clone, Copy)]
struct Offset {
    offset: i64,
    /// The number of its commit.
    commit: u64,
    /// Whether it is marked as that of a finished partition.
    finished: bool,
    standing: Option<Standing>,
}

/// The offsets of an open transaction.
#[derive(Default)]
struct Pending {
    offsets: BTreeMap<TopicPartition, Offset>,
    foreign: Vec<String>,
}

/// A consumer group.
pub struct Group {
    phase: Phase,
    generation: i32,
    members: BTreeMap<String, Member>,
    instances: BTreeMap<String, String>,
    leader: Option<String>,
    /// Committed offsets.
    offsets: BTreeMap<TopicPartition, Offset>,
    /// The first offset that was ever committed in a transaction, of each partition.
    first_offsets: BTreeMap<TopicPartition, i64>,
    commits: u64,
    /// What the coordinator has written down of the members.
    written: Option<Written>,
    /// The offsets of open transactions, by producer id.
    pending: BTreeMap<i64, Pending>,
    /// The newest epoch of each producer that has committed here or ended a transaction.
    epochs: BTreeMap<i64, i16>,
    /// What was committed for partitions that the committing member did not own, in words.
    foreign: Vec<String>,
    empty_since_ms: u64,
}

impl Group {
    /// A group that has no members yet.
    pub fn new(now_ms: u64) -> Group {
        Group {
            phase: Phase::Empty,
            generation: 0,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            leader: None,
            offsets: BTreeMap::new(),
            first_offsets: BTreeMap::new(),
            commits: 0,
            written: None,
            pending: BTreeMap::new(),
            epochs: BTreeMap::new(),
            foreign: Vec::new(),
            empty_since_ms: now_ms,
        }
    }

    /// The ids of its members.
    pub fn members(&self) -> Vec<String> {
        self.members.keys().cloned().collect()
    }

    /// Whether this member decides who gets what.
    pub fn leads(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    /// Asks to join; the answer is [`joined`](Group::joined). `fresh` becomes the id of a new member.
    /// Returns the member's id.
    pub fn join(&mut self, mut asked: Join, fresh: String, now_ms: u64) -> Result<String, Code> {
        if !SESSION_MS.contains(&asked.session_ms) {
            return Err(Code::InvalidSessionTimeout);
        }
        if let Some(instance) = &asked.instance {
            match self.instances.get(instance).cloned() {
                Some(now) if asked.member.is_empty() => return Ok(self.replace(&now, asked, fresh, now_ms)),
                Some(now) if now != asked.member => return Err(Code::FencedInstanceId),
                None if !asked.member.is_empty() => return Err(Code::UnknownMemberId),
                _ => {}
            }
        }
        if asked.member.is_empty() {
            asked.member = fresh;
        } else if !self.members.contains_key(&asked.member) {
            return Err(Code::UnknownMemberId);
        }
        let id = asked.member.clone();
        if let Some(instance) = &asked.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        let session_end_ms = now_ms + asked.session_ms;
        let (assignment, synced) = (Vec::new(), false);
        let member = Member { asked, joining: true, synced, assignment, session_end_ms };
        self.members.insert(id.clone(), member);
        self.prepare(now_ms);
        self.complete_if_all_joined(now_ms);
        Ok(id)
    }

    /// A static member comes back as a new client: it takes the place of its old one. A stable group does
    /// not rebalance for that.
    fn replace(&mut self, old: &str, mut asked: Join, fresh: String, now_ms: u64) -> String {
        asked.member.clone_from(&fresh);
        let assignment = self.members.remove(old).map(|member| member.assignment).unwrap_or_default();
        if let Some(instance) = &asked.instance {
            self.instances.insert(instance.clone(), fresh.clone());
        }
        if self.leads(old) {
            self.leader = Some(fresh.clone());
        }
        let stable = self.phase == Phase::Stable;
        let session_end_ms = now_ms + asked.session_ms;
        let member = Member { asked, joining: !stable, synced: stable, assignment, session_end_ms };
        self.members.insert(fresh.clone(), member);
        if !stable {
            self.prepare(now_ms);
            self.complete_if_all_joined(now_ms);
        } else {
            self.write_down();
        }
        fresh
    }

    /// What outlives the coordinator's broker.
    fn write_down(&mut self) {
        self.written = Some(Written {
            generation: self.generation,
            members: self.members.clone(),
            instances: self.instances.clone(),
            leader: self.leader.clone(),
        });
    }

    /// Another coordinator reads what was written down, and is there at `from_ms`, when all sessions start.
    pub fn reload(&mut self, from_ms: u64) {
        match self.written.clone() {
            Some(Written { generation, members, instances, leader }) => {
                (self.generation, self.members) = (generation, members);
                (self.instances, self.leader) = (instances, leader);
            }
            None => {
                self.generation = 0;
                self.members.clear();
                self.instances.clear();
                self.leader = None;
            }
        }
        self.phase = if self.members.is_empty() { Phase::Empty } else { Phase::Stable };
        for member in self.members.values_mut() {
            (member.joining, member.synced) = (false, true);
            member.session_end_ms = from_ms.saturating_add(member.asked.session_ms);
        }
    }

    /// The generation that a join request was answered with; `None` while it waits. A static member whose
    /// place another client has taken meanwhile is fenced.
    pub fn joined(&self, who: &Identity) -> Result<Option<i32>, Code> {
        self.check_member(who)?;
        let found = self.members.get(&who.member).ok_or(Code::UnknownMemberId)?;
        Ok((!found.joining).then_some(self.generation))
    }

    /// Begins a rebalance unless one has begun.
    fn prepare(&mut self, now_ms: u64) {
        if !matches!(self.phase, Phase::Preparing(_)) {
            let limit_ms = self.members.values().map(|member| member.asked.rebalance_ms).max();
            self.phase = Phase::Preparing(now_ms + limit_ms.unwrap_or(0));
        }
    }

    fn complete_if_all_joined(&mut self, now_ms: u64) {
        if matches!(self.phase, Phase::Preparing(_)) && self.members.values().all(|member| member.joining) {
            self.complete_join(now_ms);
        }
    }

    /// The next generation. Dynamic members that have not joined again are out; static ones keep their
    /// place until their session ends.
    fn complete_join(&mut self, now_ms: u64) {
        self.members.retain(|_, member| member.joining || member.asked.instance.is_some());
        let limit_ms = self.members.values().map(|member| member.asked.rebalance_ms).max().unwrap_or(0);
        let leader = self.leader.take().filter(|id| self.members.get(id).is_some_and(|one| one.joining));
        let mut joining = self.members.iter().filter(|(_, member)| member.joining).map(|(id, _)| id.clone());
        self.leader = leader.or_else(|| joining.next());
        if self.leader.is_none() && !self.members.is_empty() {
            self.phase = Phase::Preparing(now_ms + limit_ms);
            return;
        }
        self.generation += 1;
        if self.members.is_empty() {
            self.phase = Phase::Empty;
            self.empty_since_ms = now_ms;
            self.write_down();
            return;
        }
        self.phase = Phase::Completing(now_ms + limit_ms);
        for member in self.members.values_mut() {
            if member.joining {
                member.session_end_ms = now_ms + member.asked.session_ms;
            }
            (member.joining, member.synced) = (false, false);
            member.assignment.clear();
        }
    }

    /// What the leader sends with its sync request: each topic's partitions by `range` among its
    /// subscribers. `count` tells how many partitions a topic has.
    pub fn range(&self, count: &dyn Fn(&str) -> i32) -> BTreeMap<String, Vec<TopicPartition>> {
        let mut topics: BTreeMap<&str, Vec<(&Option<String>, &String)>> = BTreeMap::new();
        for (id, member) in &self.members {
            for topic in &member.asked.topics {
                topics.entry(topic).or_default().push((&member.asked.instance, id));
            }
        }
        let mut assignments: BTreeMap<String, Vec<TopicPartition>> = BTreeMap::new();
        for (topic, mut subscribers) in topics {
            // Static members by their names, so that a restart gets the same partitions.
            subscribers.sort();
            let (partitions, members) = (count(topic), subscribers.len() as i32);
            let (each, more) = (partitions / members, partitions % members);
            let mut next = 0;
            for (index, (_, id)) in (0..).zip(subscribers) {
                let end = next + each + i32::from(index < more);
                let given = (next..end).map(|partition| TopicPartition::new(topic, partition));
                assignments.entry(id.clone()).or_default().extend(given);
                next = end;
            }
        }
        assignments
    }

    /// Asks for the member's assignment; `None` while the leader's word is awaited. The leader brings all
    /// of them.
    pub fn sync(
        &mut self,
        who: &Identity,
        all: Option<BTreeMap<String, Vec<TopicPartition>>>,
        now_ms: u64,
    ) -> Result<Option<Vec<TopicPartition>>, Code> {
        self.check_member(who)?;
        if who.generation != self.generation {
            return Err(Code::IllegalGeneration);
        }
        match self.phase {
            Phase::Empty => return Err(Code::UnknownMemberId),
            Phase::Preparing(_) => return Err(Code::RebalanceInProgress),
            Phase::Completing(_) | Phase::Stable => {}
        }
        if let (Phase::Completing(_), Some(mut all)) = (self.phase, all.filter(|_| self.leads(&who.member))) {
            for (id, member) in &mut self.members {
                member.assignment = all.remove(id).unwrap_or_default();
            }
            self.phase = Phase::Stable;
            self.write_down();
        }
        let stable = self.phase == Phase::Stable;
        let Some(member) = self.members.get_mut(&who.member) else { return Err(Code::UnknownMemberId) };
        member.synced = true;
        member.session_end_ms = now_ms + member.asked.session_ms;
        Ok(stable.then(|| member.assignment.clone()))
    }

    /// Prolongs the member's session and tells it whether the group rebalances.
    pub fn heartbeat(&mut self, who: &Identity, now_ms: u64) -> Result<(), Code> {
        self.check_member(who)?;
        if who.generation != self.generation {
            return Err(Code::IllegalGeneration);
        }
        if let Some(member) = self.members.get_mut(&who.member) {
            member.session_end_ms = now_ms + member.asked.session_ms;
        }
        match self.phase {
            Phase::Preparing(_) => Err(Code::RebalanceInProgress),
            Phase::Empty | Phase::Completing(_) | Phase::Stable => Ok(()),
        }
    }

    /// Leaves for good. Somebody who is no member is told nothing.
    pub fn leave(&mut self, member: &str, now_ms: u64) {
        self.remove(member);
        self.rebalance_without(now_ms);
    }

    fn remove(&mut self, member: &str) {
        if let Some(instance) = self.members.remove(member).and_then(|member| member.asked.instance) {
            self.instances.remove(&instance);
        }
    }

    /// After a member has gone.
    fn rebalance_without(&mut self, now_ms: u64) {
        if self.phase != Phase::Empty {
            self.prepare(now_ms);
            self.complete_if_all_joined(now_ms);
        }
    }

    fn check_member(&self, who: &Identity) -> Result<(), Code> {
        if let Some(instance) = &who.instance {
            match self.instances.get(instance) {
                None => return Err(Code::UnknownMemberId),
                Some(now) if *now != who.member => return Err(Code::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(&who.member) { Ok(()) } else { Err(Code::UnknownMemberId) }
    }

    /// Whether the producer has offsets here that are not decided.
    pub fn is_open(&self, producer: i64) -> bool {
        self.pending.contains_key(&producer)
    }

    /// Takes the offsets of a transaction (TxnOffsetCommit). As lax as the coordinator: nobody at all may
    /// commit, whoever the members are; a member may commit offsets of partitions that are not its own;
    /// a group in any phase of a rebalance takes them.
    pub fn commit_pending(
        &mut self,
        who: &Identity,
        writer: Writer,
        offsets: &[SourceOffset],
    ) -> Result<(), Code> {
        let nobody = who.generation < 0 && (self.phase == Phase::Empty || *who == anonymous());
        if !nobody {
            self.check_member(who)?;
            if who.generation != self.generation {
                return Err(Code::IllegalGeneration);
            }
        }
        let newest = self.epochs.entry(writer.producer).or_insert(writer.epoch);
        if writer.epoch < *newest {
            return Err(Code::InvalidProducerEpoch);
        }
        *newest = writer.epoch;
        // A late copy of what the transaction holds already was its owner's when that was sent.
        let held = self.pending.get(&writer.producer);
        let is_held = |sent: &SourceOffset| {
            let found = held.and_then(|held| held.offsets.get(&sent.partition));
            found.is_some_and(|found| found.offset == sent.next_offset)
        };
        let fresh = offsets.iter().filter(|sent| !is_held(sent));
        let foreign = self.foreign(who, fresh.map(|sent| (&sent.partition, sent.next_offset)));
        let pending = self.pending.entry(writer.producer).or_default();
        self.commits += 1;
        let commit = self.commits;
        pending.offsets.extend(offsets.iter().map(|sent| {
            let SourceOffset { next_offset: offset, finished, standing, .. } = *sent;
            (sent.partition.clone(), Offset { offset, commit, finished, standing })
        }));
        pending.foreign.extend(foreign);
        Ok(())
    }

    /// Takes offsets that are in no transaction (OffsetCommit). Nobody may commit in an empty group alone.
    pub fn commit(&mut self, who: &Identity, offsets: &[(TopicPartition, i64)]) -> Result<(), Code> {
        if !(who.generation < 0 && self.phase == Phase::Empty) {
            self.check_member(who)?;
            if who.generation != self.generation {
                return Err(Code::IllegalGeneration);
            }
            if matches!(self.phase, Phase::Completing(_)) {
                return Err(Code::RebalanceInProgress);
            }
        }
        let foreign = self.foreign(who, offsets.iter().map(|(partition, offset)| (partition, *offset)));
        self.foreign.extend(foreign);
        self.commits += 1;
        let commit = self.commits;
        self.offsets.extend(offsets.iter().map(|(partition, offset)| {
            (partition.clone(), Offset { offset: *offset, commit, finished: false, standing: None })
        }));
        Ok(())
    }

    /// What of this the member does not own, which no coordinator checks, in words.
    fn foreign<'o>(
        &self,
        who: &Identity,
        offsets: impl Iterator<Item = (&'o TopicPartition, i64)>,
    ) -> Vec<String> {
        if self.members.is_empty() {
            return Vec::new();
        }
        let owned = self.members.get(&who.member).map_or(&[][..], |member| &member.assignment);
        let foreign = offsets.filter(|(partition, _)| !owned.contains(partition));
        let told = foreign.map(|(partition, offset)| {
            format!(
                "offset {offset} of {partition} was committed by member {:?} of generation {}, which owns {owned:?} \
                 in generation {} ({:?})",
                who.member, who.generation, self.generation, self.phase
            )
        });
        told.collect()
    }

    /// Whether a member owns a partition in the group's generation of now.
    pub fn owns(&self, member: &str, partition: &TopicPartition) -> bool {
        self.members.get(member).is_some_and(|member| member.assignment.contains(partition))
    }

    /// What was committed for partitions that the committing member did not own.
    pub fn foreign_commits(&self) -> &[String] {
        &self.foreign
    }

    /// A transaction has ended: its offsets count, or are dropped.
    pub fn end_transaction(&mut self, writer: Writer, commit: bool) {
        let newest = self.epochs.entry(writer.producer).or_insert(writer.epoch);
        *newest = writer.epoch.max(*newest);
        let pending = self.pending.remove(&writer.producer).unwrap_or_default();
        if commit {
            for (partition, offset) in pending.offsets {
                self.first_offsets.entry(partition.clone()).or_insert(offset.offset);
                // What was committed later stays, whichever transaction ended first.
                if self.offsets.get(&partition).is_none_or(|there| there.commit < offset.commit) {
                    self.offsets.insert(partition, offset);
                }
            }
            self.foreign.extend(pending.foreign);
        }
    }

    /// The committed offset of a partition. A reader that asks for stable ones has to wait while a
    /// transaction on it is open.
    pub fn committed(&self, partition: &TopicPartition, stable: bool) -> Result<Option<i64>, Code> {
        if stable && self.pending.values().any(|pending| pending.offsets.contains_key(partition)) {
            return Err(Code::UnstableOffsetCommit);
        }
        Ok(self.offsets.get(partition).map(|found| found.offset))
    }

    /// The first offset of a partition that was ever committed in a transaction.
    pub fn first_committed(&self, partition: &TopicPartition) -> Option<i64> {
        self.first_offsets.get(partition).copied()
    }

    /// All committed offsets.
    pub fn all_committed(&self) -> Vec<(TopicPartition, i64)> {
        self.offsets.iter().map(|(partition, found)| (partition.clone(), found.offset)).collect()
    }

    /// The partitions whose committed offset is marked as that of a finished one.
    pub fn finished(&self) -> Vec<TopicPartition> {
        let finished = self.offsets.iter().filter(|(_, found)| found.finished);
        finished.map(|(partition, _)| partition.clone()).collect()
    }

    /// How far partitions are, of those whose committed offset says so.
    pub fn standings(&self) -> Vec<(TopicPartition, Standing)> {
        let told = self.offsets.iter().filter(|(_, found)| !found.finished);
        told.filter_map(|(partition, found)| Some((partition.clone(), found.standing?))).collect()
    }

    /// A topic was deleted: its offsets go.
    pub fn forget_topic(&mut self, topic: &str) {
        self.offsets.retain(|partition, _| *partition.topic != *topic);
        for pending in self.pending.values_mut() {
            pending.offsets.retain(|partition, _| *partition.topic != *topic);
        }
    }

    /// When something happens here by itself next.
    pub fn next_ms(&self) -> Option<u64> {
        let phase = match self.phase {
            Phase::Preparing(end_ms) | Phase::Completing(end_ms) => Some(end_ms),
            Phase::Empty if !self.offsets.is_empty() => {
                Some((self.empty_since_ms + OFFSETS_RETENTION_MS).next_multiple_of(RETENTION_CHECK_MS))
            }
            Phase::Empty | Phase::Stable => None,
        };
        let silent = self.members.values().filter(|member| !self.waits(member));
        silent.map(|member| member.session_end_ms).chain(phase).min()
    }

    /// Whether the coordinator owes the member an answer: it cannot be silent then.
    fn waits(&self, member: &Member) -> bool {
        member.joining || (member.synced && matches!(self.phase, Phase::Completing(_)))
    }

    /// Ends sessions and phases whose time is up.
    pub fn tick(&mut self, now_ms: u64) {
        let dead = self.members.iter().filter(|(_, one)| !self.waits(one) && one.session_end_ms <= now_ms);
        for id in dead.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.remove(&id);
            self.rebalance_without(now_ms);
        }
        match self.phase {
            Phase::Preparing(end_ms) if end_ms <= now_ms => self.complete_join(now_ms),
            Phase::Completing(end_ms) if end_ms <= now_ms => {
                let late = self.members.iter().filter(|(_, member)| !member.synced);
                for id in late.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
                    self.remove(&id);
                }
                self.rebalance_without(now_ms);
            }
            Phase::Empty if self.next_ms().is_some_and(|next_ms| next_ms <= now_ms) => self.offsets.clear(),
            _ => {}
        }
    }
}

/// What librdkafka says of a consumer that is in no group.
pub fn anonymous() -> Identity {
    Identity { generation: -1, member: String::new(), instance: None }
}
