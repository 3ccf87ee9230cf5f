//! What goes wrong around the clients: crashes, pauses, disks, services.

use super::{Down, RESTART_MS, World};
use crate::model::{Code, Mishap, Service};
use crate::random::Random;
use crate::record::TopicPartition;
use crate::simulator::disk::Disk;
use crate::simulator::trace::Who;

/// What a coordinator may answer to a member.
const GROUP_ANSWERS: [Code; 6] = [
    Code::NotCoordinator,
    Code::CoordinatorLoadInProgress,
    Code::RebalanceInProgress,
    Code::IllegalGeneration,
    Code::UnknownMemberId,
    Code::FencedInstanceId,
];

impl World {
    pub(super) fn go_wrong(&mut self, mut chance: Random) -> Result<(), String> {
        if self.processes.is_empty() {
            return Ok(());
        }
        let at = chance.place(self.processes.len());
        let who = Who::Process(self.processes[at].number);
        match chance.below(20) {
            0..4 => {
                // What RocksDB had in memory is lost, but for any part that it had written by itself.
                let kept = chance.below(4) as usize;
                self.note(who, "crash", || format!("the disk keeps {kept} unsynced writes of each store"));
                self.crash(at, kept, chance.below(3_000))?;
            }
            4 => {
                self.note(who, "crash, and the disk is lost", String::new);
                self.check_violations(&self.processes[at].disk)?;
                self.processes[at].disk = self.new_disk()?;
                if chance.one_in(2) {
                    self.identities += 1;
                    self.processes[at].identity = self.identities;
                }
                self.crash(at, 0, chance.below(10_000))?;
            }
            5..7 => self.damage(at, &mut chance)?,
            7 => {
                self.note(who, "disk full", String::new);
                self.processes[at].disk.set_full(true);
            }
            8 => {
                self.note(who, "disk has room again", String::new);
                self.processes[at].disk.set_full(false);
            }
            9..11 if self.processes[at].frozen_until_ms.is_none() => self.pause(at, &mut chance)?,
            11 if !self.processes[at].leaving => {
                self.note(who, "stop asked for", String::new);
                self.processes[at].stop();
            }
            12 => {
                let ms = chance.below(5) * chance.below(1_000);
                self.note(Who::World, "markers take long", || format!("{ms} ms"));
                self.common.shared.cluster.set_marker_delay_ms(ms);
            }
            13 => {
                let ms = 1_000 + chance.below(20_000);
                self.note(Who::World, "time jumps", || format!("{ms} ms"));
                self.advance(ms);
            }
            14 => {
                self.note(Who::World, "a process more", String::new);
                self.start_new()?;
            }
            15..17 => self.take_a_service_away(&mut chance),
            17 => self.move_a_log_start_back(&mut chance),
            18 if self.processes[at].frozen_until_ms.is_none() => {
                let ms = chance.below(4) * chance.below(10_000);
                self.note(who, "cut off from its group", || format!("for {ms} ms"));
                self.processes[at].cut_off(self.now_ms() + ms);
            }
            19 => self.disturb(at, &mut chance),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn check_violations(&self, disk: &Disk) -> Result<(), String> {
        disk.violation().map_or(Ok(()), Err)
    }

    /// Something happens to the next request of one of its consumers to the group.
    fn disturb(&mut self, at: usize, chance: &mut Random) {
        let process = &self.processes[at];
        let mishap = match chance.below(4) {
            0 => Mishap::Lost,
            1 => Mishap::Unanswered,
            _ => {
                let code = *chance.pick(&GROUP_ANSWERS);
                if !code.passes() {
                    self.common.shared.answered(Who::Process(process.number), code);
                }
                if code == Code::UnknownMemberId {
                    // It is not so: its name is taken, by itself.
                    self.common.shared.answered(Who::Process(process.number), Code::FencedInstanceId);
                }
                Mishap::Refused(code)
            }
        };
        let seat = &process.seats[chance.place(process.seats.len())];
        self.note(seat.who, "request to the group goes wrong", || format!("{mishap:?}"));
        seat.disturb(mishap);
    }

    fn take_a_service_away(&mut self, chance: &mut Random) {
        let partitions = self.common.shared.cluster.all_partitions();
        let service = match chance.below(4) {
            0 => Service::Groups,
            1 => Service::Transactions,
            _ => Service::Leader(chance.pick(&partitions).clone()),
        };
        self.groups_moved |= service == Service::Groups;
        let ms = chance.below(4) * chance.below(2_000);
        self.note(Who::World, "service away", || format!("{service:?} for {ms} ms"));
        self.common.shared.cluster.set_away(service, self.now_ms() + ms);
    }

    /// A broker crashes that had not written down yet what was deleted.
    fn move_a_log_start_back(&mut self, chance: &mut Random) {
        let cluster = &self.common.shared.cluster;
        let is_cut = |partition: &TopicPartition| cluster.log_start(partition) > 0;
        let cut: Vec<TopicPartition> = cluster.all_partitions().into_iter().filter(is_cut).collect();
        if cut.is_empty() {
            return;
        }
        let partition = chance.pick(&cut);
        let to = chance.below(cluster.log_start(partition) as u64) as i64;
        self.note(Who::World, "log start moved back", || format!("{partition} to {to}"));
        cluster.move_log_start_back(partition, to);
    }

    fn damage(&mut self, at: usize, chance: &mut Random) -> Result<(), String> {
        let names = self.processes[at].disk.names()?;
        if names.is_empty() {
            return Ok(());
        }
        let name = chance.pick(&names);
        self.note(Who::Process(self.processes[at].number), "store damaged", || name.clone());
        self.processes[at].disk.corrupt(name)
    }

    /// Pauses a process; perhaps somebody starts another one in its place meanwhile.
    fn pause(&mut self, at: usize, chance: &mut Random) -> Result<(), String> {
        let ms = 200 + chance.below(4) * chance.below(20_000);
        let number = self.processes[at].number;
        self.note(Who::Process(number), "paused", || format!("for {ms} ms"));
        let until_ms = self.now_ms() + ms;
        self.processes[at].freeze(Some(until_ms));
        if chance.one_in(3) && !self.processes[at].replaced {
            self.processes[at].replaced = true;
            let (identity, kept) = (self.processes[at].identity, chance.below(4) as usize);
            self.contested.insert(identity);
            let disk = self.processes[at].disk.after_crash(kept)?;
            self.note(Who::Process(number), "replaced while paused", || {
                format!("process {} has its identity and a copy of its disk", self.started)
            });
            self.start(identity, disk);
        }
        Ok(())
    }

    /// A process dies; what it leaves starts again later.
    pub(super) fn crash(&mut self, at: usize, kept: usize, restart_ms: u64) -> Result<(), String> {
        let process = self.processes.remove(at);
        let (identity, replaced, number) = (process.identity, process.replaced, process.number);
        let owned = process.owned();
        if let Some(violation) = process.disk.violation() {
            return Err(format!("process {number}: {violation}"));
        }
        // Before its stores are closed: RocksDB writes out what it has then.
        let disk = process.disk.after_crash(kept)?;
        process.die();
        self.check_disk(&disk)?;
        self.check_reach(&disk, &owned)?;
        if !replaced {
            self.down.push(Down { identity, disk, restart_ms: self.now_ms() + restart_ms });
        }
        Ok(())
    }

    /// Processes that came to the place where they die.
    pub(super) fn bury_the_dying(&mut self) -> Result<(), String> {
        let Some(number) = self.common.shared.dying.take() else { return Ok(()) };
        let Some(at) = self.processes.iter().position(|process| process.number == number) else {
            return Ok(());
        };
        self.note(Who::Process(number), "crash", String::new);
        self.crash(at, 0, RESTART_MS)
    }
}
